"""Loss and gradient of the speech-text task on meshes of 8 CPU devices; run by test_mesh.py in a process of its own."""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import PartitionSpec as P

from jaxslm.models.decoder import Decoder
from jaxslm.sharding import make_partitioner
from jaxslm.tasks.lm_program import make_loss
from tests.models.llama import packed_rows, tiny_config

LENGTH = 128
VOCAB_SIZE = 120  # of 128 with padding


def loss_and_gradient_norm(mesh: dict, devices=None, **changes) -> tuple[float, float]:
    partitioner = make_partitioner(mesh, devices)
    config = tiny_config(n_layers=2, initializer_range=0.2, **changes)

    def init(key):
        return Decoder(config, key)

    key = jax.random.key(0)
    shardings = partitioner.shardings(jax.eval_shape(init, key))
    model = jax.jit(init, out_shardings=shardings)(key)
    batch = packed_rows([[60, 40], [128], [64, 64], [100]] * 2, LENGTH)
    batch = {name.removesuffix("_BxT"): value for name, value in batch.items()}
    batch |= dict(
        targets=np.minimum(np.roll(batch["tokens"], -1, 1), VOCAB_SIZE - 1),
        loss_weights=(batch["segment_ids"] > 0).astype(np.float32),
        objective=np.tile(np.arange(LENGTH, dtype=np.int32) % 2, (8, 1)),
    )
    batch = jax.device_put(batch, partitioner.batch_sharding())
    settings = dict(loss_chunks=4, optimizer=dict(z_loss=1e-3))
    summed = make_loss(settings, VOCAB_SIZE, 2, partitioner)

    def loss(model, batch):
        total, sums = summed(model, batch)
        return total / sums["weight_O"].sum()

    def loss_and_norm(model, batch):
        value, gradient = jax.value_and_grad(loss)(model, batch)
        return value, jnp.sqrt(sum(jnp.sum(g**2) for g in jax.tree.leaves(gradient)))

    value, norm = jax.jit(loss_and_norm)(model, batch)
    if partitioner.mesh.shape["fsdp"] > 1 and "rules" not in mesh:  # really sharded, not replicated
        weight = nnx.to_pure_dict(nnx.state(model))["layers"]["feed_forward"]["up"]["weight"]
        assert weight.addressable_shards[0].data.shape[1] == 32 // partitioner.mesh.shape["fsdp"]
        assert weight.sharding.spec == P(None, ("fsdp",), ("tensor",)), weight.sharding
    return float(value), float(norm)


if __name__ == "__main__":
    assert jax.device_count() == 8
    results = []
    for case in json.loads(sys.argv[1]):
        devices = jax.devices()[:1] if case.pop("single", False) else None
        mesh = {axis: case.pop(axis) for axis in ("data", "fsdp", "tensor", "sequence", "rules") if axis in case}
        results.append(loss_and_gradient_norm(mesh, devices, **case))
    print(json.dumps(results))
