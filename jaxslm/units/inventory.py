"""A unit inventory says what each unit id means: encoder and its weights, layer, frame rate, normalisation and
centroids, under one hash.

Shape letters: N samples, T frames, D features, K units.
"""

import dataclasses
import functools
import hashlib
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from jaxslm.units.encoders import Encoder, Head, load_encoder
from jaxslm.units.kmeans_sums import nearest
from jaxslm.units.quantizers import LinearQuantizer, read_quantizer
from jaxslm.units.units import UnitSequence, deduplicate

_VERSION = 1
_ARRAYS = ("centroids", "mean", "std")
_LINEAR = "linear.safetensors"
_LATER = dict(weights_sha256="", dtype="float32", crop=False)


@dataclasses.dataclass(frozen=True, eq=False)
class UnitInventory:
    """What the ids 0..size-1 mean.

    Attributes:
      encoder: its `name`, or "precomputed:NAME" for units that come with the manifest.
      layer, frame_rate: of the encoder; frames a second.
      centroids: [K, D] float32 in normalised features; None for precomputed units and with a linear quantizer.
      size: K.
      deduplicated: whether runs of equal labels are joined (their durations are kept).
      mean, std: [D] float32, taken from and divided out of the features before the nearest centroid is sought; or None.
      source_sha256: for precomputed units, the hash of the codebook they were made with, if it is known.
      linear: what labels the (normalised) features instead of centroids.
      weights_sha256: of the encoder's weights; "" if it has none.
      dtype, crop: of the encoder, see `load_encoder`.
      encoder_folder: where this machine has the weights, for `load_encoder`; bears on no unit and is not in the hash.
    """

    encoder: str
    layer: int
    frame_rate: float
    centroids: np.ndarray | None
    size: int
    deduplicated: bool = True
    mean: np.ndarray | None = None
    std: np.ndarray | None = None
    source_sha256: str = ""
    linear: LinearQuantizer | None = None
    weights_sha256: str = ""
    dtype: str = "float32"
    crop: bool = False
    encoder_folder: str = ""

    def __post_init__(self):
        for field in _ARRAYS:
            if getattr(self, field) is not None:
                object.__setattr__(self, field, np.ascontiguousarray(getattr(self, field), dtype="<f4"))
        given = [x for x in (self.centroids, self.linear) if x is not None]
        if len(given) != (0 if self.precomputed else 1):
            raise ValueError(
                f"{self.name}: an encoder needs centroids or a linear quantizer, and only precomputed:NAME goes without"
            )
        if self.centroids is not None and self.size != len(self.centroids):
            raise ValueError(f"{self.name}: {len(self.centroids)} centroids for {self.size} units")
        if self.linear is not None and self.size != self.linear.size:
            raise ValueError(f"{self.name}: a linear quantizer of {self.linear.size} classes for {self.size} units")

    def __eq__(self, other) -> bool:
        return isinstance(other, UnitInventory) and self.sha256 == other.sha256

    def __hash__(self) -> int:
        return hash(self.sha256)

    @property
    def precomputed(self) -> bool:
        return self.encoder.startswith("precomputed:")

    @property
    def name(self) -> str:
        """Such as mfcc-l0-k100."""
        return f"{self.encoder}-l{self.layer}-k{self.size}"

    @property
    def sha256(self) -> str:
        """Two inventories with one hash give the same units for the same samples; everything that bears on them is in
        it.
        """
        digest = hashlib.sha256(json.dumps(self._fields(), sort_keys=True).encode())
        for field in _ARRAYS:
            array = getattr(self, field)
            digest.update(f"{field}:{None if array is None else array.shape}:".encode())
            digest.update(b"" if array is None else array.tobytes())
        if self.linear is not None:
            digest.update(f"linear:{self.linear.sha256}".encode())
        return digest.hexdigest()

    def encode(self, samples_N: np.ndarray) -> UnitSequence:
        """Units of one clip.

        Args:
          samples_N: float32 samples, mono, 16 kHz, in [-1, 1], at least 25 ms.
        Raises:
          ValueError: as `open_encoder`.
        """
        return self.encode_batch([samples_N])[0]

    def encode_batch(self, clips: Sequence[np.ndarray]) -> list[UnitSequence]:
        """Units of several clips, those that `encode` gives one by one; see `Encoder.encode` of how exactly.

        Raises:
          ValueError: as `open_encoder`.
        """
        labels = self.open_encoder().encode(clips, self._head)
        if self.linear is not None:
            labels = map(self.linear.without_blanks, labels)
        if self.deduplicated:
            return [deduplicate(ids_T, self.frame_rate) for ids_T in labels]
        return [UnitSequence(ids_T, np.ones_like(ids_T), self.frame_rate) for ids_T in labels]

    @functools.cached_property
    def _head(self) -> Head:
        quantize = self.linear.head if self.linear is not None else Partial(_nearest, jnp.asarray(self.centroids))
        if self.mean is None:
            return quantize
        return Partial(_normalised, quantize, jnp.asarray(self.mean), jnp.asarray(self.std))

    def open_encoder(self) -> Encoder:
        """The encoder of this inventory.

        Raises:
          ValueError: the units are precomputed, or the encoder is not there or has other weights.
        """
        if self.precomputed:
            raise ValueError(
                f"{self.name}: these units come with the manifest and cannot be made from audio here; "
                "give `units` in the manifest, or choose another units.encoder"
            )
        place = self.encoder_folder or self.encoder
        if self.weights_sha256 and not Path(place).expanduser().is_dir():
            raise ValueError(
                f"{self.name} needs its encoder, whose weights (SHA-256 {self.weights_sha256[:12]}) are not in "
                f"{place}: name their folder by data.units.encoder (launch/evaluate.py: --encoder)"
            )
        encoder = load_encoder(place, self.layer, self.dtype, self.crop)
        if encoder.weights_sha256 != self.weights_sha256:
            raise ValueError(
                f"{place} has weights of SHA-256 {encoder.weights_sha256[:12]}, but {self.name} was made with "
                f"{self.weights_sha256[:12]}, so its ids would mean other units; point units.encoder at the weights it "
                "was made with"
            )
        return encoder

    def save(self, folder: str | Path) -> None:
        """Writes centroids.npy or linear.safetensors and, last, inventory.json, unless the folder holds this inventory.

        The files get their names when all is written, so that a kill or a full disk leaves what was there.
        """
        folder = Path(folder)
        try:
            there = UnitInventory.load(folder)
            if there == self and there.encoder_folder == self.encoder_folder:
                return
        except ValueError:  # nothing there, or nothing of use
            pass
        scale = {
            field: None if getattr(self, field) is None else getattr(self, field).tolist() for field in _ARRAYS[1:]
        }
        record = {"version": _VERSION, "name": self.name, "sha256": self.sha256, **self._fields(), **scale}
        if self.encoder_folder:
            record["encoder_folder"] = self.encoder_folder
        if self.linear is not None:
            record["linear"] = _LINEAR
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".unfinished-", dir=folder) as unfinished:
            new = Path(unfinished)
            (new / "inventory.json").write_text(json.dumps(record, indent=1) + "\n")
            if self.centroids is not None:
                np.save(new / "centroids.npy", self.centroids)
                os.replace(new / "centroids.npy", folder / "centroids.npy")
            if self.linear is not None:
                self.linear.save(new / _LINEAR)
                os.replace(new / _LINEAR, folder / _LINEAR)
            os.replace(new / "inventory.json", folder / "inventory.json")

    @classmethod
    def load(cls, folder: str | Path) -> "UnitInventory":
        """Reads what `save` wrote.

        Raises:
          ValueError: files that are missing, unreadable, or changed since (their hash is another).
        """
        path = Path(folder) / "inventory.json"
        try:
            record = json.loads(path.read_text())
            version, saved, _ = (record.pop(key) for key in ("version", "sha256", "name"))
            if version != _VERSION:
                raise ValueError(f"version {version} is not the {_VERSION} this release reads")
            if record.pop("linear", None):
                arrays = dict(centroids=None, linear=read_quantizer(path.with_name(_LINEAR)))
            elif record["encoder"].startswith("precomputed:"):
                arrays = dict(centroids=None)
            else:
                arrays = dict(centroids=np.load(path.with_name("centroids.npy"), allow_pickle=False))
            inventory = cls(**arrays, **record)
        except (OSError, EOFError, KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(
                f"{path}: not a usable unit inventory ({error}); copy the folder again or learn it anew"
            ) from error
        if inventory.sha256 != saved:
            raise ValueError(
                f"{path}: the inventory was changed after it was saved (SHA-256 {inventory.sha256[:12]}, saved as "
                f"{saved[:12]}), so its ids mean other units; copy the folder again or learn it anew"
            )
        return inventory

    def _fields(self) -> dict:
        """The plain values that bear on the units. What is as it always was adds no entry: older inventories keep
        their hash.
        """
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        for name in (*_ARRAYS, "linear", "encoder_folder"):
            del fields[name]
        return {name: value for name, value in fields.items() if name not in _LATER or value != _LATER[name]}


def _nearest(centroids_KxD: jax.Array, frames_BxD: jax.Array) -> jax.Array:
    return nearest(frames_BxD, centroids_KxD)[0]


def _normalised(quantize: Head, mean_D: jax.Array, std_D: jax.Array, frames_BxD: jax.Array) -> jax.Array:
    return quantize((frames_BxD - mean_D) / std_D)
