"""Rotary position embedding in the half-split convention of Hugging Face checkpoints (Su et al. 2021).

Legend: B batch, T time, H heads, C head dimension.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxslm.nn.layers import at_least_float32


@dataclass(frozen=True)
class RopeScaling:
    """Llama-3's frequency scaling for contexts longer than it was pre-trained on (field names of its config.json)."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_position_embeddings: int


def frequencies(head_dim: int, theta: float, scaling: RopeScaling | None = None) -> np.ndarray:
    """Angular frequency, radians a position, of each of the C/2 pairs; float32 [C/2].

    Scaling follows Llama 3.1: wavelengths that fit `high_freq_factor` times into the original context stay, those that
    fit fewer than `low_freq_factor` times are stretched by `factor`, and between the two the frequency is interpolated.
    """
    freq = theta ** (-np.arange(0, head_dim, 2, dtype=np.float64) / head_dim)
    if scaling is not None:
        turns = scaling.original_max_position_embeddings * freq / (2 * math.pi)
        keep = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
        keep = np.clip(keep, 0.0, 1.0)
        freq = freq * (keep + (1 - keep) / scaling.factor)
    return freq.astype(np.float32)


class Rotary(NamedTuple):
    """cos and sin of every position's angles, float32 [B, T, 1, C/2], or repeated to C where there is `turn_CxC`: a
    matrix that exchanges the halves of a head, the second negated."""

    cos: jax.Array
    sin: jax.Array
    turn_CxC: np.ndarray | None = None


def rotary_table(positions_BxT: jax.Array, freq: np.ndarray, platform: str = "cpu") -> Rotary:
    """Computed once a step and shared by all layers.

    On a TPU the halves are exchanged by a matrix product, exact since each sum has one term: to cut a head of 128 in
    two and join it again moves every vector register across its lanes (of a 7B step on a v5e, 4 % of the cycles).
    """
    angles = positions_BxT[:, :, None, None].astype(jnp.float32) * freq
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    if platform != "tpu":
        return Rotary(cos, sin)
    half = np.eye(len(freq), dtype=np.float32)
    turn_CxC = np.block([[np.zeros_like(half), half], [-half, np.zeros_like(half)]])
    return Rotary(*(jnp.concatenate([x, x], axis=-1) for x in (cos, sin)), turn_CxC)


@jax.named_scope("rope")
def rotate(x_BxTxHxC: jax.Array, table: Rotary) -> jax.Array:
    """Rotates pair (i, i + C/2) of every head by its position's angle."""
    cos, sin, turn_CxC = table
    wide = x_BxTxHxC.astype(at_least_float32(x_BxTxHxC.dtype))
    if turn_CxC is None:
        first, second = jnp.split(wide, 2, axis=-1)
        rotated = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    else:
        exact = jax.lax.Precision.HIGHEST if x_BxTxHxC.dtype == jnp.float32 else None
        turned = jnp.einsum("bthc,cd->bthd", x_BxTxHxC, turn_CxC.astype(x_BxTxHxC.dtype), precision=exact)
        rotated = wide * cos + turned.astype(wide.dtype) * sin
    return rotated.astype(x_BxTxHxC.dtype)
