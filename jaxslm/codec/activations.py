"""Activations of neural codecs, each frame and channel by itself.

Legend: B batch, T frames, C channels.
"""

import math

import jax
import jax.numpy as jnp
from flax import nnx

from jaxslm.nn.layers import at_least_float32

EPS = 1e-9  # of the published code, against division by zero

elu = jax.nn.elu


def leaky(x: jax.Array, slope: float = 0.1) -> jax.Array:
    """`x` where it is positive, else `slope * x`."""
    return jax.nn.leaky_relu(x, slope)


def sin_squared(x: jax.Array) -> jax.Array:
    """`sin(x)^2` in the dtype of `x`, to a few units of the last place of float32 up to |x| of some thousands.

    By the series around the nearest multiple of pi: XLA:CPU calls a function for each sine, in ten times the time.
    """
    wide = x.astype(at_least_float32(x.dtype))
    n = jnp.round(wide / math.pi)
    # Pi in three parts: products with the first two are exact (Cody & Waite 1980).
    x0 = wide - n * 3.140625 - n * 9.67502593994140625e-4 - n * 1.50995799097837643e-7
    square = x0 * x0
    series = 1.0
    for i in (13, 11, 9, 7, 5, 3):
        series = 1 - square / ((i - 1) * i) * series
    return jnp.square(x0 * series).astype(x.dtype)


class Snake(nnx.Module):
    """`x + sin(alpha x)^2 / alpha`, one alpha a channel, 1 at first (Ziyin et al. 2020; descript-audio-codec)."""

    def __init__(self, dim: int):
        self.alpha = nnx.Param(jnp.ones(dim), logical_axes=(None,))

    def __call__(self, x_BxTxC: jax.Array) -> jax.Array:
        alpha = self.alpha[...].astype(x_BxTxC.dtype)
        return x_BxTxC + sin_squared(alpha * x_BxTxC) / (alpha + EPS)


class SnakeBeta(nnx.Module):
    """`x + sin(exp(alpha) x)^2 / exp(beta)`, alpha and beta 0 at first (BigVGAN; BigCodec, vq/activations.py)."""

    def __init__(self, dim: int):
        self.alpha = nnx.Param(jnp.zeros(dim), logical_axes=(None,))
        self.beta = nnx.Param(jnp.zeros(dim), logical_axes=(None,))

    def __call__(self, x_BxTxC: jax.Array) -> jax.Array:
        alpha, beta = (jnp.exp(p[...]).astype(x_BxTxC.dtype) for p in (self.alpha, self.beta))
        return x_BxTxC + sin_squared(alpha * x_BxTxC) / (beta + EPS)
