"""What turns a frame's features into a unit: the nearest centroid, or a small classifier; and the files they come in.

Shape letters: T frames, B frames of a chunk, D features, H hidden, K units.
"""

import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from jaxslm.units.encoders import Head
from jaxslm.units.joblib_file import read_joblib_kmeans

_CENTROIDS = ("centroids", "cluster_centers", "cluster_centers_")


@dataclass(frozen=True, eq=False)
class LinearQuantizer:
    """Three layers with leaky ReLUs between, trained with CTC; the last of the K classes is its blank (SpiRit-LM).

    Weights are [out, in] float32, as its authors store them (`0.weight`, `0.bias`, `2.weight`, ...).
    """

    weight0_HxD: np.ndarray
    bias0_H: np.ndarray
    weight2_HxH: np.ndarray
    bias2_H: np.ndarray
    weight4_KxH: np.ndarray
    bias4_K: np.ndarray

    def __post_init__(self):
        width = None
        for weight, bias in (("weight0_HxD", "bias0_H"), ("weight2_HxH", "bias2_H"), ("weight4_KxH", "bias4_K")):
            for field in (weight, bias):
                object.__setattr__(self, field, np.ascontiguousarray(getattr(self, field), dtype="<f4"))
            shape = getattr(self, weight).shape
            if len(shape) != 2 or getattr(self, bias).shape != shape[:1] or width not in (None, shape[1]):
                raise ValueError(f"a linear quantizer whose {weight} has shape {shape} does not fit together")
            width = shape[0]

    @property
    def size(self) -> int:
        """K, the blank included: a clip in which nothing else is found keeps it."""
        return len(self.bias4_K)

    @property
    def dim(self) -> int:
        return self.weight0_HxD.shape[1]

    @functools.cached_property
    def arrays(self) -> tuple[np.ndarray, ...]:
        return tuple(getattr(self, field.name) for field in fields(self))

    @functools.cached_property
    def sha256(self) -> str:
        digest = hashlib.sha256()
        for array in self.arrays:
            digest.update(f"{array.shape}:".encode() + array.tobytes())
        return digest.hexdigest()

    @property
    def head(self) -> Head:
        """Labels frames with their classes, blanks among them; see `without_blanks`."""
        return jax.tree_util.Partial(_classes, tuple(map(jnp.asarray, self.arrays)))

    def without_blanks(self, ids_T: np.ndarray) -> np.ndarray:
        """Classes of the frames of one clip, int32 [T], a blank becoming the class to its left.

        Blanks ahead of the first class become the last one of the clip, as SpiRit-LM's `torch.roll` wraps around.
        """
        spoken_T = np.flatnonzero(ids_T != self.size - 1)
        if not len(spoken_T):
            return ids_T
        return ids_T[spoken_T[np.searchsorted(spoken_T, np.arange(len(ids_T)), side="right") - 1]]

    def save(self, path: Path) -> None:
        names = (f"{layer}.{kind}" for layer in (0, 2, 4) for kind in ("weight", "bias"))
        save_file(dict(zip(names, self.arrays, strict=True)), path)


def _classes(arrays: tuple[jax.Array, ...], features_BxD: jax.Array) -> jax.Array:
    x = features_BxD
    for layer in range(0, 6, 2):
        x = jax.nn.leaky_relu(x) if layer else x
        x = jnp.matmul(x, arrays[layer].T, precision="highest") + arrays[layer + 1]
    return jnp.argmax(x, axis=1).astype(jnp.int32)


def read_quantizer(path: str | Path) -> np.ndarray | LinearQuantizer:
    """Centroids, float32 [K, D], or a linear quantizer, from a file.

    Centroids: `.npy`; a joblib file of scikit-learn's k-means (fairseq's `km.bin`), of which nothing is run; or a
    safetensors file with one of the tensors centroids, cluster_centers, cluster_centers_. A linear quantizer: a
    safetensors file with `0.weight`, `0.bias`, `2.weight`, `2.bias`, `4.weight`, `4.bias`, or these under one prefix.

    Raises:
      ValueError: anything else, a damaged file or none; the message names the file and the cure.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"there is no file {path} to read centroids or a linear quantizer from; correct the path")
    with open(path, "rb") as file:
        head = file.read(6)
    if head.startswith(b"PK"):
        raise ValueError(
            f"{path} is a torch or .npz archive, which is not read here: a torch file may run code when it is opened. "
            "Save its tensors as safetensors, or the centroids by numpy.save"
        )
    if head == b"\x93NUMPY":
        try:
            centroids_KxD = np.load(path, allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise ValueError(f"{path} is truncated or holds no plain numbers ({error}); save it again") from None
    elif path.suffix == ".safetensors":
        found = _from_tensors(path)
        if isinstance(found, LinearQuantizer):
            return found
        centroids_KxD = found
    else:
        centroids_KxD = read_joblib_kmeans(path)
    if centroids_KxD.ndim != 2 or centroids_KxD.dtype.kind not in "fiu" or not np.all(np.isfinite(centroids_KxD)):
        raise ValueError(
            f"{path} holds an array of shape {centroids_KxD.shape} and type {centroids_KxD.dtype}; "
            "give finite centroids, one a row"
        )
    return np.ascontiguousarray(centroids_KxD, np.float32)


def _from_tensors(path: Path) -> np.ndarray | LinearQuantizer:
    try:
        tensors = load_file(path)
    except (SafetensorError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is no whole safetensors file ({error}); copy it again") from None
    for name in _CENTROIDS:
        if name in tensors:
            return tensors[name]
    arrays = [_ending(tensors, f"{layer}.{kind}") for layer in (0, 2, 4) for kind in ("weight", "bias")]
    if len(tensors) != len(arrays) or any(array is None for array in arrays):
        raise ValueError(
            f"{path} has the tensors {', '.join(sorted(tensors))}; give one of {', '.join(_CENTROIDS)}, or the "
            "0.weight, 0.bias, 2.weight, 2.bias, 4.weight and 4.bias of a linear quantizer"
        )
    try:
        return LinearQuantizer(*arrays)
    except ValueError as error:
        raise ValueError(f"{path}: {error}; convert the quantizer again") from None


def _ending(tensors: Mapping[str, np.ndarray], name: str) -> np.ndarray | None:
    found = [key for key in tensors if key == name or key.endswith(f".{name}")]
    return tensors[found[0]] if len(found) == 1 else None
