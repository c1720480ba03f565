from collections.abc import Sequence

import jax
import jax.numpy as jnp


def in_chunks(layer, x: jax.Array, sizes: Sequence[int] | int) -> jax.Array:
    """What `layer` makes of `x` [B, T, C] in chunks of these sizes, or of this size."""
    run = jax.jit(lambda layer, x, state: layer.stream(x, state))
    if isinstance(sizes, int):
        sizes = [sizes] * (x.shape[1] // sizes)
    state, pieces, first = layer.start(x.shape[0]), [], 0
    for size in sizes:
        y, state = run(layer, x[:, first : first + size], state)
        pieces.append(y)
        first += size
    assert first == x.shape[1]
    return jnp.concatenate(pieces, axis=1)
