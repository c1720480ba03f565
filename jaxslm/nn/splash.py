"""Causal attention by the splash kernel of TPUs, the length whole on every device or cut over several.

Over a cut length each device keeps the queries of its shard and gathers all keys and values, as Llama 3 does (arXiv
2407.21783, section 3.3.2); their gradients are summed and dealt out again. Later queries see more keys, so shards trade
the second half of their queries with the mirrored shard: of n, shard i works on parts 2i and 2n-1-2i of 2n, and all
have the same to do.

Legend: B batch, T time, H query heads, K key/value heads, C head dimension.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as splash_mask
from jax.sharding import PartitionSpec

from jaxslm.sharding import Constrain


def splash_attention(
    q_BxTxHxC: jax.Array, k_BxTxKxC: jax.Array, v_BxTxKxC: jax.Array, segment_ids_BxT: jax.Array, constrain: Constrain
) -> jax.Array:
    """Context [B, T, H, C] as `attend` defines it; T is a multiple of 128, or of 256 for each shard of it.

    Raises ValueError if the batch or the heads cannot be dealt out to the mesh.
    """
    length, n_shards = q_BxTxHxC.shape[1], constrain.n_shards("length")
    order_T = _order(length, n_shards)
    kernel = _kernel(order_T, n_shards, interpret=constrain.platform != "tpu")  # interpreted: slow, for tests
    # The kernel lets padding see padding (a row that sees nothing would divide by zero): its values are cleared, which
    # costs nothing beside the projection that makes them, and so its context is 0.
    v_BxTxKxC = jnp.where((segment_ids_BxT > 0)[:, :, None, None], v_BxTxKxC, 0)
    (cut,) = constrain.mesh_axes(("length",), (length,))
    queries = constrain.spec(("batch", "length", "heads", None), q_BxTxHxC.shape)
    keys = constrain.spec(("batch", "length", "kv_heads", None), k_BxTxKxC.shape)
    ids, all_ids = (constrain.spec(("batch", axis), segment_ids_BxT.shape) for axis in ("length", None))
    mask = jax.tree.map(lambda x: PartitionSpec(*[None] * (x.ndim > 1), cut), kernel)  # [1, query, key blocks] and [T]
    run = constrain.shard_map(
        partial(_of_shard, cut, n_shards), in_specs=(mask, queries, keys, keys, ids, all_ids), out_specs=queries
    )
    return run(kernel, q_BxTxHxC, k_BxTxKxC, v_BxTxKxC, segment_ids_BxT[:, order_T], segment_ids_BxT)


def _order(length: int, n_shards: int) -> np.ndarray:
    """int32 [T]: the positions of the queries in the order in which the shards work on them."""
    halves = np.arange(length, dtype=np.int32).reshape(n_shards, 2, -1)
    return np.stack([halves[:, 0], halves[::-1, 1]], axis=1).ravel()


def _kernel(order_T: np.ndarray, n_shards: int, interpret: bool) -> splash.SplashAttentionKernel:
    """The kernel of all shards; a shard gets its part of the arrays that say which blocks to visit."""
    length = len(order_T)
    part = length // (2 * n_shards if n_shards > 1 else 1)
    blocks = (2048, 1024, 512, 256, 128)
    block_q = next(n for n in blocks[2:] if part % n == 0)
    block_kv, wide = (next(n for n in blocks if n <= most and length % n == 0) for most in (512, 2048))
    mask = splash_mask.CausalMask((length, length))
    mask.q_sequence = order_T
    return splash.make_splash_mha(
        splash_mask.MultiHeadMask([mask]),  # of every head
        head_shards=1,
        q_seq_shards=n_shards,
        block_sizes=splash.BlockSizes(
            **dict.fromkeys(("block_q", "block_q_dkv"), block_q),
            **dict.fromkeys(("block_kv", "block_kv_compute", "block_kv_dkv_compute"), block_kv),
            # The backward pass leaves a part of dq for each block of keys, to be summed outside: few and wide ones.
            block_kv_dkv=wide,
            use_fused_bwd_kernel=True,
        ),
        interpret=interpret,
        residual_checkpoint_name="context",
    )


def _of_shard(cut, n_shards, kernel, q_BxTxHxC, k_BxTxKxC, v_BxTxKxC, segment_ids_BxT, all_segment_ids_BxS):
    """Context of one shard; `cut` are the mesh axes that divide the length, none where it is whole."""

    def trade(x_BxTxHxC):
        if not cut:
            return x_BxTxHxC
        kept, traded = jnp.split(x_BxTxHxC, 2, axis=1)
        mirrored = [(shard, n_shards - 1 - shard) for shard in range(n_shards)]
        return jnp.concatenate([kept, jax.lax.ppermute(traded, cut, mirrored)], axis=1)

    if cut:
        k_BxTxKxC, v_BxTxKxC = (jax.lax.all_gather(x, cut, axis=1, tiled=True) for x in (k_BxTxKxC, v_BxTxKxC))
    q_BxTxHxC = trade(q_BxTxHxC * q_BxTxHxC.shape[-1] ** -0.5)
    heads_first = [jnp.swapaxes(x, 1, 2) for x in (q_BxTxHxC, k_BxTxKxC, v_BxTxKxC)]
    context = jax.vmap(kernel)(*heads_first, splash.SegmentIds(segment_ids_BxT, all_segment_ids_BxS))
    return trade(jnp.swapaxes(context, 1, 2).astype(q_BxTxHxC.dtype))
