"""A random key for each row of a batch, so that a row draws the same whatever rows stand beside it."""

import jax
import jax.numpy as jnp


def keys_of(key: jax.Array, n: int) -> jax.Array:
    """n keys: those given, or of a single key `fold_in(key, i)` for row i."""
    if key.ndim == 0:
        return jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(n))
    assert jnp.issubdtype(key.dtype, jax.dtypes.prng_key) and key.shape == (n,), (key.dtype, key.shape, n)
    return key
