"""`attend`: causal attention inside packed segments, one contract over several implementations.

Legend: B batch, T queries, S keys, H query heads, K key/value heads, G = H / K query heads of a key head,
C head dimension.
"""

import functools
import logging
import math

import jax
import jax.numpy as jnp

from jaxslm.nn import cudnn_attention
from jaxslm.nn.layers import at_least_float32
from jaxslm.nn.remat import named
from jaxslm.sharding import Constrain, no_constraint

log = logging.getLogger(__name__)

IMPLEMENTATIONS = ("auto", "xla", "blocked", "splash", "cudnn")
QUERY_BLOCK = 512  # queries a step of "blocked": memory is O(QUERY_BLOCK * S) instead of O(T * S)


@jax.named_scope("attention/attend")
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
    T a multiple of 128, or of 256 for each of the shards that it is cut into; "cudnn" the NVIDIA kernel, bfloat16 or
    float16 and head dimension 64 or 128, which takes packed rows (T = S) without a mask, and queries of a cache with
    one; "auto" chooses by device, type and shape.
    """
    mask = (q_segment_ids, kv_segment_ids, q_positions, kv_positions)
    n_queries, n_keys = q_BxTxHxC.shape[1], k_BxSxKxC.shape[1]
    shards = constrain.n_shards("length")
    unit = 128 if shards == 1 else 256 * shards  # lengths that splash can do
    if impl == "auto":
        impl = _choose(q_BxTxHxC, k_BxSxKxC, unit, constrain)
    if impl != "splash":  # queries keep their shard of the sequence; every one of them needs all keys
        k_BxSxKxC, v_BxSxKxC = (constrain(x, "batch", None, "kv_heads", None) for x in (k_BxSxKxC, v_BxSxKxC))
    if impl == "xla":
        return _xla(q_BxTxHxC, k_BxSxKxC, v_BxSxKxC, *mask)
    if impl == "blocked":
        return _blocked(q_BxTxHxC, k_BxSxKxC, v_BxSxKxC, *mask)
    if impl == "cudnn":
        _check_cudnn(q_BxTxHxC, constrain)
        if n_queries != n_keys or not _packed_layout():
            return _masked_cudnn(q_BxTxHxC, k_BxSxKxC, v_BxSxKxC, *mask)
        queries = constrain.spec(("batch", None, "heads", None), q_BxTxHxC.shape)
        keys = constrain.spec(("batch", None, "kv_heads", None), k_BxSxKxC.shape)
        specs = queries, keys, keys, constrain.spec(("batch", None), q_segment_ids.shape)
        kernel = constrain.shard_map(cudnn_attention.packed_attention, specs, queries)
        return kernel(q_BxTxHxC, k_BxSxKxC, v_BxSxKxC, q_segment_ids)
    if impl == "splash":
        from jaxslm.nn.splash import splash_attention

        if n_queries != n_keys or n_queries % unit:
            raise ValueError(
                f"attention 'splash' needs as many queries as keys and, on {shards} shards of the length, a multiple "
                f"of {unit}, got {n_queries} and {n_keys}. Use attention='auto', or a context length that is a "
                f"multiple of {unit}."
            )
        return splash_attention(q_BxTxHxC, k_BxSxKxC, v_BxSxKxC, q_segment_ids, constrain)
    raise ValueError(f"attention '{impl}' is not one of {', '.join(IMPLEMENTATIONS)}.")


def _choose(q_BxTxHxC: jax.Array, k_BxSxKxC: jax.Array, unit: int, constrain: Constrain) -> str:
    _, n_queries, _, head_dim = q_BxTxHxC.shape
    whole = constrain.divides(("batch", None, "kv_heads", None), k_BxSxKxC.shape)  # kernels run shard by shard
    if n_queries == k_BxSxKxC.shape[1] and n_queries % unit == 0 and whole:
        if constrain.platform == "tpu":
            return "splash"
        packed = cudnn_attention.supported(q_BxTxHxC.dtype, head_dim) and constrain.n_shards("length") == 1
        if constrain.platform == "gpu" and packed and _packed_layout():
            return "cudnn"
    return "blocked" if n_queries > 2 * QUERY_BLOCK and n_queries % QUERY_BLOCK == 0 else "xla"


def visible(q_segment_ids, kv_segment_ids, q_positions, kv_positions) -> jax.Array:
    """bool [B, T, S]: the mask that defines `attend`."""
    same = (q_segment_ids[:, :, None] == kv_segment_ids[:, None, :]) & (q_segment_ids[:, :, None] > 0)
    return same & (kv_positions[:, None, :] <= q_positions[:, :, None])


def _zero_blind(context_BxTxHxC: jax.Array, visible_BxTxS: jax.Array) -> jax.Array:
    return jnp.where(visible_BxTxS.any(-1)[:, :, None, None], context_BxTxHxC, 0)


def _xla(q_BxTxHxC, k_BxSxKxC, v_BxSxKxC, *mask) -> jax.Array:
    n_kv_heads, head_dim = k_BxSxKxC.shape[2:]
    visible_BxTxS = visible(*mask)
    # Query heads are grouped by the key head they share, so keys and values are never repeated.
    batch, length = q_BxTxHxC.shape[:2]
    q_BxTxKxGxC = (q_BxTxHxC * head_dim**-0.5).reshape(batch, length, n_kv_heads, -1, head_dim)
    k_BxKxSxC, v_BxKxSxC = k_BxSxKxC.swapaxes(1, 2), v_BxSxKxC.swapaxes(1, 2)
    context_BxKxGxTxC = _softmax_attention(jnp.moveaxis(q_BxTxKxGxC, 1, 3), k_BxKxSxC, v_BxKxSxC, visible_BxTxS)
    return _zero_blind(jnp.moveaxis(context_BxKxGxTxC, 3, 1).reshape(q_BxTxHxC.shape), visible_BxTxS)


@jax.custom_vjp
def _softmax_attention(q, k, v, visible_BxTxS) -> jax.Array:
    """softmax(q k') v. The backward pass makes the weights again from their normaliser, as FlashAttention does (Dao et
    al. 2022, section 3.1): scores are not kept, and on a CPU the gradient takes half the time."""
    return _softmax_attention_forward(q, k, v, visible_BxTxS)[0]


def _scores(q, k, visible_BxTxS) -> jax.Array:
    scores = jnp.einsum("bkgtc,bksc->bkgts", q, k, preferred_element_type=at_least_float32(q.dtype))
    return jnp.where(visible_BxTxS[:, None, None], scores, jnp.finfo(jnp.float32).min)


def _softmax_attention_forward(q, k, v, visible_BxTxS):
    scores = _scores(q, k, visible_BxTxS)
    highest = scores.max(axis=-1, keepdims=True)
    weights = jnp.exp(scores - highest)
    total = weights.sum(axis=-1, keepdims=True)
    context = jnp.einsum("bkgts,bksc->bkgtc", weights.astype(v.dtype), v, preferred_element_type=total.dtype) / total
    context, log_total = named(context.astype(v.dtype), "context"), named(highest + jnp.log(total), "context")
    return context, (q, k, v, visible_BxTxS, context, log_total)


def _softmax_attention_backward(saved, d_context):
    q, k, v, visible_BxTxS, context, log_total = saved
    weights = jnp.exp(_scores(q, k, visible_BxTxS) - log_total)
    d_v = jnp.einsum("bkgts,bkgtc->bksc", weights.astype(v.dtype), d_context)
    d_weights = jnp.einsum("bkgtc,bksc->bkgts", d_context, v, preferred_element_type=weights.dtype)
    mean = jnp.sum((d_context * context).astype(weights.dtype), axis=-1, keepdims=True)  # of d_weights, by the weights
    d_scores = (weights * (d_weights - mean)).astype(q.dtype)
    d_q, d_k = jnp.einsum("bkgts,bksc->bkgtc", d_scores, k), jnp.einsum("bkgts,bkgtc->bksc", d_scores, q)
    return d_q, d_k, d_v, None


_softmax_attention.defvjp(_softmax_attention_forward, _softmax_attention_backward)


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


def _check_cudnn(q_BxTxHxC: jax.Array, constrain: Constrain) -> None:
    dtype, head_dim = q_BxTxHxC.dtype, q_BxTxHxC.shape[3]
    if not cudnn_attention.supported(dtype, head_dim):
        raise ValueError(
            f"attention 'cudnn' needs {' or '.join(cudnn_attention.DTYPES)} and a head dimension of "
            f"{' or '.join(map(str, cudnn_attention.HEAD_DIMS))}, got {dtype} and {head_dim}. Use attention='auto'."
        )
    if constrain.platform != "gpu" and not _packed_layout():
        raise ValueError(f"attention 'cudnn' needs an NVIDIA GPU, not a {constrain.platform}. Use attention='auto'.")
    if constrain.n_shards("length") > 1:
        raise ValueError("attention 'cudnn' takes rows whole: set mesh.sequence=1, or use attention='auto'.")
    axes = constrain.mesh_axes(("batch", None, "heads", None), q_BxTxHxC.shape)
    n_elements = q_BxTxHxC.size // math.prod(constrain.partitioner.mesh.shape[axis] for axis in sum(axes, ()))
    if n_elements > cudnn_attention.MOST_ELEMENTS:
        raise ValueError(
            f"attention 'cudnn' takes {cudnn_attention.MOST_ELEMENTS} elements of queries a device, got {n_elements}. "
            "Use fewer rows a device (optimizer.accumulate_steps, mesh) or attention='blocked'."
        )


@functools.cache  # so that it is logged once
def _packed_layout() -> bool:
    has = cudnn_attention.has_packed_layout()
    if not has and jax.default_backend() == "gpu":
        log.warning(
            "packed rows need compute capability 9.0 (Hopper) and cuDNN: attention='cudnn' makes a mask [T, T] a row "
            "here, attention='auto' does without cuDNN"
        )
    return has


def _masked_cudnn(q_BxTxHxC, k_BxSxKxC, v_BxSxKxC, *mask) -> jax.Array:
    # The public function has no segment ids; the whole mask goes in, or documents would see each other.
    visible_BxTxS = visible(*mask)
    context = jax.nn.dot_product_attention(
        q_BxTxHxC, k_BxSxKxC, v_BxSxKxC, mask=visible_BxTxS[:, None], implementation="cudnn"
    )
    return _zero_blind(context, visible_BxTxS)
