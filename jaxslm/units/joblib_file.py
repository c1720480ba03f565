"""Reads scikit-learn k-means from joblib files (`km.bin` of fairseq and textlesslib) without running anything in them.

A pickle is a program that may call whatever it names. Here names become inert `_Name` objects, nothing is ever called,
and arrays, dtypes and estimators are put together from checked plain values by the code below; any other name, and any
opcode that could reach one, is refused. (joblib/numpy_pickle.py: a wrapper object in the pickle is followed by the raw
bytes of its array.)
"""

import bz2
import io
import lzma
import math
import pickle
import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np

_LIMIT = 4 << 30  # bytes after decompression
_ESTIMATORS = {
    (module, name)
    for module in ("sklearn.cluster._kmeans", "sklearn.cluster.k_means_")
    for name in ("KMeans", "MiniBatchKMeans")
}
_RANDOM_STATE = {  # left by MiniBatchKMeans; kept as names only
    ("numpy.random._pickle", "__randomstate_ctor"),
    ("numpy.random._pickle", "__bit_generator_ctor"),
    ("numpy.random._mt19937", "MT19937"),
    ("numpy.random", "__RandomState_ctor"),
}
_PLAIN = {
    ("numpy", "ndarray"),
    ("numpy", "memmap"),
    ("numpy", "dtype"),
    ("joblib.numpy_pickle", "NumpyArrayWrapper"),
    ("_codecs", "encode"),  # bytes, up to protocol 2
} | {
    (f"{package}.{module}", name)
    for package in ("numpy.core", "numpy._core")
    for module, name in (("multiarray", "_reconstruct"), ("multiarray", "scalar"), ("numeric", "_frombuffer"))
}


class Refused(ValueError):
    """A pickle that asks for more than arrays and a k-means estimator."""


class _Name(tuple):
    """(module, name) as the pickle has it; stands for nothing."""


class _Object:
    """What the pickle would make of a name: the name and the state, uninterpreted."""

    def __init__(self, name: _Name):
        self.name, self.state = name, {}


class _Dtype:
    def __init__(self, code: object):
        if not isinstance(code, str) or not re.fullmatch(r"[<>|=]?(b1|[iuf][1248]|c8|c16)", code):
            raise Refused(f"it holds an array of dtype {code!r}; only numbers are read")
        self.code = code.lstrip("<>|=")
        self.order = code[0] if code[0] in "<>" else "<"

    def numpy(self) -> np.dtype:
        return np.dtype(self.order + self.code)


class _Array:
    """An array that the pickle builds in two steps."""

    value: np.ndarray | None = None


class _Reader(pickle._Unpickler):
    """The interpreter of CPython's pickle module, in which no opcode can call."""

    dispatch = dict(pickle._Unpickler.dispatch)

    def __init__(self, file: io.BytesIO):
        super().__init__(file)
        self._raw = file

    def find_class(self, module: str, name: str) -> _Name:
        if (module, name) not in _ESTIMATORS | _RANDOM_STATE | _PLAIN:
            raise Refused(f"it asks for {module}.{name}, which is neither an array nor k-means of scikit-learn")
        return _Name((module, name))

    def persistent_load(self, pid: object) -> None:
        raise Refused("it refers to objects outside of it")

    def get_extension(self, code: int) -> None:
        raise Refused(f"it asks for the registered extension {code}")

    def load_reduce(self) -> None:
        arguments, name = self.stack.pop(), self.stack.pop()
        self.stack.append(_made(name, arguments))

    def load_build(self) -> None:
        state, value = self.stack.pop(), self.stack[-1]
        if isinstance(value, _Dtype) and isinstance(state, tuple) and len(state) > 1 and state[1] in ("<", ">", "|"):
            value.order = ">" if state[1] == ">" else "<"
        elif isinstance(value, _Array):
            value.value = _array(state)
        elif isinstance(value, _Object):
            value.state = state
            if value.name == ("joblib.numpy_pickle", "NumpyArrayWrapper"):
                self.stack[-1] = self._following_array(state)
        else:
            raise Refused(f"it gives a state to {type(value).__name__}")

    def load_refused(self) -> None:
        raise Refused("it uses an opcode that makes objects in a way arrays do not need")

    def _following_array(self, wrapper: dict) -> np.ndarray:
        dtype, shape = _dtype(wrapper["dtype"]), _shape(wrapper["shape"])
        if wrapper.get("numpy_array_alignment_bytes") is not None:
            self._raw.read(self._raw.read(1)[0])
        data = self._raw.read(math.prod(shape) * dtype.itemsize)
        order = {"C": "C", "F": "F"}[wrapper["order"]]
        return np.frombuffer(data, dtype).reshape(shape, order=order)

    dispatch[pickle.REDUCE[0]] = load_reduce
    dispatch[pickle.NEWOBJ[0]] = load_reduce
    dispatch[pickle.BUILD[0]] = load_build
    for _opcode in (pickle.INST, pickle.OBJ, pickle.NEWOBJ_EX, pickle.EXT1, pickle.EXT2, pickle.EXT4):
        dispatch[_opcode[0]] = load_refused


