"""`attend`: causal attention inside packed segments, one contract over several implementations.

Legend: B batch, T queries, S keys, H query heads, K key/value heads, G = H / K query heads of a key head,
C head dimension.
"""

import jax
import jax.numpy as jnp

from jaxslm.sharding import Constrain, no_constraint

IMPLEMENTATIONS = ("auto", "xla", "blocked", "splash", "cudnn")
QUERY_BLOCK = 512  # queries a step of "blocked": memory is O(QUERY_BLOCK * S) instead of O(T * S)


def attend(
    q_BxTxHxC: jax.Array,
    k_BxSxKxC: jax.Array,
    v_BxSxKxC: jax.Array,
    *,
    q_segment_ids: jax.Array,
    kv_segment_ids: jax.Array,
    q_positions: jax.Array,
    kv_positions: jax.Array,
    impl: str = "auto",
    constrain: Constrain = no_constraint,
) -> jax.Array:
    """Context [B, T, H, C] of scaled dot-product attention.

    A query sees a key of the same segment at the same or an earlier position; segment 0 is padding, sees nothing and is
    seen by nothing, and a query that sees nothing gets 0. Segment ids and positions are int32 [B, T] and [B, S].

    impl: "xla" holds all scores; "blocked" holds those of `QUERY_BLOCK` queries at a time, forward and backward;
    "splash" is the TPU kernel, for self-attention over rows whose positions rise inside each segment (packed rows),
    T a multiple of 128; "cudnn" the GPU kernel, bfloat16 or float16 only; "auto" chooses by device and length.
    """
    mask = (q_segment_ids, kv_segment_ids, q_positions, kv_positions)
    n_queries, n_keys = q_BxTxHxC.shape[1], k_BxSxKxC.shape[1]
    if impl == "auto":
        impl = _choose(n_queries, n_keys)
    if impl == "xla":
        return _xla(q_BxTxHxC, k_BxSxKxC, v_BxSxKxC, *mask)
    if impl == "blocked":
        return _blocked(q_BxTxHxC, k_BxSxKxC, v_BxSxKxC, *mask)
    if impl == "cudnn":
        return _cudnn(q_BxTxHxC, k_BxSxKxC, v_BxSxKxC, *mask)
    if impl == "splash":
        if n_queries != n_keys or n_queries % 128:
            raise ValueError(
                f"attention 'splash' needs as many queries as keys and a multiple of 128, got {n_queries} and "
                f"{n_keys}. Use attention='auto', or a context length that is a multiple of 128."
            )
        heads = ("batch", None, "heads", None), ("batch", None, "kv_heads", None), ("batch", None, "kv_heads", None)
        kernel = constrain.per_shard(_splash, (*heads, ("batch", None)), heads[0])
        return kernel(q_BxTxHxC, k_BxSxKxC, v_BxSxKxC, q_segment_ids)
    raise ValueError(f"attention '{impl}' is not one of {', '.join(IMPLEMENTATIONS)}.")


def _choose(n_queries: int, n_keys: int) -> str:
    if jax.default_backend() == "tpu" and n_queries == n_keys and n_queries % 128 == 0:
        return "splash"
    return "blocked" if n_queries > 2 * QUERY_BLOCK and n_queries % QUERY_BLOCK == 0 else "xla"


def visible(q_segment_ids, kv_segment_ids, q_positions, kv_positions) -> jax.Array:
    """bool [B, T, S]: the mask that defines `attend`."""
    same = (q_segment_ids[:, :, None] == kv_segment_ids[:, None, :]) & (q_segment_ids[:, :, None] > 0)
    return same & (kv_positions[:, None, :] <= q_positions[:, :, None])


def _zero_blind(context_BxTxHxC: jax.Array, visible_BxTxS: jax.Array) -> jax.Array:
    return jnp.where(visible_BxTxS.any(-1)[:, :, None, None], context_BxTxHxC, 0)


