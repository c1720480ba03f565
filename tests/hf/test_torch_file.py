import argparse
import collections
import enum
import os
import pickle
import sys
import types
import zipfile

import numpy as np
import pytest

from jaxslm.hf.torch_file import read_torch_file

torch = pytest.importorskip("torch")


class Hostile:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def test_tensors_come_back_as_they_were_saved(tmp_path):
    whole = torch.arange(24, dtype=torch.float32).reshape(2, 3, 4)
    tensors = {
        "whole": whole,
        "turned": whole.permute(2, 0, 1),
        "part": whole[1, 1:, ::2],
        "scalar": torch.tensor(3, dtype=torch.int64),
        "none": torch.zeros(0, 5),
        "bfloat16": whole.to(torch.bfloat16),
        "half": whole.half(),
        "bool": whole > 3,
        "parameter": torch.nn.Parameter(whole + 1),
    }
    torch.save(collections.OrderedDict(tensors), tmp_path / "a.pt")
    read = read_torch_file(tmp_path / "a.pt")
    assert list(read) == list(tensors)
    for name, tensor in tensors.items():
        assert read[name].shape == tuple(tensor.shape)
        assert str(read[name].dtype) == str(tensor.dtype).removeprefix("torch.").replace("half", "float16")
        np.testing.assert_array_equal(read[name].astype(np.float32), tensor.detach().float().numpy())


def test_settings_come_back_as_what_they_hold(tmp_path, monkeypatch):
    module = types.ModuleType("omegaconf.dictconfig")  # as omegaconf pickles: class by name, contents as state

    class DictConfig(dict):
        pass

    class AnyNode:
        pass

    class Choice(enum.Enum):
        FIRST = "first"

    for kind in (DictConfig, AnyNode, Choice):
        kind.__module__, kind.__qualname__ = module.__name__, kind.__name__
        setattr(module, kind.__name__, kind)
    monkeypatch.setitem(sys.modules, "omegaconf", types.ModuleType("omegaconf"))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    leaf, config = AnyNode(), DictConfig()
    leaf.__dict__ = {"_metadata": Choice.FIRST, "_val": True, "_parent": config}
    config.__dict__ = {"_metadata": None, "_content": {"normalize": leaf, "choice": Choice.FIRST}}
    counts = collections.defaultdict(list, {"a": [1]})
    torch.save({"cfg": config, "args": argparse.Namespace(depth=3), "counts": counts}, tmp_path / "a.pt")
    read = read_torch_file(tmp_path / "a.pt")
    assert read == {"cfg": {"normalize": True, "choice": "first"}, "args": {"depth": 3}, "counts": {"a": [1]}}


@pytest.mark.parametrize(
    "function, arguments, named",
    [
        (os.system, ("touch {}",), "posix.system|nt.system"),
        (eval, ("open('{}', 'w')",), "__builtin__.eval"),
        (getattr, ("x", "upper"), "__builtin__.getattr"),
        (torch.load, ("{}",), "torch.serialization.load"),
        (np.load, ("{}",), "numpy.load"),
        (pickle.loads, (b"",), "_?pickle.loads"),
    ],
)
def test_a_pickle_that_names_anything_else_is_refused_and_nothing_runs(tmp_path, function, arguments, named):
    touched = tmp_path / "touched"
    arguments = [a.format(touched) if isinstance(a, str) else a for a in arguments]
    torch.save({"model": {"a": torch.zeros(2)}, "cfg": Hostile(function, *arguments)}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match=f"a.pt names ({named}), which is no data and might run code: refused"):
        read_torch_file(tmp_path / "a.pt")
    assert not touched.exists()


@pytest.mark.filterwarnings("ignore:TypedStorage")
def test_a_tensor_may_not_reach_beyond_its_storage(tmp_path):
    def rebuilt(storage, offset, size, stride):
        return Hostile(torch._utils._rebuild_tensor_v2, storage, offset, size, stride, False, collections.OrderedDict())

    storage = torch.storage.TypedStorage(wrap_storage=torch.zeros(4).untyped_storage(), dtype=torch.float32)
    for offset, size, stride in ((0, (5,), (1,)), (1, (2, 2), (2, 1)), (-1, (1,), (1,)), (0, (2,), (-1,))):
        torch.save(rebuilt(storage, offset, size, stride), tmp_path / "a.pt")
        with pytest.raises(ValueError, match="does not lie in its storage"):
            read_torch_file(tmp_path / "a.pt")


def test_other_files_are_refused_by_name(tmp_path):
    torch.save({"a": torch.zeros(2)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(ValueError, match="old.pt is no zip archive.*torch before 1.6.*torch.save"):
        read_torch_file(tmp_path / "old.pt")
    with zipfile.ZipFile(tmp_path / "other.pt", "w") as archive:
        archive.writestr("readme", "")
    with pytest.raises(ValueError, match="other.pt has no data.pkl"):
        read_torch_file(tmp_path / "other.pt")
    with zipfile.ZipFile(tmp_path / "broken.pt", "w") as archive:
        archive.writestr("a/data.pkl", b"\x80\x02}q")
    with pytest.raises(ValueError, match="broken.pt is damaged"):
        read_torch_file(tmp_path / "broken.pt")
