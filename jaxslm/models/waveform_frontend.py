"""From samples to frames: the convolutions below the transformer of wav2vec 2.0 and its successors.

Every frame is a function of the samples under its own window, so padded rows need care in three places only: the
statistics over time of the group norm, the positional convolution, and the loudness normalisation of the samples.

Legend: B batch, N samples, T frames, D model, E channels of the convolutions.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxslm.masking import mask_time
from jaxslm.models.encoder_blocks import gelu
from jaxslm.nn.convolution import Conv1d
from jaxslm.nn.layers import LayerNorm, standardize

SAMPLES_EPS = 1e-7  # of the variance of the samples, as in the published feature extractors
NORM_EPS = 1e-5  # of the norms between convolutions, whatever the model's own


def count_frames(lengths, kernels: Sequence[int], strides: Sequence[int]):
    """Frames of `lengths` samples (an int or an array of ints); 0 where there are fewer than one window."""
    for kernel, stride in zip(kernels, strides, strict=True):
        lengths = (lengths - kernel) // stride + 1
    return max(lengths, 0) if isinstance(lengths, int) else lengths.clip(0)


def normalize_samples(samples_BxN: jax.Array, lengths_B: jax.Array) -> jax.Array:
    """Zero mean and unit variance over the real samples of each row; 0 elsewhere."""
    real_BxN = mask_time(samples_BxN.shape[1], lengths_B)
    count_Bx1 = jnp.maximum(lengths_B, 1)[:, None]
    centred = jnp.where(real_BxN, samples_BxN - _masked_sum(samples_BxN, real_BxN) / count_Bx1, 0.0)
    variance_Bx1 = jnp.sum(centred * centred, axis=1, keepdims=True) / count_Bx1
    return centred * jax.lax.rsqrt(variance_Bx1 + SAMPLES_EPS)


def _masked_sum(x, real) -> jax.Array:
    return jnp.sum(jnp.where(real, x, 0.0), axis=1, keepdims=True)


class TimeNorm(nnx.Module):
    """Zero mean and unit variance of each channel over the real frames of its row: a GroupNorm of one channel a group
    that does not see padding.
    """

    def __init__(self, dim: int):
        self.scale = nnx.Param(jnp.ones(dim), logical_axes=(None,))
        self.bias = nnx.Param(jnp.zeros(dim), logical_axes=(None,))

    def __call__(self, x_BxTxE: jax.Array, frames_B: jax.Array) -> jax.Array:
        real = mask_time(x_BxTxE.shape[1], frames_B)[..., None]
        count = jnp.maximum(frames_B, 1)[:, None, None]
        x32 = x_BxTxE.astype(jnp.float32)
        centred = x32 - _masked_sum(x32, real) / count
        variance = _masked_sum(centred * centred, real) / count
        scale = jax.lax.rsqrt(variance + NORM_EPS) * self.scale[...]
        return (centred * scale + self.bias[...]).astype(x_BxTxE.dtype)


class ConvFrontend(nnx.Module):
    """Strided convolutions without padding, each with GELU.

    norm: "group" is a norm over time after the first convolution (base models); "layer" one over channels after each.
    """

    def __init__(self, dims, kernels, strides, *, norm: str, bias: bool, key: jax.Array):
        keys = jax.random.split(key, len(dims))
        shapes = zip((1, *dims[:-1]), dims, kernels, keys, strides, strict=True)
        self.convs = nnx.List([Conv1d(i, o, k, key, stride=s, bias=bias) for i, o, k, key, s in shapes])
        self.time_norm = TimeNorm(dims[0]) if norm == "group" else None
        self.norms = nnx.List([LayerNorm(dim, eps=NORM_EPS) for dim in dims]) if norm == "layer" else None

    def __call__(self, samples_BxN: jax.Array, lengths_B: jax.Array) -> tuple[jax.Array, jax.Array]:
        """(features [B, T, E], frames [B])."""
        x, frames_B = samples_BxN[..., None], lengths_B
        for i, conv in enumerate(self.convs):
            x, frames_B = conv(x), count_frames(frames_B, conv.weight.shape[:1], (conv.stride,))
            if self.norms is not None:
                x = self.norms[i](x)
            elif i == 0:
                x = self.time_norm(x, frames_B)
            x = gelu(x)
        return x, frames_B


class ConvPositions(nnx.Module):
    """Positions by grouped convolutions over the neighbouring frames; what is added to the frames, [B, T, D].

    norm: "none"; "batch" scales and shifts the input (mHuBERT at 25 Hz: a batch norm at rest); "layer" is a norm
    without parameters after each of several convolutions (data2vec).
    """

    def __init__(self, dim: int, kernel: int, *, groups: int, n_convs: int, norm: str, key: jax.Array):
        padding = (kernel // 2, kernel - 1 - kernel // 2)  # even kernels: one frame less behind
        make = lambda k: Conv1d(dim, dim, kernel, k, groups=groups, padding=padding, bias=True)  # noqa: E731
        self.convs = nnx.List([make(k) for k in jax.random.split(key, n_convs)])
        self.scale = nnx.Param(jnp.ones(dim), logical_axes=(None,)) if norm == "batch" else None
        self.shift = nnx.Param(jnp.zeros(dim), logical_axes=(None,)) if norm == "batch" else None
        self.layer_norm = norm == "layer"

    def __call__(self, x_BxTxD: jax.Array, real_BxT: jax.Array) -> jax.Array:
        if self.scale is not None:
            x_BxTxD = (x_BxTxD * self.scale[...] + self.shift[...]).astype(x_BxTxD.dtype)
        for conv in self.convs:
            # Beyond a row's end lie the zeros that it would be padded with if it were alone.
            y_BxTxD = conv(jnp.where(real_BxT[..., None], x_BxTxD, 0))
            x_BxTxD = gelu(standardize(y_BxTxD, NORM_EPS).astype(y_BxTxD.dtype) if self.layer_norm else y_BxTxD)
        return x_BxTxD


def distance_buckets(n_frames: int, n_buckets: int, max_distance: int) -> np.ndarray:
    """Bucket of each distance from -(n_frames - 1) to n_frames - 1 in a table of relative positions, int32.

    Half the buckets are for keys behind the query, half for keys before it; the nearer half of each is exact, the
    other logarithmic up to `max_distance` (Raffel et al. 2020, with the signs of WavLM).
    """
    distance = np.arange(1 - n_frames, n_frames)
    half = n_buckets // 2
    exact = half // 2
    far = np.log(np.maximum(np.abs(distance), 1).astype(np.float32) / np.float32(exact))
    far = far / np.float32(np.log(max_distance / exact)) * np.float32(half - exact)
    far = np.minimum((np.float32(exact) + far).astype(np.int32), half - 1)
    return (distance > 0) * half + np.where(np.abs(distance) < exact, np.abs(distance), far).astype(np.int32)
