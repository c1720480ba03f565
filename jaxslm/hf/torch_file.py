"""What a file of `torch.save` holds, read without torch and without running anything that it names.

The file is a zip archive of one pickle and of the bytes of each storage. `RestrictedUnpickler` reads the pickle; here
are the few calls that make up tensors, and inert stand-ins for the objects of settings packages (argparse, omegaconf,
fairseq). Entries are looked up by name and never written anywhere, so their names are no paths.

torch/serialization.py for the archive.
"""

import io
import math
import os
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np

from jaxslm.restricted_pickle import Name, Refused, RestrictedUnpickler, reading

# Packages whose objects are kept as what they hold, and those whose objects are no settings and left out: Lightning
# puts its logger among them.
INERT = ("argparse", "omegaconf", "fairseq", "typing", "enum")
LEFT_OUT = ("pytorch_lightning", "lightning", "lightning_fabric", "wandb", "fsspec", "pathlib", "datetime")
TYPES = ("dict", "list", "tuple", "set", "int", "float", "str", "bool")  # of builtins; a set alone is made
MODULES = ("builtins", "__builtin__")
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
MAX_PICKLE = 16 << 20  # bytes; those of published models are below 1 MB
MAX_AXES = 32
MAX_SHARED = 4  # bytes of all tensors by bytes of the file: tensors may share a storage, but not without end


class Inert(dict):
    """Stands for an object of a settings package: it keeps what the pickle gives it and does nothing."""

    def __init__(self, arguments: tuple, left_out: bool):
        super().__init__()
        self.arguments, self.left_out = arguments, left_out
        self.state: Any = None

    __hash__ = object.__hash__  # an enum may be a key


def read_torch_file(path: str | Path) -> Any:
    """The pickled value, its tensors as numpy arrays and its settings as plain dicts, lists and scalars.

    Raises:
      OSError: no such file.
      ValueError: no zip archive of torch.save, a damaged one, or one that names anything but data, or that would take
        far more memory than its own size; nothing is run.
    """
    with open(path, "rb") as file, reading(path, "file of torch.save", "copy it again"):
        if not zipfile.is_zipfile(file):
            raise Refused(
                "it is no zip archive: it is damaged, or of torch before 1.6; copy it again, or write it anew where "
                "you trust it: torch.save(torch.load(FILE, weights_only=True), NEW_FILE)"
            )
        with zipfile.ZipFile(file) as archive:
            entries = _Entries(archive, os.fstat(file.fileno()).st_size)
            root = next((n.removesuffix("data.pkl") for n in entries.sizes if n.endswith("/data.pkl")), None)
            if root is None:
                raise Refused("it has no data.pkl: it is not a file of torch.save")
            if root + "byteorder" in entries.sizes and entries.read(root + "byteorder", 16) != b"little":
                raise Refused("it was written on a big-endian machine: write it anew on another")
            program = io.BytesIO(entries.read(root + "data.pkl", MAX_PICKLE))
            return _Plain().convert(_Unpickler(program, entries, root).load())


class _Entries:
    """Entries of an archive, of which none is compressed: together they are no larger than the file."""

    def __init__(self, archive: zipfile.ZipFile, n_bytes: int):
        self._archive, self.n_bytes = archive, n_bytes
        self.sizes = {entry.filename: entry.file_size for entry in archive.infolist()}
        for entry in archive.infolist():
            if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
                raise Refused(
                    "its entries are compressed, as torch.save never writes them: write it anew by torch.save"
                )
        if sum(entry.file_size for entry in archive.infolist()) > n_bytes:
            raise Refused("its entries are larger than the file: it is damaged; copy it again")

    def read(self, name: str, most: int) -> bytes:
        if self.sizes[name] > most:
            raise Refused(f"its {name[-80:]} has {self.sizes[name]:,} bytes, more than the {most:,} that are read")
        return self._archive.read(name)