def _made(name: object, arguments: object) -> Any:
    """The value that calling `name` with the arguments stands for."""
    if not isinstance(name, _Name) or not isinstance(arguments, tuple):
        raise Refused(f"it calls a {type(name).__name__}")
    if name == ("numpy", "dtype"):
        return _Dtype(arguments[0])
    if name == ("_codecs", "encode") and arguments[1:] == ("latin1",):
        return str.encode(arguments[0], "latin1")
    if name[1] == "_reconstruct":
        return _Array()
    if name[1] == "scalar":
        return np.frombuffer(arguments[1], _dtype(arguments[0]), count=1)[0]
    if name[1] == "_frombuffer":
        data, dtype, shape, order = arguments
        return np.frombuffer(data, _dtype(dtype)).reshape(_shape(shape), order=order)
    if name in _ESTIMATORS | _RANDOM_STATE or name[1] == "NumpyArrayWrapper":
        return _Object(name)
    raise Refused(f"it calls {'.'.join(name)}")


def _dtype(value: object) -> np.dtype:
    if not isinstance(value, _Dtype):
        raise Refused(f"it gives a {type(value).__name__} for a dtype")
    return value.numpy()


def _shape(value: object) -> tuple[int, ...]:
    if not isinstance(value, tuple) or not all(type(n) is int and 0 <= n for n in value):
        raise Refused(f"it gives {value!r} for a shape")
    return value


def _array(state: tuple) -> np.ndarray:
    """numpy's own form: (version, shape, dtype, in Fortran order, bytes)."""
    _, shape, dtype, fortran, data = state
    if not isinstance(data, bytes):
        raise Refused("it holds an array of objects; only numbers are read")
    return np.frombuffer(data, _dtype(dtype)).reshape(_shape(shape), order="F" if fortran else "C")


def read_joblib_kmeans(path: str | Path) -> np.ndarray:
    """`cluster_centers_` of the KMeans or MiniBatchKMeans in a file written by `joblib.dump`, plain or compressed.

    Returns:
      float32 [K, D].
    Raises:
      ValueError: a file that is truncated, that is of another kind, or whose pickle asks for anything but numbers and
        an estimator; nothing in it has been run.
    """
    path = Path(path)
    try:
        estimator = _Reader(io.BytesIO(_decompressed(path.read_bytes()))).load()
        centers = estimator.state["cluster_centers_"] if isinstance(estimator, _Object) else estimator
        centers = centers.value if isinstance(centers, _Array) else centers
        if not isinstance(centers, np.ndarray) or centers.ndim != 2 or not centers.size:
            raise Refused(f"cluster_centers_ is no matrix but {type(centers).__name__}")
        return np.ascontiguousarray(centers, np.float32)
    except Refused as error:
        raise ValueError(f"{path} was not read and nothing in it was run: {error}") from None
    except OSError:
        raise
    except Exception as error:  # a damaged pickle fails in as many ways as it has opcodes
        raise ValueError(
            f"{path} is truncated, damaged or no joblib file of k-means ({type(error).__name__}: {error}); copy it "
            "again, or save cluster_centers_ by numpy.save"
        ) from None


def _decompressed(data: bytes) -> bytes:
    if data[:2] == b"ZF" or data[:4] == b"\x04\x22\x4d\x18":
        raise Refused("it is compressed in joblib's old or its LZ4 format; save it again with compress='zlib'")
    if data[:1] == b"\x78" or data[:2] == b"\x1f\x8b":
        reader = zlib.decompressobj(wbits=47)
    elif data[:3] == b"BZh":
        reader = bz2.BZ2Decompressor()
    elif data[:6] == b"\xfd7zXZ\x00" or data[:3] == b"\x5d\x00\x00":
        reader = lzma.LZMADecompressor()
    else:
        return data
    plain = reader.decompress(data, _LIMIT)
    if not reader.eof:
        raise ValueError("the compressed data has no end within 4 GiB")
    return plain
