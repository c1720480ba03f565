"""What a run carries from step to step."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxslm.sharding import Partitioner


@jax.tree_util.register_dataclass
@dataclass
class TrainState:
    """Everything a checkpoint holds; the data position is `step` alone.

    model: a module or any tree of arrays.  opt_state: a plain dict of trees (see optimizer.py).
    step: int32, batches consumed.  key: uint32 key data for a task that draws random numbers while it trains.
    skipped, skipped_in_a_row: int32, steps left out because their loss or gradient was not finite.
    """

    model: Any
    opt_state: Any
    step: jax.Array
    key: jax.Array
    skipped: jax.Array
    skipped_in_a_row: jax.Array


def make_init(
    build_model: Callable[[jax.Array], Any],
    optimizer: optax.GradientTransformation,
    partitioner: Partitioner,
) -> tuple[Callable[[jax.Array], TrainState], TrainState]:
    """(init, abstract_state): `init(key)` makes all arrays in their shards, in one jit: no device ever holds the whole.

    abstract_state is the TrainState of `ShapeDtypeStruct` with those shardings: what a checkpoint is restored into.
    """

    def fresh(key: jax.Array) -> TrainState:
        model_key, state_key = jax.random.split(key)
        model = build_model(model_key)
        zero = jnp.zeros((), jnp.int32)
        return TrainState(model, optimizer.init(model), zero, jax.random.key_data(state_key), zero, zero)

    shapes = jax.eval_shape(fresh, jax.random.key(0))
    shardings = partitioner.shardings(shapes)
    abstract = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, shardings)
    return jax.jit(fresh, out_shardings=shardings), abstract
