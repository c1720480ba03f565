"""Layers of the models: plain pytrees of float32 parameters that compute in the dtype of their input.

Legend: D input features, F output features, V vocabulary.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

from jaxslm.sharding import Constrain, no_constraint

# (x_NxD, float32 weight_DxF) -> x @ weight [N, F] in the dtype of x
Product = Callable[[jax.Array, jax.Array], jax.Array]


def plain_product(x_NxD: jax.Array, weight_DxF: jax.Array) -> jax.Array:
    """A `Product` in floats."""
    return x_NxD @ weight_DxF.astype(x_NxD.dtype)


def at_least_float32(dtype) -> jnp.dtype:
    """What sums and exponentials of values of `dtype` are computed in."""
    return jnp.promote_types(dtype, jnp.float32)


def _normal(key: jax.Array, shape: tuple[int, ...], std: float) -> jax.Array:
    return std * jax.random.normal(key, shape, jnp.float32)


class Linear(nnx.Module):
    """`x_..D @ weight_DxF (+ bias_F)`. `axes` are the logical names of D and F."""

    def __init__(self, d_in: int, d_out: int, key: jax.Array, *, axes: tuple[str, str], bias: bool = False, std=0.02):
        self.weight = nnx.Param(_normal(key, (d_in, d_out), std), logical_axes=axes)
        self.bias = nnx.Param(jnp.zeros(d_out), logical_axes=axes[1:]) if bias else None

    def __call__(self, x: jax.Array, product: Product = plain_product) -> jax.Array:
        # One axis of tokens: with two, XLA:CPU transposes the activations for the gradient of the weight.
        y = product(x.reshape(-1, x.shape[-1]), self.weight[...])
        y = y.reshape(*x.shape[:-1], -1)
        return y if self.bias is None else y + self.bias[...].astype(x.dtype)


class RMSNorm(nnx.Module):
    """Root-mean-square norm over the last axis, computed in float32 at least (Zhang & Sennrich 2019)."""

    def __init__(self, dim: int, *, eps: float = 1e-5):
        # Norm scales are small: replicated (no axis) rather than sharded like the features they scale.
        self.scale = nnx.Param(jnp.ones(dim), logical_axes=(None,))
        self.eps = eps

    @jax.named_scope("norm")
    def __call__(self, x: jax.Array) -> jax.Array:
        wide = x.astype(at_least_float32(x.dtype))
        inverse_rms = jax.lax.rsqrt(jnp.mean(wide * wide, axis=-1, keepdims=True) + self.eps)
        return (wide * inverse_rms).astype(x.dtype) * self.scale[...].astype(x.dtype)


class LayerNorm(nnx.Module):
    """Zero mean and unit variance over the last axis, then scale and shift; computed in float32 (Ba et al. 2016)."""

    def __init__(self, dim: int, *, eps: float = 1e-5):
        self.scale = nnx.Param(jnp.ones(dim), logical_axes=(None,))
        self.bias = nnx.Param(jnp.zeros(dim), logical_axes=(None,))
        self.eps = eps

    def __call__(self, x: jax.Array) -> jax.Array:
        return (standardize(x, self.eps) * self.scale[...] + self.bias[...]).astype(x.dtype)


def standardize(x: jax.Array, eps: float) -> jax.Array:
    """`x` with mean 0 and variance 1 over its last axis, float32."""
    x32 = x.astype(jnp.float32)
    centred = x32 - x32.mean(axis=-1, keepdims=True)
    return centred * jax.lax.rsqrt(jnp.mean(centred * centred, axis=-1, keepdims=True) + eps)


class Embedding(nnx.Module):
    """Rows of `weight_VxD` by id."""

    def __init__(self, n_ids: int, dim: int, key: jax.Array, *, std=0.02):
        self.weight = nnx.Param(_normal(key, (n_ids, dim), std), logical_axes=("vocab", "embed"))

    def __call__(self, ids: jax.Array, dtype=jnp.float32, constrain: Constrain = no_constraint) -> jax.Array:
        return _rows(dtype, constrain, self.weight[...], ids)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _rows(dtype, constrain: Constrain, weight_VxD: jax.Array, ids: jax.Array) -> jax.Array:
    return _rows_forward(dtype, constrain, weight_VxD, ids)[0]


def _rows_forward(dtype, constrain, weight_VxD, ids):
    # Whole rows: from rows cut along D the compiler would rather gather the activations of the whole batch.
    return constrain(weight_VxD.astype(dtype), "vocab", None)[ids], (ids, weight_VxD)


def _rows_backward(dtype, constrain, saved, d_rows):
    """Float32 sums: in `dtype`, which may be bfloat16, the gradient of a frequent id would stop growing."""
    ids, weight_VxD = saved
    d_weight_VxD = jnp.zeros(weight_VxD.shape, weight_VxD.dtype).at[ids].add(d_rows.astype(weight_VxD.dtype))
    return constrain(d_weight_VxD, "vocab", "embed"), None


_rows.defvjp(_rows_forward, _rows_backward)
