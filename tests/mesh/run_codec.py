"""A codec trained on some numbers of CPU devices; run by test_codec_devices.py in a process of its own."""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np

from jaxslm.codec.model import CodecConfig
from jaxslm.sharding import make_partitioner
from jaxslm.training.step import put_batch
from tests.codec import tiny_codec

ROWS = 8


def train(n_devices: int) -> list:
    """Metrics and all arrays of the state after three steps; on 8 devices the last has a row that is almost empty, and
    the matrices of the transformer lie in halves."""
    training = tiny_codec.training(balance=True)
    partitioner = make_partitioner({"data": -1, "fsdp": min(2, n_devices)})
    network = dict(tiny_codec.NETWORK, transformer=dict(n_layers=2, n_heads=2, d_ff=16, window=4))
    fields = dict(n_levels=2, codebook_size=8, kmeans_iterations=5, restart_every=2, dropout=0.5)
    config = CodecConfig(tiny_codec.RATE, 8, encoder=network, decoder=network, quantizer=fields)
    init, abstract = tiny_codec.parts_of_state(training, config, partitioner)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)
    step = jax.jit(training.step, static_argnums=3, donate_argnums=0, out_shardings=(shardings, None))
    state, found = init(jax.random.key(0)), []
    halves = [leaf for leaf in jax.tree.leaves(state.model) if not leaf.sharding.is_fully_replicated]
    assert bool(halves) == (n_devices > 1)
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
