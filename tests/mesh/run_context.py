"""Splash attention with its length cut over 8 CPU devices beside "xla" on one; run by test_context_devices.py in a
process of its own. The last line is JSON: by mesh, the largest differences, and what leaked where nothing may."""

import json
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from jaxslm.nn.attention import attend
from jaxslm.sharding import make_partitioner, no_constraint
from tests.models.llama import packed_rows

LENGTH, HEADS, KV_HEADS, HEAD_DIM = 1024, 4, 2, 16
SEGMENTS = [[300, 1, 500], [1000, 24], [1024], [100]]  # they cross shards; padding fills the rows
ROWS = packed_rows(SEGMENTS, LENGTH)
IDS, POSITIONS = ROWS["segment_ids_BxT"], ROWS["positions_BxT"]
OBSERVED = IDS == np.array([3, 1, 1, 1])[:, None]  # one segment a row


def arrays() -> tuple[np.ndarray, ...]:
    """Queries, keys, values, and the cotangent of the context."""
    rng = np.random.default_rng(0)
    return tuple(rng.standard_normal((4, LENGTH, n, HEAD_DIM), np.float32) for n in (HEADS, KV_HEADS, KV_HEADS, HEADS))


def run(impl, constrain, q, k, v, target):
    """Context, its gradients, and those of the observed segments alone."""
    ids, positions = constrain(IDS, "batch", "length"), constrain(POSITIONS, "batch", "length")
    mask = dict(q_segment_ids=ids, kv_segment_ids=ids, q_positions=positions, kv_positions=positions)
    context, pull = jax.vjp(lambda *x: attend(*x, impl=impl, constrain=constrain, **mask), q, k, v)
    return context, pull(target), pull(jnp.where(OBSERVED[..., None, None], target, 0))


def compared(mesh: dict, expected) -> dict[str, float]:
    partitioner = make_partitioner(mesh, jax.devices()[: np.prod(list(mesh.values()))])
    axes = [("batch", "length", name, None) for name in ("heads", "kv_heads", "kv_heads", "heads")]
    placed = [jax.device_put(x, partitioner.sharding(a, x.shape)) for a, x in zip(axes, arrays(), strict=True)]
    found = jax.jit(partial(run, "splash", partitioner.constrain))(*placed)
    assert found[0].sharding.shard_shape(found[0].shape)[1] == LENGTH // mesh["sequence"], found[0].sharding
    context, gradients, observed = jax.tree.map(np.asarray, found)
    difference = jax.tree.map(lambda a, b: float(abs(a - b).max()), (context, gradients), expected[:2])
    return dict(
        context=difference[0],
        gradients=max(difference[1]),
        padding=float(abs(context[IDS == 0]).max()),
        leak=max(float(abs(gradient[~OBSERVED]).max()) for gradient in observed),
        seen=min(float(abs(gradient[OBSERVED]).max()) for gradient in observed),
    )


if __name__ == "__main__":
    assert jax.device_count() == 8
    expected = jax.tree.map(np.asarray, jax.jit(partial(run, "xla", no_constraint))(*arrays()))
    print(json.dumps([compared(mesh, expected) for mesh in json.loads(sys.argv[1])]))