def _xla(q_BxTxHxC, k_BxSxKxC, v_BxSxKxC, *mask) -> jax.Array:
    batch, n_queries, n_heads, head_dim = q_BxTxHxC.shape
    n_kv_heads = k_BxSxKxC.shape[2]
    visible_BxTxS = visible(*mask)
    # Query heads are grouped by the key head they share, so keys and values are never repeated. The order of axes is
    # the one in which a batched matrix product leaves them: nothing of size T * S is ever transposed.
    q_BxTxKxGxC = (q_BxTxHxC * head_dim**-0.5).reshape(batch, n_queries, n_kv_heads, -1, head_dim)
    scores = jnp.einsum("btkgc,bskc->bktgs", q_BxTxKxGxC, k_BxSxKxC, preferred_element_type=jnp.float32)
    scores = jnp.where(visible_BxTxS[:, None, :, None, :], scores, jnp.finfo(jnp.float32).min)
    # Softmax with the division last: it then runs over [T, C] instead of [T, S], and so does its gradient.
    weights = jnp.exp(scores - jax.lax.stop_gradient(scores.max(axis=-1, keepdims=True)))
    context = jnp.einsum("bktgs,bskc->bktgc", weights.astype(v_BxSxKxC.dtype), v_BxSxKxC)
    context = (context / weights.sum(axis=-1, keepdims=True)).astype(v_BxSxKxC.dtype)
    context = jnp.swapaxes(context, 1, 2).reshape(batch, n_queries, n_heads, head_dim)
    return _zero_blind(context, visible_BxTxS)


def _blocked(q_BxTxHxC, k_BxSxKxC, v_BxSxKxC, q_segment_ids, kv_segment_ids, q_positions, kv_positions) -> jax.Array:
    n_queries = q_BxTxHxC.shape[1]
    block = min(QUERY_BLOCK, n_queries)
    if n_queries % block:
        raise ValueError(
            f"attention 'blocked' needs a length divisible by {block}, got {n_queries}. Use attention='auto'."
        )

    # A block holds every (T / block)-th query, so that a length axis sharded over devices stays sharded inside it.
    def cut(x):
        return jnp.moveaxis(x.reshape(x.shape[0], block, -1, *x.shape[2:]), 2, 0)

    @jax.checkpoint
    def one_block(block_of):
        q, segment_ids, positions = block_of
        return _xla(q, k_BxSxKxC, v_BxSxKxC, segment_ids, kv_segment_ids, positions, kv_positions)

    context = jax.lax.map(one_block, (cut(q_BxTxHxC), cut(q_segment_ids), cut(q_positions)))
    return jnp.moveaxis(context, 0, 2).reshape(q_BxTxHxC.shape)


def _splash(q_BxTxHxC, k_BxTxKxC, v_BxTxKxC, segment_ids_BxT) -> jax.Array:
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as splash_mask

    length, n_heads, head_dim = q_BxTxHxC.shape[1:]
    block = next(size for size in (512, 256, 128) if length % size == 0)
    kernel = splash.make_splash_mha(
        splash_mask.MultiHeadMask([splash_mask.CausalMask((length, length))] * n_heads),
        head_shards=1,
        q_seq_shards=1,
        block_sizes=splash.BlockSizes(
            **{f"block_{name}": block for name in ("q", "kv", "kv_compute", "q_dkv", "kv_dkv", "kv_dkv_compute")},
            use_fused_bwd_kernel=True,
        ),
        interpret=jax.default_backend() != "tpu",  # off a TPU the kernel is interpreted: slow, for tests
    )
    heads_first = [jnp.swapaxes(x, 1, 2) for x in (q_BxTxHxC * head_dim**-0.5, k_BxTxKxC, v_BxTxKxC)]
    context = jax.vmap(kernel)(*heads_first, splash.SegmentIds(segment_ids_BxT, segment_ids_BxT))
    # The kernel lets padding see padding (a row that sees nothing would divide by zero): clear it here.
    return jnp.where((segment_ids_BxT > 0)[:, :, None, None], jnp.swapaxes(context, 1, 2), 0).astype(q_BxTxHxC.dtype)


def _cudnn(q_BxTxHxC, k_BxSxKxC, v_BxSxKxC, *mask) -> jax.Array:
    # The public function has no segment ids; the whole mask goes in, or documents would see each other.
    visible_BxTxS = visible(*mask)
    context = jax.nn.dot_product_attention(
        q_BxTxHxC, k_BxSxKxC, v_BxSxKxC, mask=visible_BxTxS[:, None], implementation="cudnn"
    )
    return _zero_blind(context, visible_BxTxS)
