"""Convolutions over time and frequency (or period) with weight norm, as discriminators use them.

The compiler's own gradient of a strided convolution by its input is a convolution with a dilated input, and slow; ours
is that of an ordinary one over blocks of the stride. A grouped one is one matrix product a group. Padding is left to
the compiler where it can be: XLA:CPU takes three to seven times as long for planes without any.

Legend: B batch, T time, F frequency or period, I input channels, O output channels, G groups.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

_PLANES = ("NHWC", "HWIO", "NHWC")


class PlaneConv(nnx.Module):
    """`y_BxT'xF'xO` of `x_BxTxFxI`, computed in the dtype of the input; F is 1 for a waveform.

    kernel, stride: over (time, frequency). dilation: over time. padding: zeros at both ends of (time, frequency), half
    the kernel's reach when None. groups: of channels; only for kernels over time.
    Weight norm (Salimans and Kingma 2016): weight = size_O * direction / |direction|, the norm over all axes but O.
    Weights start as torch's do: uniform within 1 / sqrt(fan in).
    """

    def __init__(
        self,
        d_in: int,
        d_out: int,
        kernel: tuple[int, int],
        key: jax.Array,
        *,
        stride: tuple[int, int] = (1, 1),
        dilation: int = 1,
        groups: int = 1,
        padding: tuple[int, int] | None = None,
    ):
        assert dilation == 1 or stride[0] == 1
        assert groups == 1 or (kernel[1] == 1 and dilation == 1)
        fan_in = kernel[0] * kernel[1] * d_in // groups
        weight_key, bias_key = jax.random.split(key)
        direction = _uniform(weight_key, (*kernel, d_in // groups, d_out), fan_in)
        self.direction = nnx.Param(direction, logical_axes=(None,) * 4)
        self.size = nnx.Param(_norm(direction), logical_axes=(None,))
        self.bias = nnx.Param(_uniform(bias_key, (d_out,), fan_in), logical_axes=(None,))
        self.kernel, self.stride, self.dilation, self.groups = tuple(kernel), tuple(stride), dilation, groups
        self.padding = padding or ((kernel[0] - 1) * dilation // 2, (kernel[1] - 1) // 2)

    def __call__(self, x_BxTxFxI: jax.Array) -> jax.Array:
        direction = self.direction[...]
        weight = (direction * (self.size[...] / _norm(direction))).astype(x_BxTxFxI.dtype)
        shape = _Shape(self.stride, (self.dilation, 1), self.padding, self.groups)
        y = (_in_blocks if self.groups > 1 else _strided)(shape, x_BxTxFxI, weight)
        return y + self.bias[...].astype(y.dtype)

    def count(self, n_B):
        """Positions of time in the output for `n_B` in the input (an int or an array of ints)."""
        reach = (self.kernel[0] - 1) * self.dilation + 1
        return (n_B + 2 * self.padding[0] - reach) // self.stride[0] + 1


class _Shape(NamedTuple):
    """Of a convolution, over (time, frequency)."""

    stride: tuple[int, int]
    dilation: tuple[int, int]
    padding: tuple[int, int]
    groups: int


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _strided(shape: _Shape, x, weight):
    return jax.lax.conv_general_dilated(
        x, weight, shape.stride, [(p, p) for p in shape.padding], None, shape.dilation, dimension_numbers=_PLANES
    )


def _strided_forward(shape: _Shape, x, weight):
    return _strided(shape, x, weight), (x, weight)


def _strided_backward(shape: _Shape, saved, dy):
    x, weight = saved
    (dx,) = jax.vjp(lambda x: _in_blocks(shape, x, weight), x)[1](dy)
    (d_weight,) = jax.vjp(lambda weight: _strided.fun(shape, x, weight), weight)[1](dy)
    return dx, d_weight


_strided.defvjp(_strided_forward, _strided_backward)


def _in_blocks(shape: _Shape, x, weight):
    """The convolution without strides: what it strides over is folded into the channels."""
    edges, blocks, taps, pads = [], [], [], []
    for size, kernel, stride, dilation, padding in zip(x.shape[1:3], weight.shape, *shape[:3], strict=False):
        n_taps = -(-kernel // stride)
        n_out = (size + 2 * padding - (kernel - 1) * dilation - 1) // stride + 1
        before, edge = divmod(padding, stride)
        n_blocks = min(-(-(edge + size) // stride), n_out + (n_taps - 1) * dilation - before)
        edges.append((edge, n_blocks * stride - edge - size, 0))
        blocks.append(n_blocks)
        taps.append(n_taps)
        pads.append((before, n_out + (n_taps - 1) * dilation - before - n_blocks))
    x = jax.lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), *edges, (0, 0, 0)))
    extra = [(0, t * stride - k) for t, stride, k in zip(taps, shape.stride, weight.shape, strict=False)]
    weight = jnp.pad(weight, (*extra, (0, 0), (0, 0)))
    (s_t, s_f), groups, d_in, (*_, d_group, d_out) = shape.stride, shape.groups, x.shape[-1], weight.shape
    x = x.reshape(len(x), blocks[0], s_t, blocks[1], s_f, groups, d_in // groups)
    x = x.transpose(0, 1, 3, 5, 2, 4, 6).reshape(len(x), *blocks, s_t * s_f * d_in)
    weight = weight.reshape(taps[0], s_t, taps[1], s_f, d_group, d_out).transpose(0, 2, 1, 3, 4, 5)
    weight = weight.reshape(*taps, s_t * s_f * d_group, d_out)
    if groups > 1:
        return _grouped(jnp.pad(x, ((0, 0), *pads, (0, 0))), weight, groups)
    return jax.lax.conv_general_dilated(x, weight, (1, 1), pads, rhs_dilation=shape.dilation, dimension_numbers=_PLANES)


def _grouped(x_BxTxFxI: jax.Array, weight: jax.Array, groups: int) -> jax.Array:
    """A grouped convolution over time without padding or strides, weight [K, 1, I / G, O]."""
    n_taps, _, d_group, d_out = weight.shape
    n_out = x_BxTxFxI.shape[1] - n_taps + 1
    x = x_BxTxFxI.reshape(*x_BxTxFxI.shape[:3], groups, d_group).transpose(3, 0, 1, 2, 4)
    taps = jnp.concatenate([x[:, :, k : k + n_out] for k in range(n_taps)], axis=-1)
    weight = weight.reshape(n_taps * d_group, groups, d_out // groups)
    y = jnp.einsum("gbtfi,igo->gbtfo", taps, weight)
    return y.transpose(1, 2, 3, 0, 4).reshape(*y.shape[1:4], d_out)


def _norm(direction: jax.Array) -> jax.Array:
    return jnp.sqrt(jnp.sum(jnp.square(direction), axis=(0, 1, 2)))


def _uniform(key: jax.Array, shape: tuple[int, ...], fan_in: int) -> jax.Array:
    return jax.random.uniform(key, shape, jnp.float32, -1.0, 1.0) * fan_in**-0.5
