"""What a sub-discriminator gives, and how its layers run over rows of different lengths.

After every layer what lies beyond the end of a row is 0, as it is to the padding of a row alone.

Legend: B batch, N samples, T time, F frequency or period, C channels.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from jaxslm.codec.plane_conv import PlaneConv
from jaxslm.masking import mask_time


class Scores(NamedTuple):
    """What one sub-discriminator makes of a batch.

    logits: [B, T, F, 1], high for real. features: [B, T, F, C] of each layer but the last.
    counts: int32 [B] of each feature map, then of the logits: real positions of time. None when all are.
    """

    logits: jax.Array
    features: tuple[jax.Array, ...]
    counts: tuple[jax.Array, ...] | None


class Layers(nnx.Module):
    """Convolutions with leaky ReLU; their outputs are the features."""

    def __init__(self, convs: list[PlaneConv], slope: float):
        self.convs, self.slope = nnx.List(convs), slope

    def __call__(self, x, n_B, features: list, counts: list):
        for conv in self.convs:
            x, n_B = apply(conv, x, n_B, self.slope)
            features.append(x)
            counts.append(n_B)
        return x, n_B


def scores(layers: Layers, post: PlaneConv, x, n_B) -> Scores:
    features, counts = [], []
    x, n_B = layers(x, n_B, features, counts)
    return finish(post, x, n_B, features, counts)


def finish(post: PlaneConv, x, n_B, features: list, counts: list) -> Scores:
    logits, n_B = apply(post, x, n_B)
    if not logits.shape[1]:
        raise ValueError("the samples are fewer than a discriminator needs for one score: use longer segments")
    return Scores(logits, tuple(features), None if n_B is None else (*counts, n_B))


def apply(conv: PlaneConv, x, n_B, slope: float | None = None):
    """(the convolution of x, leaky if there is a slope and 0 beyond the end, positions of each row)."""
    y = conv(x)
    y = y if slope is None else jax.nn.leaky_relu(y, slope)
    n_B = None if n_B is None else jnp.where(n_B > 0, conv.count(n_B), 0)
    return masked(y, n_B), n_B


def masked(x, n_B):
    return x if n_B is None else jnp.where(mask_time(x.shape[1], n_B, x.ndim), x, 0)
