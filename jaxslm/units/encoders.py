"""Encoders turn samples into the frame features that k-means labels as units.

Shape letters: N samples, T frames, D features.
"""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from jaxslm.audio import mfcc


class Encoder(Protocol):
    """Maps samples [N] (float32, mono, 16 kHz, in [-1, 1]) to features [T, D] (float32) at `frame_rate` frames a
    second.

    Attributes:
      name: what `load_encoder` was given.
      weights_sha256: of the files that the features depend on; "" for an encoder without weights. Equal hashes and
        layers give equal features wherever the files lie.
    """

    name: str
    frame_rate: float
    dim: int
    weights_sha256: str

    def __call__(self, samples_N: np.ndarray) -> np.ndarray: ...

    def encode(self, clips: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The features of each clip, as if it were alone."""
        ...


class Mfcc:
    """The encoder that needs no weights; see `jaxslm.audio.mfcc`."""

    name = "mfcc"
    frame_rate = mfcc.FRAME_RATE
    dim = mfcc.DIM
    weights_sha256 = ""

    def __init__(self, layer: int):
        if layer != 0:
            raise ValueError(f"units.layer={layer}, but the mfcc encoder has no layers: set units.layer=0")

    def __call__(self, samples_N: np.ndarray) -> np.ndarray:
        return mfcc.mfcc_39(samples_N)

    def encode(self, clips: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [self(clip) for clip in clips]


@functools.cache
def load_encoder(name: str, layer: int = 0) -> Encoder:
    """The encoder of that name, giving the features of `layer`: "mfcc", or the folder of a speech model.

    Raises:
      ValueError: neither of them, a folder that holds no speech encoder, or a layer the encoder lacks.
    """
    if name == "mfcc":
        return Mfcc(layer)
    if Path(name).is_dir():
        from jaxslm.units.neural_encoder import NeuralEncoder  # what mfcc alone does not need takes long to import

        return NeuralEncoder(name, layer)
    raise ValueError(
        f"units.encoder={name!r} is not known; choose mfcc, the folder of a speech model (config.json, "
        "model.safetensors), or precomputed:NAME"
    )
