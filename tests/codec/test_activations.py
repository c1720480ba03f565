import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxslm.codec.activations import Snake, SnakeBeta, sin_squared

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")


def values(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def run(theirs, x_BxTxC):
    with torch.no_grad():
        return theirs(torch.tensor(x_BxTxC).mT).mT.numpy()


def test_square_of_the_sine_and_its_gradient_are_those_of_float64():
    x = np.concatenate([np.linspace(-50, 50, 10_001), np.linspace(-5000, 5000, 10_001)]).astype(np.float32)
    wide = x.astype(np.float64)
    np.testing.assert_allclose(jax.jit(sin_squared)(x), np.sin(wide) ** 2, atol=4e-7)
    np.testing.assert_allclose(jax.jit(jax.vmap(jax.grad(sin_squared)))(x), np.sin(2 * wide), atol=1e-6)
    small = np.geomspace(1e-8, 1e-1, 1000).astype(np.float32)
    np.testing.assert_allclose(sin_squared(small), np.sin(small.astype(np.float64)) ** 2, rtol=5e-7)
    assert np.isnan(sin_squared(np.float32(np.nan))) and sin_squared(jnp.ones(1, jnp.bfloat16)).dtype == jnp.bfloat16


def test_snake_is_that_of_transformers():
    from transformers.models.dac.modeling_dac import Snake1d

    ours, theirs, x = Snake(5), Snake1d(5), 3 * values(2, 7, 5)
    ours.alpha = nnx.Param(jnp.asarray(1 + 0.3 * values(5, seed=1)), logical_axes=(None,))
    theirs.alpha.data = torch.tensor(np.asarray(ours.alpha[...]))[None, :, None]
    np.testing.assert_allclose(ours(x), run(theirs, x), atol=1e-5)


def test_snake_beta_is_that_of_transformers():
    from transformers.models.xcodec2.modeling_xcodec2 import Xcodec2SnakeBeta

    ours, theirs, x = SnakeBeta(5), Xcodec2SnakeBeta(5), 3 * values(2, 7, 5)
    for i, name in enumerate(("alpha", "beta")):
        value = 0.3 * values(5, seed=i + 1)
        setattr(ours, name, nnx.Param(jnp.asarray(value), logical_axes=(None,)))
        getattr(theirs, name).data = torch.tensor(value)
    np.testing.assert_allclose(ours(jnp.asarray(x)), run(theirs, x), atol=1e-5)
