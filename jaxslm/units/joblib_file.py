"""Reads scikit-learn k-means from joblib files (`km.bin` of fairseq and textlesslib) without running anything in them.

`RestrictedUnpickler` reads the pickle; arrays, dtypes and estimators are put together here from checked plain values,
and any other name is refused. (joblib/numpy_pickle.py: a wrapper object in the pickle is followed by the raw bytes of
its array.)
"""

import bz2
import io
import lzma
import math
import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from jaxslm.restricted_pickle import Name, Refused, RestrictedUnpickler, reading

_LIMIT = (
    512 << 20
)  # bytes, also after decompression; 2,000 centroids are 8 MB, with a label for each of 100 M frames 400
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


class _Object:
    """What the pickle would make of a name: the name and the state, uninterpreted."""

    def __init__(self, key: tuple[str, str]):
        self.key, self.state = key, {}


class _Dtype:
    def __init__(self, code: object):
        if not isinstance(code, str) or not re.fullmatch(r"[<>|=]?(b1|[iu][1248]|f[248])", code):
            raise Refused("it holds an array of something else than numbers")
        self.code = code.lstrip("<>|=")
        self.order = code[0] if code[0] in "<>" else "<"

    def numpy(self) -> np.dtype:
        return np.dtype(self.order + self.code)


class _Array:
    """An array that the pickle builds in two steps."""

    value: np.ndarray | None = None


class _Reader(RestrictedUnpickler):
    def __init__(self, file: io.BytesIO):
        super().__init__(file)
        self._raw, self._left = file, _LIMIT

    def known(self, name: Name) -> bool:
        return (name.module, name.name) in _ESTIMATORS | _RANDOM_STATE | _PLAIN

    def make(self, name: Name, arguments: tuple) -> Any:
        key = name.module, name.name
        if key == ("numpy", "dtype"):
            return _Dtype(arguments[0])
        if key == ("_codecs", "encode") and arguments[1:] == ("latin1",):
            self._left -= len(arguments[0])  # one string may be encoded many times
            if self._left < 0:
                raise Refused("it makes more bytes than it has")
            return str.encode(arguments[0], "latin1")
        if name.name == "_reconstruct":
            return _Array()
        if name.name == "scalar":
            return np.frombuffer(arguments[1], _dtype(arguments[0]), count=1)[0]
        if name.name == "_frombuffer":
            data, dtype, shape, order = arguments
            return _shaped(data, dtype, shape, order == "F")
        if key in _ESTIMATORS | _RANDOM_STATE or name.name == "NumpyArrayWrapper":
            return _Object(key)
        return super().make(name, arguments)

    def build(self, value: Any, state: Any) -> Any:
        if isinstance(value, _Dtype) and isinstance(state, tuple) and len(state) > 1 and state[1] in ("<", ">", "|"):
            value.order = ">" if state[1] == ">" else "<"
        elif isinstance(value, _Array):
            value.value = _array(state)
        elif isinstance(value, _Object):
            value.state = state
            if value.key == ("joblib.numpy_pickle", "NumpyArrayWrapper"):
                return self._following_array(state)
        else:
            return super().build(value, state)
        return value

    def _following_array(self, wrapper: dict) -> np.ndarray:
        dtype, shape = wrapper["dtype"], _shape(wrapper["shape"])
        if wrapper.get("numpy_array_alignment_bytes") is not None:
            self._raw.read(self._raw.read(1)[0])
        data = self._raw.read(math.prod(shape) * _dtype(dtype).itemsize)
        return _shaped(data, dtype, shape, wrapper["order"] == "F")


def _dtype(value: object) -> np.dtype:
    if not isinstance(value, _Dtype):
        raise Refused(f"it gives a {type(value).__name__} for a dtype")
    return value.numpy()


def _shape(value: object) -> tuple[int, ...]:
    if not isinstance(value, tuple) or len(value) > 2 or not all(type(n) is int and 0 <= n <= _LIMIT for n in value):
        raise Refused("it gives something else than two sizes or one for a shape")
    return value


def _shaped(data: object, dtype: object, shape: object, fortran: bool) -> np.ndarray:
    if not isinstance(data, bytes):
        raise Refused("it holds an array of something else than numbers")
    return np.frombuffer(data, _dtype(dtype)).reshape(_shape(shape), order="F" if fortran else "C")


def _array(state: tuple) -> np.ndarray:
    """numpy's own form: (version, shape, dtype, in Fortran order, bytes)."""
    _, shape, dtype, fortran, data = state
    return _shaped(data, dtype, shape, bool(fortran))


def read_joblib_kmeans(path: str | Path) -> np.ndarray:
    """`cluster_centers_` of the KMeans or MiniBatchKMeans in a file written by `joblib.dump`, plain or compressed.

    Returns:
      float32 [K, D].
    Raises:
      OSError: no such file.
      ValueError: a file that is truncated, that is of another kind, that is larger than 512 MiB, or whose pickle asks
        for anything but numbers and an estimator; nothing in it has been run.
    """
    cure = "copy it again, or save cluster_centers_ by numpy.save"
    with open(path, "rb") as file, reading(path, "joblib file of k-means", cure):
        estimator = _Reader(io.BytesIO(_decompressed(file.read(_LIMIT + 1)))).load()
        centers = estimator.state["cluster_centers_"] if isinstance(estimator, _Object) else estimator
        centers = centers.value if isinstance(centers, _Array) else centers
        if not isinstance(centers, np.ndarray) or centers.ndim != 2 or not centers.size:
            raise Refused(f"cluster_centers_ is no matrix but {type(centers).__name__}")
        return np.ascontiguousarray(centers, np.float32)


def _decompressed(data: bytes) -> bytes:
    large = f"it is larger than the {_LIMIT:,} bytes that are read; save cluster_centers_ alone, by numpy.save"
    if len(data) > _LIMIT:
        raise Refused(large)
    if data[:2] == b"ZF" or data[:4] == b"\x04\x22\x4d\x18":
        raise Refused("it is compressed in joblib's old or its LZ4 format; save it again with compress='zlib'")
    if data[:1] == b"\x78" or data[:2] == b"\x1f\x8b":
        reader = zlib.decompressobj(wbits=47)
    elif data[:3] == b"BZh":
        reader = bz2.BZ2Decompressor()
    elif data[:6] == b"\xfd7zXZ\x00" or data[:3] == b"\x5d\x00\x00":
        reader = lzma.LZMADecompressor(memlimit=_LIMIT)
    else:
        return data
    plain = reader.decompress(data, _LIMIT)
    if not reader.eof:
        raise Refused(large) if len(plain) == _LIMIT else EOFError("the compressed data has no end")
    return plain