class _Unpickler(RestrictedUnpickler):
    keys = (*RestrictedUnpickler.keys, Inert)

    def __init__(self, file: BinaryIO, entries: _Entries, root: str):
        super().__init__(file)
        self._entries, self._root = entries, root
        self._storages: dict[str, np.ndarray] = {}
        self._bytes_left = MAX_SHARED * entries.n_bytes

    def known(self, name: Name) -> bool:
        return (
            name.module.split(".")[0] in INERT + LEFT_OUT
            or (name.module in MODULES and name.name in TYPES)
            or (name.module == "torch" and name.name in STORAGES)
            or (name.module == "torch._utils" and name.name in ("_rebuild_tensor_v2", "_rebuild_parameter"))
            or (name.module == "collections" and name.name in ("OrderedDict", "defaultdict"))
        )

    def make(self, name: Name, arguments: tuple) -> Any:
        package = name.module.split(".")[0]
        if name.name == "_rebuild_tensor_v2":
            return self._tensor(*arguments[:4])
        if name.name == "_rebuild_parameter":
            return arguments[0]
        if name.name == "OrderedDict" and not arguments:
            return {}
        if package in INERT + LEFT_OUT or name.name in ("defaultdict", "set"):
            return Inert(() if name.name == "defaultdict" else arguments, package in LEFT_OUT)
        return super().make(name, arguments)

    def build(self, value: Any, state: Any) -> Any:
        if isinstance(value, Inert):
            value.state = state
        elif not isinstance(value, dict):  # a state dict has attributes beside its items
            return super().build(value, state)
        return value

    def persistent_load(self, pid: Any) -> np.ndarray:
        if not isinstance(pid, tuple) or len(pid) != 5 or pid[0] != "storage" or not isinstance(pid[1], Name):
            raise Refused("it refers to something that is no storage of numbers")
        _, kind, key, _, count = pid
        if kind.module != "torch" or type(key) is not str or type(count) is not int:
            raise Refused("it refers to something that is no storage of numbers")
        if key not in self._storages:
            dtype, name = np.dtype(STORAGES[kind.name]), f"{self._root}data/{key}"
            if self._entries.sizes[name] != count * dtype.itemsize:
                n_bytes = self._entries.sizes[name]
                raise Refused(f"its storage {key[:80]} has {n_bytes} bytes, not those of its numbers: copy it again")
            self._storages[key] = np.frombuffer(self._entries.read(name, self._entries.n_bytes), dtype)
        return self._storages[key]

    def _tensor(self, storage: Any, offset: Any, shape: Any, strides: Any) -> np.ndarray:
        numbers = (*shape, *strides, offset) if isinstance(shape, tuple) and isinstance(strides, tuple) else ("",)
        if not isinstance(storage, np.ndarray) or not all(type(n) is int and n >= 0 for n in numbers):
            raise Refused("it has a tensor without a storage or a shape: copy it again")
        if 0 in shape:
            return np.zeros(shape, storage.dtype)
        last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
        # A stride of 0 repeats what is there.
        if len(shape) > MAX_AXES or last >= storage.size or math.prod(shape) > storage.size:
            raise Refused("it has a tensor that does not lie in its storage: copy it again")
        self._bytes_left -= math.prod(shape) * storage.itemsize
        if self._bytes_left < 0:
            raise Refused("its tensors have many times the bytes of the file")
        strides = [stride * storage.itemsize for stride in strides]
        return np.lib.stride_tricks.as_strided(storage[offset:], shape, strides, writeable=False)


class _Plain:
    """Settings objects as what they hold; what is held in many places is converted once."""

    def __init__(self):
        self._done: dict[int, Any] = {}  # None while it is at it

    def convert(self, value: Any) -> Any:
        if not isinstance(value, (dict, list, tuple)):
            return value
        if id(value) in self._done:
            if self._done[id(value)] is None:
                raise Refused("it has a value that holds itself")
            return self._done[id(value)][0]
        self._done[id(value)] = None
        converted = self._convert(value)
        self._done[id(value)] = (converted,)
        return converted

    def _convert(self, value: Any) -> Any:
        if isinstance(value, (list, tuple)):
            return type(value)([self.convert(held) for held in value])
        held = value.state if isinstance(value, Inert) else None
        if isinstance(value, Inert):
            if value.left_out:
                return None
            for key in ("_content", "_val"):  # omegaconf's dicts and lists, and their leaves
                if isinstance(held, dict) and key in held:
                    return self.convert(held[key])
            if held is None and not value:
                held = value.arguments
        if held is None:
            return {self._key(key): self.convert(of_key) for key, of_key in value.items()}
        return self.convert(held[0] if isinstance(held, tuple) and len(held) == 1 else held)  # an enum is its value

    def _key(self, key: Any) -> Any:
        key = self.convert(key)
        if isinstance(key, (dict, list, tuple)):
            raise Refused(f"it has a key of type {type(key).__name__}")
        return key
