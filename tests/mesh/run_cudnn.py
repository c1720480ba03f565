"""cuDNN, emulated, on the pieces of eight CPU devices and on one; test_cudnn_devices.py runs it by itself."""

import json

import jax
import jax.numpy as jnp
import numpy as np

from jaxslm.nn import attention, cudnn_attention
from jaxslm.nn.attention import attend
from jaxslm.sharding import make_partitioner
from tests.models.llama import packed_rows
from tests.nn import cudnn_emulation

LENGTH, HEADS, KV_HEADS, HEAD_DIM = 64, 4, 2, 64
ROWS = [[20, 40], [64], [1] * 30, []] * 2

attention._packed_layout = lambda: True
cudnn_attention._cudnn_forward = cudnn_emulation.forward
cudnn_attention._cudnn_backward = cudnn_emulation.backward


def context_and_gradients(partitioner) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    shapes = [(len(ROWS), LENGTH, n, HEAD_DIM) for n in (HEADS, KV_HEADS, KV_HEADS)]
    axes = ("batch", None, "heads", None), ("batch", None, "kv_heads", None), ("batch", None, "kv_heads", None)
    qkv = [
        jax.device_put(jnp.asarray(rng.standard_normal(s), jnp.bfloat16), partitioner.sharding(a, s))
        for a, s in zip(axes, shapes, strict=True)
    ]
    batch = packed_rows(ROWS, LENGTH)
    segment_ids, positions = (
        jax.device_put(batch[name], partitioner.batch_sharding()) for name in ("segment_ids_BxT", "positions_BxT")
    )

    def loss(q, k, v):
        ids = dict(q_segment_ids=segment_ids, kv_segment_ids=segment_ids)
        ids |= dict(q_positions=positions, kv_positions=positions)
        context = attend(q, k, v, impl="cudnn", constrain=partitioner.constrain, **ids).astype(jnp.float32)
        return jnp.sum(context**2), context

    gradients, context = jax.jit(jax.grad(loss, argnums=(0, 1, 2), has_aux=True))(*qkv)
    return [np.asarray(x, np.float32) for x in (context, *gradients)]


if __name__ == "__main__":
    assert jax.device_count() == 8
    one = context_and_gradients(make_partitioner({}, jax.devices()[:1]))
    many = context_and_gradients(make_partitioner(dict(data=2, fsdp=2, tensor=2)))
    equal = [bool(np.array_equal(a, b) and np.any(a != 0)) for a, b in zip(one, many, strict=True)]
    print(json.dumps(equal))
