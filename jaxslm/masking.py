"""Which positions of padded rows are real."""

import jax
import jax.numpy as jnp


def mask_time(length: int, lengths_B: jax.Array, ndim: int = 2) -> jax.Array:
    """bool [B, length, 1, ...] of `ndim` dimensions: the first `lengths_B` positions of each row."""
    real_BxT = jnp.arange(length)[None, :] < lengths_B[:, None]
    return real_BxT.reshape(*real_BxT.shape, *(1,) * (ndim - 2))
