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

from jaxslm import restricted_pickle
from jaxslm.hf import torch_file
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
    with pytest.raises(
        ValueError, match=f"a.pt was not read and nothing in it was run: it names ({named}), which is none"
    ):
        read_torch_file(tmp_path / "a.pt")
    assert not touched.exists()


@pytest.mark.filterwarnings("ignore:TypedStorage")
def test_a_tensor_may_not_reach_beyond_its_storage(tmp_path):
    def rebuilt(storage, offset, size, stride):
        return Hostile(torch._utils._rebuild_tensor_v2, storage, offset, size, stride, False, collections.OrderedDict())

    storage = torch.storage.TypedStorage(wrap_storage=torch.zeros(4).untyped_storage(), dtype=torch.float32)
    for offset, size, stride in (
        (0, (5,), (1,)),
        (1, (2, 2), (2, 1)),
        (-1, (1,), (1,)),
        (0, (2,), (-1,)),
        (0, (1 << 40,), (0,)),  # of no more than one number
        (0, (3, 3), (1, 1)),
        (0, (1,) * 40, (1,) * 40),
    ):
        torch.save(rebuilt(storage, offset, size, stride), tmp_path / "a.pt")
        with pytest.raises(ValueError, match="does not lie in its storage|without a storage or a shape"):
            read_torch_file(tmp_path / "a.pt")


