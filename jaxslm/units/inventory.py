"""A unit inventory says what each unit id means: encoder and its weights, layer, frame rate, normalisation and
centroids, under one hash.

Shape letters: N samples, T frames, D features, K units.
"""

import dataclasses
import functools
import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxslm.units.encoders import Encoder, load_encoder
from jaxslm.units.kmeans import assign, fit_kmeans
from jaxslm.units.quantizers import LinearQuantizer, read_quantizer
from jaxslm.units.units import UnitSequence, deduplicate

logger = logging.getLogger(__name__)

_VERSION = 1
_ARRAYS = ("centroids", "mean", "std")
_LINEAR = "linear.safetensors"


@dataclasses.dataclass(frozen=True, eq=False)
class UnitInventory:
    """What the ids 0..size-1 mean.

    Attributes:
      encoder: name for `load_encoder`, or "precomputed:NAME" for units that come with the manifest.
      layer, frame_rate: of the encoder; frames a second.
      centroids: [K, D] float32 in normalised features; None for precomputed units and with a linear quantizer.
      size: K.
      deduplicated: whether runs of equal labels are joined (their durations are kept).
      mean, std: [D] float32, taken from and divided out of the features before the nearest centroid is sought; or None.
      source_sha256: for precomputed units, the hash of the codebook they were made with, if it is known.
      linear: what labels the (normalised) features instead of centroids.
      weights_sha256: of the encoder's weights; "" if it has none.
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
          ValueError: units of this inventory are precomputed, or the encoder has other weights.
        """
        return self._units([self._load_encoder()(samples_N)])[0]

    def encode_batch(self, clips: Sequence[np.ndarray]) -> list[UnitSequence]:
        """Units of several clips, the same as `encode` gives one by one; in batches where the encoder has them.

        Raises:
          ValueError: as `encode`.
        """
        encoder = self._load_encoder()
        return self._units(encoder.encode(clips) if hasattr(encoder, "encode") else list(map(encoder, clips)))

    def _units(self, features: Sequence[np.ndarray]) -> list[UnitSequence]:
        if not features:
            return []
        frames_NxD = np.concatenate(features)
        if self.mean is not None:
            frames_NxD = (frames_NxD - self.mean) / self.std
        ends = np.cumsum([len(clip_TxD) for clip_TxD in features])[:-1]
        if self.linear is not None:
            labels = [self.linear(clip_TxD) for clip_TxD in np.split(frames_NxD, ends)]
        else:
            labels = np.split(assign(frames_NxD, self._device_centroids), ends)
        if self.deduplicated:
            return [deduplicate(ids_T, self.frame_rate) for ids_T in labels]
        return [UnitSequence(ids_T, np.ones_like(ids_T), self.frame_rate) for ids_T in labels]

    @functools.cached_property
    def _device_centroids(self) -> jax.Array:
        return jnp.asarray(self.centroids)

    def _load_encoder(self) -> Encoder:
        if self.precomputed:
            raise ValueError(
                f"{self.name}: these units come with the manifest and cannot be made from audio here; "
                "give `units` in the manifest, or choose another units.encoder"
            )
        encoder = load_encoder(self.encoder_folder or self.encoder, self.layer)
        if encoder.weights_sha256 != self.weights_sha256:
            raise ValueError(
                f"{self.encoder_folder or self.encoder} has weights of SHA-256 {encoder.weights_sha256[:12]}, but "
                f"{self.name} was made with {self.weights_sha256[:12]}, so its ids would mean other units; "
                "point units.encoder at the weights it was made with"
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
        """The plain values that bear on the units. No weights add no entry: older inventories keep their hash."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        for name in (*_ARRAYS, "linear", "encoder_folder", *(() if self.weights_sha256 else ("weights_sha256",))):
            del fields[name]
        return fields


def learn_inventory(
    encoder_name: str, clips: Iterable[np.ndarray], k: int, seed: int, max_frames: int = 200_000, *, layer: int = 0
) -> UnitInventory:
    """Learns k units from clips (float32 [N], 16 kHz): features, normalised to mean 0 and deviation 1, then k-means.

    Of more than `max_frames` frames a random sample of that many is used, each frame of all clips being equally likely;
    the clips are read once and never held together.

    Raises:
      ValueError: fewer frames than k.
    """
    encoder = load_encoder(encoder_name, layer)
    rng = np.random.default_rng(seed)
    kept_NxD, rank_N = (
        np.zeros((0, encoder.dim), np.float32),
        np.zeros(0),
    )  # the frames of lowest random rank are the sample
    pending, n_pending = [], 0

    def sample():
        frames_NxD = np.concatenate([kept_NxD, *pending])
        ranks_N = np.concatenate([rank_N, rng.random(n_pending)])
        lowest = np.sort(np.argsort(ranks_N, kind="stable")[:max_frames])
        return frames_NxD[lowest], ranks_N[lowest]

    for clip in clips:
        pending.append(encoder(clip))
        n_pending += len(pending[-1])
        if n_pending >= max_frames:
            kept_NxD, rank_N = sample()
            pending, n_pending = [], 0
    frames_NxD, _ = sample()
    if len(frames_NxD) < k:
        raise ValueError(
            f"{len(frames_NxD)} frames of speech are too few for {k} units; give more audio or lower units.clusters"
        )
    mean_D = frames_NxD.mean(axis=0, dtype=np.float64)
    std_D = np.maximum(frames_NxD.std(axis=0, dtype=np.float64), 1e-5)
    mean_D, std_D = mean_D.astype(np.float32), std_D.astype(np.float32)
    found = fit_kmeans((frames_NxD - mean_D) / std_D, k, seed=seed)
    logger.info("%s", found.summary())
    return UnitInventory(
        encoder.name,
        layer,
        encoder.frame_rate,
        found.centroids,
        k,
        mean=mean_D,
        std=std_D,
        weights_sha256=encoder.weights_sha256,
        encoder_folder="" if encoder_name == encoder.name else encoder_name,
    )
