import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxslm.codec.activations import Snake, SnakeBeta

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")


def values(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def run(theirs, x_BxTxC):
    with torch.no_grad():
        return theirs(torch.tensor(x_BxTxC).mT).mT.numpy()


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