def test_other_files_are_refused_by_name(tmp_path):
    torch.save({"a": torch.zeros(2)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(ValueError, match="old.pt was not read.*it is no zip archive.*torch before 1.6.*torch.save"):
        read_torch_file(tmp_path / "old.pt")
    with zipfile.ZipFile(tmp_path / "other.pt", "w") as archive:
        archive.writestr("readme", "")
    with pytest.raises(ValueError, match="other.pt .*it has no data.pkl"):
        read_torch_file(tmp_path / "other.pt")
    with zipfile.ZipFile(tmp_path / "broken.pt", "w") as archive:
        archive.writestr("a/data.pkl", b"\x80\x02}q")
    with pytest.raises(
        ValueError,
        match=r"broken.pt is truncated, damaged or no file of torch.save \(EOFError|IndexError.*\); copy it again",
    ):
        read_torch_file(tmp_path / "broken.pt")


def _write(path, program: bytes, compression: int = zipfile.ZIP_STORED, **storages: bytes):
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("a/data.pkl", program)
        for name, data in storages.items():
            archive.writestr(f"a/data/{name.removeprefix('s')}", data)
    return path


DOUBLED = b"\x80\x02)" + b"2\x86" * 60  # a pair of one pair of one pair of ...: 61 tuples, 2**60 ways through them


def test_what_is_held_in_many_places_is_converted_once(tmp_path):
    read = read_torch_file(_write(tmp_path / "a.pt", DOUBLED + b"."))
    assert read[0] is read[1] and read[0][0] is read[0][1]


def test_places_in_the_memo_take_no_memory_for_those_below(tmp_path):
    assert read_torch_file(_write(tmp_path / "a.pt", b"\x80\x02K\x07r\xff\xff\xff\xffj\xff\xff\xff\xff.")) == 7


@pytest.mark.parametrize(
    "program, message",
    [
        (b"]q\x00h\x00a.", "it has a value that holds itself"),
        (b"}q\x00X\x01\x00\x00\x00ah\x00s.", "it has a value that holds itself"),
        (b"}" + DOUBLED + b"Ns.", "it has a key of type tuple"),
        (b"(" + DOUBLED + b"Nd.", "it has a key of type tuple"),
        (b"}(" + DOUBLED + b"Nu.", "it has a key of type tuple"),
        (b"}cenum\nE\n" + DOUBLED + b"\x85RNs.", "it has a key of type tuple"),
        (b"}\x8a\x08" + (2**61 - 1).to_bytes(8, "little") + b"Ns.", "it has a key of type int"),
        (b"\x8f.", "an opcode that arrays and settings do not need"),
        (b"\x96" + (1 << 40).to_bytes(8, "little") + b"x.", "truncated, damaged .*copy it again"),
        (b"\x8e" + (1 << 40).to_bytes(8, "little") + b"x.", "truncated, damaged .*copy it again"),
        (b"\x8b\xff\xff\xff\x7fx.", "truncated, damaged .*copy it again"),
        (b"\x95" + (1 << 62).to_bytes(8, "little") + b"x.", "truncated, damaged .*copy it again"),
        (b"]" * 5000 + b"a" * 4999 + b".", r"damaged .*\(RecursionError.*copy it again"),
        (b"X\x01\x00\x00\x00\xff.", r"damaged .*\(UnicodeDecodeError.*copy it again"),
        (b"Ix\n.", r"damaged .*\(ValueError.*copy it again"),
        (DOUBLED + b"Q.", "refers to something that is no storage of numbers"),
        (b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\n" + DOUBLED + b"NK\x01tQ.", "no storage of numbers"),
        (b"cbuiltins\nlist\n" + DOUBLED + b"R.", "it calls builtins.list"),
        (b"ctorch._utils\n_rebuild_tensor_v2\n" + DOUBLED + b"\x85R.", "truncated, damaged"),
        (b"ccollections\nOrderedDict\n(]tR.", "it calls collections.OrderedDict"),
    ],
)
def test_hostile_and_broken_pickles_are_refused_by_name(tmp_path, program, message):
    with pytest.raises(ValueError, match=f"a.pt .*{message}"):
        read_torch_file(_write(tmp_path / "a.pt", program))


def _numbers(key: bytes, count: int) -> bytes:
    pid = (
        b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x00" + key + b"NJ" + count.to_bytes(4, "little")
    )
    return (
        b"ctorch._utils\n_rebuild_tensor_v2\n(" + pid + b"tQK\x00J" + count.to_bytes(4, "little") + b"\x85K\x01\x85tR"
    )


def test_entries_are_what_they_say(tmp_path):
    path, zeros = tmp_path / "a.pt", bytes(40_000)
    assert read_torch_file(_write(path, _numbers(b"0", 10_000) + b".", s0=zeros)).shape == (10_000,)
    with pytest.raises(ValueError, match="its entries are compressed, as torch.save never writes them"):
        read_torch_file(_write(path, _numbers(b"0", 10_000) + b".", zipfile.ZIP_DEFLATED, s0=zeros))
    with pytest.raises(ValueError, match="its storage 0 has 40000 bytes, not those of its numbers"):
        read_torch_file(_write(path, _numbers(b"0", 9_999) + b".", s0=zeros))
    _write(path, _numbers(b"0", 10_000) + b".", s0=zeros)
    with zipfile.ZipFile(path, "a") as archive:
        archive.filelist += archive.filelist[-1:] * 3  # entries over the same bytes
        archive._didModify = True
    with pytest.raises(ValueError, match="its entries are larger than the file"):
        read_torch_file(path)


def test_tensors_may_share_a_storage_but_not_without_end(tmp_path):
    for times in (3, 5):
        program = b"]" + b"".join(_numbers(b"0", 10_000) + b"a" for _ in range(times)) + b"."
        _write(tmp_path / "a.pt", program, s0=bytes(40_000))
        if times == 3:
            assert len(read_torch_file(tmp_path / "a.pt")) == 3
    with pytest.raises(ValueError, match="its tensors have many times the bytes of the file"):
        read_torch_file(tmp_path / "a.pt")


def test_large_pickles_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(torch_file, "MAX_PICKLE", 1000)
    with pytest.raises(ValueError, match="its a/data.pkl has 1,001 bytes, more than the 1,000 that are read"):
        read_torch_file(_write(tmp_path / "a.pt", bytes(1001)))
    monkeypatch.setattr(restricted_pickle._Opcodes, "left", 100)
    with pytest.raises(ValueError, match="it has more than 2,000,000 opcodes"):
        read_torch_file(_write(tmp_path / "a.pt", b"]" * 101))


def test_objects_that_are_no_settings_are_left_out(tmp_path):
    logger = b"cpytorch_lightning.loggers.wandb\nWandbLogger\n)\x81q\x01}X\x02\x00\x00\x00meh\x01sb"  # it holds itself
    program = b"\x80\x02}(X\x01\x00\x00\x00a" + logger + b"X\x01\x00\x00\x00bK\x03u."
    assert read_torch_file(_write(tmp_path / "a.pt", program)) == {"a": None, "b": 3}


def test_changed_bytes_never_raise_anything_else(tmp_path):
    saved = {"model": {"a": torch.arange(6.0).reshape(2, 3).T, "b": torch.arange(3)}, "args": argparse.Namespace(n=1)}
    torch.save(saved, tmp_path / "whole.pt")
    whole, rng = (tmp_path / "whole.pt").read_bytes(), np.random.default_rng(0)
    refused = 0
    for i in range(200):
        data = bytearray(whole)
        if i % 4:
            for at in rng.integers(0, len(data), 3):
                data[at] = rng.integers(0, 256)
        else:
            del data[rng.integers(0, len(data)) :]
        (tmp_path / "a.pt").write_bytes(data)
        try:
            read = read_torch_file(tmp_path / "a.pt")
        except ValueError as error:
            refused += 1
            assert "a.pt" in str(error)
        else:  # only padding or dates were hit
            assert read["args"] == {"n": 1}
            for name, value in saved["model"].items():
                np.testing.assert_array_equal(read["model"][name], value)
    assert 100 < refused < 200
