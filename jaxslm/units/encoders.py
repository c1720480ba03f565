"""Encoders turn samples into the frame features that k-means labels as units.

Shape letters: N samples, T frames, D features.
"""

import functools
from typing import Protocol

import numpy as np

from jaxslm.audio import mfcc


class Encoder(Protocol):
    """Maps samples [N] (float32, mono, 16 kHz, in [-1, 1]) to features [T, D] (float32) at `frame_rate` frames a
    second. `weights_sha256` tells its weights apart, "" where it has none.
    """

    name: str
    frame_rate: float
    dim: int
    weights_sha256: str

    def __call__(self, samples_N: np.ndarray) -> np.ndarray: ...


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


_ENCODERS = {"mfcc": Mfcc}


@functools.cache
def load_encoder(name: str, layer: int = 0) -> Encoder:
    """The encoder of that name, giving the features of `layer`.

    Raises:
      ValueError: an unknown name (the message lists the known), or a layer the encoder lacks.
    """
    if name not in _ENCODERS:
        raise ValueError(
            f"units.encoder={name!r} is not known; choose from {', '.join(_ENCODERS)}, or precomputed:NAME"
        )
    return _ENCODERS[name](layer)
