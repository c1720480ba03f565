"""Layers against float64 formulas; logical axes of plain and stacked parameters."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxslm.nn.layers import Embedding, Linear, RMSNorm
from jaxslm.sharding import logical_axes

KEY = jax.random.key(0)


def test_linear_and_norm_against_float64():
    x = np.random.default_rng(0).standard_normal((2, 3, 8))
    linear = Linear(8, 5, KEY, axes=("embed", "ffn"), bias=True)
    linear.bias[...] = jnp.arange(5.0)
    expected = x @ np.asarray(linear.weight[...], np.float64) + np.arange(5)
    np.testing.assert_allclose(linear(jnp.asarray(x, jnp.float32)), expected, atol=1e-6)
    norm = RMSNorm(8, eps=1e-3)
    norm.scale[...] = jnp.arange(8.0)
    expected = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-3) * np.arange(8)
    np.testing.assert_allclose(norm(jnp.asarray(x, jnp.float32)), expected, atol=1e-5)


def test_output_has_the_dtype_of_the_input():
    x = jnp.ones((2, 8), jnp.bfloat16)
    assert Linear(8, 5, KEY, axes=("embed", "ffn"), bias=True)(x).dtype == jnp.bfloat16
    assert RMSNorm(8)(x).dtype == jnp.bfloat16
    assert Embedding(4, 8, KEY)(jnp.arange(3), jnp.bfloat16).dtype == jnp.bfloat16


def test_logical_axes_of_stacked_parameters():
    stacked = jax.vmap(lambda key: Linear(8, 5, key, axes=("embed", "ffn"), bias=True))(jax.random.split(KEY, 3))
    axes = logical_axes(stacked)
    assert axes.weight == ("layers", "embed", "ffn") and axes.bias == ("layers", "ffn")
    assert logical_axes(Linear(8, 5, KEY, axes=("embed", "ffn"))).weight == ("embed", "ffn")
