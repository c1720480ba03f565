"""A codec trained on some numbers of CPU devices; run by test_codec_devices.py in a process of its own."""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np

from jaxslm.sharding import make_partitioner
from jaxslm.training.step import put_batch
from tests.codec import tiny_codec

ROWS = 8


def train(n_devices: int) -> list:
    """Metrics and all arrays of the state after three steps; on 8 devices the last has a row that is almost empty."""
    training = tiny_codec.training(balance=True)
    partitioner = make_partitioner({"data": n_devices})
    config = tiny_codec.config(kmeans_iterations=5, restart_every=2, dropout=0.5)
    state = jax.device_put(tiny_codec.start(training, config), partitioner.sharding((), ()))
    step, found = jax.jit(training.step, static_argnums=3), []
    for seed in range(3):
        batch = tiny_codec.batch(seed, rows=ROWS)
        batch["length"] = batch["length"].at[-1].set(30)
        batch["samples"] = jnp.where(jnp.arange(batch["samples"].shape[1]) < batch["length"], batch["samples"], 0)
        placed = put_batch(jax.tree.map(np.asarray, batch), partitioner.batch_sharding())
        state, metrics = step(state, placed, None, True)
        found.append({name: float(value) for name, value in metrics.items()})
    arrays = [np.asarray(leaf).tolist() for leaf in jax.tree.leaves((state.model, state.opt_state["balancer"]))]
    return [found, arrays]


if __name__ == "__main__":
    n_devices = int(sys.argv[1])
    assert jax.device_count() == n_devices
    print(json.dumps(train(n_devices)))
