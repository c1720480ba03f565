"""Encoders turn samples into frame features, and these into units where a head is given that labels them.

Shape letters: N samples, T frames, D features.
"""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import jax
import numpy as np

from jaxslm.audio import mfcc
from jaxslm.units.kmeans import label_by_chunks

Head = Callable[[jax.Array], jax.Array]  # frames [512, D] float32 to ids [512]; a `jax.tree_util.Partial` of its arrays


class Encoder(Protocol):
    """Maps samples [N] (float32, mono, 16 kHz, in [-1, 1]) to features [T, D] (float32) at `frame_rate` frames a
    second.

    Attributes:
      name: says what the features are of: "mfcc", or the kind of model and the start of its weights' hash.
      layer: whose features they are, counted from the first; 0 without layers.
      frame_centre: of frame 0, in seconds; that of frame t is t / frame_rate later.
      weights_sha256: of all that the features depend on; "" for an encoder without weights. Equal hashes and layers
        give equal features wherever the files lie.
      identity: the fields of a `UnitInventory` that are of its encoder.
    """

    name: str
    layer: int
    frame_rate: float
    frame_centre: float
    dim: int
    weights_sha256: str
    identity: dict

    def encode(self, clips: Sequence[np.ndarray], head: Head | None = None) -> list[np.ndarray]:
        """The features of each clip, as if it were alone; with a head, its id of each frame, int32 [T], instead."""
        ...


class Mfcc:
    """The encoder that needs no weights; see `jaxslm.audio.mfcc`."""

    name = "mfcc"
    layer = 0
    frame_rate = mfcc.FRAME_RATE
    frame_centre = mfcc.FRAME_CENTRE
    dim = mfcc.DIM
    weights_sha256 = ""
    identity = dict(encoder=name, layer=layer, frame_rate=frame_rate)

    def encode(self, clips: Sequence[np.ndarray], head: Head | None = None) -> list[np.ndarray]:
        features = [mfcc.mfcc_39(clip) for clip in clips]
        if head is None or not clips:
            return features
        ids = label_by_chunks(np.concatenate(features), functools.partial(_apply, head))
        return np.split(ids, np.cumsum([len(clip_TxD) for clip_TxD in features])[:-1])


_apply = jax.jit(lambda head, frames_BxD: head(frames_BxD))


@functools.cache
def load_encoder(name: str, layer: int | None = None, dtype: str = "float32", crop: bool = False) -> Encoder:
    """The encoder of that name, giving the features of `layer`: "mfcc", or the folder of a speech model.

    Args:
      layer: -1 for the last; to be named unless the encoder has none.
      dtype: of a model's computation, "float32" or "bfloat16"; features are float32.
      crop: of Whisper, see `WhisperEncoderConfig`.
    Raises:
      ValueError: neither of them, a folder that holds no speech encoder, or a layer or option the encoder lacks.
    """
    if name == "mfcc":
        if layer or dtype != "float32" or crop:
            raise ValueError(
                f"units.layer={layer}, dtype={dtype}, crop={crop}: the mfcc encoder has no layers and no options; "
                "leave them out"
            )
        return Mfcc()
    if not name or not Path(name).expanduser().is_dir():
        raise ValueError(
            f"units.encoder={name!r} is not known; choose mfcc, the folder of a speech model (config.json, "
            "model.safetensors), or precomputed:NAME"
        )
    if layer is None:
        raise ValueError(
            f"units.encoder={name} has layers, and the units are those of one: name it by units.layer (0: what enters "
            "the first, 1: what leaves it, ...; -1: the last)"
        )
    from jaxslm.units.neural_encoder import NeuralEncoder  # what mfcc alone does not need takes long to import

    return NeuralEncoder(name, layer, dtype=dtype, crop=crop)
