"""Rotary position embedding in the half-split convention of Hugging Face checkpoints (Su et al. 2021).

Legend: B batch, T time, H heads, C head dimension.
"""

import math
from dataclasses import dataclass

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


def rotary_table(positions_BxT: jax.Array, freq: np.ndarray) -> tuple[jax.Array, jax.Array]:
    """(cos, sin), each float32 [B, T, 1, C/2]; computed once a step and shared by all layers."""
    angles = positions_BxT[:, :, None, None].astype(jnp.float32) * freq
    return jnp.cos(angles), jnp.sin(angles)


@jax.named_scope("rope")
def rotate(x_BxTxHxC: jax.Array, table: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Rotates pair (i, i + C/2) of every head by its position's angle."""
    cos, sin = table
    first, second = jnp.split(x_BxTxHxC.astype(at_least_float32(x_BxTxHxC.dtype)), 2, axis=-1)
    rotated = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return rotated.astype(x_BxTxHxC.dtype)
