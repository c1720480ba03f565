"""Activations of neural codecs, each frame and channel by itself.

Legend: B batch, T frames, C channels.
"""

import jax
import jax.numpy as jnp
from flax import nnx

EPS = 1e-9  # of the published code, against division by zero

elu = jax.nn.elu


def leaky(x: jax.Array, slope: float = 0.1) -> jax.Array:
    """`x` where it is positive, else `slope * x`."""
    return jax.nn.leaky_relu(x, slope)


class Snake(nnx.Module):
    """`x + sin(alpha x)^2 / alpha`, one alpha a channel, 1 at first (Ziyin et al. 2020; descript-audio-codec)."""

    def __init__(self, dim: int):
        self.alpha = nnx.Param(jnp.ones(dim), logical_axes=(None,))

    def __call__(self, x_BxTxC: jax.Array) -> jax.Array:
        alpha = self.alpha[...].astype(x_BxTxC.dtype)
        return x_BxTxC + jnp.sin(alpha * x_BxTxC) ** 2 / (alpha + EPS)


class SnakeBeta(nnx.Module):
    """`x + sin(exp(alpha) x)^2 / exp(beta)`, alpha and beta 0 at first (BigVGAN; BigCodec, vq/activations.py)."""

    def __init__(self, dim: int):
        self.alpha = nnx.Param(jnp.zeros(dim), logical_axes=(None,))
        self.beta = nnx.Param(jnp.zeros(dim), logical_axes=(None,))

    def __call__(self, x_BxTxC: jax.Array) -> jax.Array:
        alpha, beta = (jnp.exp(p[...]).astype(x_BxTxC.dtype) for p in (self.alpha, self.beta))
        return x_BxTxC + jnp.sin(alpha * x_BxTxC) ** 2 / (beta + EPS)
