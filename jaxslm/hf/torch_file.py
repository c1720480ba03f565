"""What a file of `torch.save` holds, read without torch and without running anything that it names.

The file is a zip archive of one pickle and of the bytes of each storage. A pickle names classes and functions to call;
here it gets stand-ins for the few that make up tensors, plain containers for plain containers, inert objects for
settings (argparse, omegaconf, fairseq), and a ValueError for any other.

https://docs.python.org/3/library/pickle.html, "Restricting Globals"; torch/serialization.py for the archive.
"""

import collections
import pickle
import zipfile
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

INERT = ("argparse", "omegaconf", "fairseq", "typing", "enum")  # packages whose objects are kept as what they hold
CONTAINERS = {
    "dict": dict,
    "list": list,
    "tuple": tuple,
    "set": set,
    "int": int,
    "float": float,
    "str": str,
    "bool": bool,
}
STORAGES = {
    "FloatStorage": np.float32,
    "DoubleStorage": np.float64,
    "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}

DAMAGE = (zipfile.BadZipFile, EOFError, LookupError, TypeError, AttributeError, RecursionError, pickle.PickleError)


class Inert(dict):
    """Stands for an object of a settings package: it takes what the pickle gives it and does nothing."""

    def __init__(self, *arguments):
        super().__init__()
        self.arguments = arguments
        self.state: Any = None

    __hash__ = object.__hash__  # an enum may be a key

    def __setstate__(self, state) -> None:
        self.state = state


class _Storage:
    def __init__(self, dtype: type):
        self.dtype = dtype


def read_torch_file(path: str | Path) -> Any:
    """The pickled value, its tensors as numpy arrays and its settings as plain dicts, lists and scalars.

    Raises:
      ValueError: no zip archive of torch.save, a damaged one, or one that names anything but data; nothing is run.
    """
    path = Path(path)
    if not zipfile.is_zipfile(path):
        raise ValueError(
            f"{path} is no zip archive: it is damaged, or of torch before 1.6; copy it again, or write it anew where "
            "you trust it: torch.save(torch.load(FILE, weights_only=True), NEW_FILE)"
        )
    try:
        with zipfile.ZipFile(path) as archive:
            root = next((n.removesuffix("data.pkl") for n in archive.namelist() if n.endswith("/data.pkl")), None)
            if root is None:
                raise ValueError(f"{path} has no data.pkl: it is not a file of torch.save")
            if root + "byteorder" in archive.namelist() and archive.read(root + "byteorder") != b"little":
                raise ValueError(f"{path} was written on a big-endian machine: write it anew on another")
            with archive.open(root + "data.pkl") as file:
                return _plain(_Unpickler(file, archive, root, path).load())
    except DAMAGE as error:
        raise ValueError(f"{path} is damaged ({error!r}): copy it again") from error


class _Unpickler(pickle.Unpickler):
    def __init__(self, file, archive: zipfile.ZipFile, root: str, path: Path):
        super().__init__(file, encoding="utf-8")
        self._archive, self._root, self._path = archive, root, path
        self._storages: dict[str, np.ndarray] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return self._tensor
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return lambda tensor, *_: tensor
        if module == "torch" and name in STORAGES:
            return _Storage(STORAGES[name])
        if module in ("builtins", "__builtin__") and name in CONTAINERS:
            return CONTAINERS[name]
        if module.split(".")[0] in INERT or (module, name) == ("collections", "defaultdict"):
            return Inert
        raise ValueError(
            f"{self._path} names {module}.{name}, which is no data and might run code: refused. Use weights from a "
            "source you trust, saved as a state dict"
        )

    def persistent_load(self, reference: tuple) -> np.ndarray:
        kind, storage, key, _, count = reference
        if kind != "storage" or not isinstance(storage, _Storage):
            raise ValueError(f"{self._path} refers to {kind!r}, which is no storage of numbers: refused")
        if key not in self._storages:
            values = np.frombuffer(self._archive.read(f"{self._root}data/{key}"), storage.dtype)
            if len(values) != count:
                raise ValueError(f"{self._path}: storage {key} has {len(values)} of {count} numbers: copy it again")
            self._storages[key] = values
        return self._storages[key]

    def _tensor(self, storage: np.ndarray, offset: int, shape: tuple, strides: tuple, *_) -> np.ndarray:
        sizes = [*shape, *strides, offset]
        last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
        if not all(isinstance(n, int) and n >= 0 for n in sizes) or (0 not in shape and last >= len(storage)):
            raise ValueError(
                f"{self._path}: a tensor of shape {shape} does not lie in its storage: copy the file again"
            )
        strides = [stride * storage.itemsize for stride in strides]
        return np.lib.stride_tricks.as_strided(storage[offset:], shape, strides, writeable=False)


def _plain(value: Any) -> Any:
    """`value` with settings objects as what they hold."""
    if isinstance(value, Inert):
        held = value.state if value.state is not None else (dict(value) or value.arguments)
        if isinstance(held, dict) and "_content" in held:  # omegaconf's dicts and lists
            return _plain(held["_content"])
        if isinstance(held, dict) and "_val" in held:  # and their leaves
            return _plain(held["_val"])
        return _plain(held[0] if isinstance(held, tuple) and len(held) == 1 else held)  # an enum is its value
    if isinstance(value, dict):
        return {_plain(key) if isinstance(key, Inert) else key: _plain(held) for key, held in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_plain(held) for held in value)
    return value
