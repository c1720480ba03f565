"""Causal self-attention over packed rows by cuDNN's flash attention: every segment is a sequence of its own.

cuDNN takes sequences that lie anywhere in one buffer: the element where each begins and how many tokens it has. A mask
is never made, and what lies outside the sequences is neither read into them nor written. How many sequences a call may
have is fixed when it is compiled, and its memory grows with it (statistics of the softmax [A, H, T], and accumulators);
so a call takes `SLOTS` segments a row of the batch and is repeated until no segment is left: any number is right.

XLA's custom calls are made here rather than by `jax._src.cudnn.fused_attention_stablehlo`, which is private and, in jax
0.10, finds keys by the number of query heads: wrong keys, silently, when heads share them (jax-ml/jax#39521).

Legend: B batch, T length of a row, N = B T tokens, H query heads, K key/value heads, C head dimension; M slots for
segments a row, A = B M slots of a call.
"""

import json
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxslm.nn.remat import named

SLOTS = 8  # M, at least 2: one would not be the packed layout
HEAD_DIMS = (64, 128)
DTYPES = ("bfloat16", "float16")
MOST_ELEMENTS = 2**31 - 1  # of the queries on a device: offsets are int32


def has_packed_layout() -> bool:
    """Whether the devices of this process can: NVIDIA GPUs of compute capability 9.0 (Hopper) or newer."""
    major = getattr(jax.local_devices()[0], "compute_capability", "").partition(".")[0]  # "gfx942" on AMD
    return major.isdigit() and int(major) >= 9


def supported(dtype: Any, head_dim: int) -> bool:
    return jnp.dtype(dtype).name in DTYPES and head_dim in HEAD_DIMS


@jax.custom_vjp
def packed_attention(
    q_BxTxHxC: jax.Array, k_BxTxKxC: jax.Array, v_BxTxKxC: jax.Array, segment_ids_BxT: jax.Array
) -> jax.Array:
    """Context [B, T, H, C] of attention inside segments, up to the own column; 0 in segment 0, and so are gradients.

    A segment is a run of one id > 0 in a row (int32). bfloat16 or float16, head dimension 64 or 128, H C N < 2**31.
    The context and the normalisers that the backward pass needs are named "context" (nn/remat.py).
    """
    return _forward(q_BxTxHxC, k_BxTxKxC, v_BxTxKxC, segment_ids_BxT)[0]


class Segments(NamedTuple):
    """Of a batch, numbered from 0 in reading order, row after row."""

    number_N: jax.Array  # the segment of each token, int32; -1 in padding
    place_N: jax.Array  # of the token inside its segment, int32
    count: jax.Array  # int32 []


class Taken(NamedTuple):
    """The segments of one call. Slots that are left over have length 0 and begin behind the last token."""

    mine_N: jax.Array  # whether the token is in one of them
    slot_N: jax.Array  # which, if so; int32
    begin_A: jax.Array  # first token of each, int32
    length_A: jax.Array  # int32


def find_segments(segment_ids_BxT: jax.Array) -> Segments:
    before_BxT = jnp.pad(segment_ids_BxT[:, :-1], ((0, 0), (1, 0)))  # a row begins as if behind padding
    inside_N = (segment_ids_BxT > 0).reshape(-1)
    begins_N = inside_N & (segment_ids_BxT != before_BxT).reshape(-1)
    index_N = jnp.arange(begins_N.size, dtype=jnp.int32)
    number_N = jnp.cumsum(begins_N, dtype=jnp.int32) - 1
    begin_N = jax.lax.cummax(jnp.where(begins_N, index_N, 0))
    return Segments(jnp.where(inside_N, number_N, -1), index_N - begin_N, number_N[-1] + 1)


def take(segments: Segments, first: jax.Array, n_slots: int) -> Taken:
    """Segments first, first + 1, ... first + n_slots - 1."""
    n_tokens = segments.number_N.size
    slot_N = segments.number_N - first
    mine_N = (segments.number_N >= 0) & (slot_N >= 0) & (slot_N < n_slots)
    in_AxN = mine_N & (slot_N == jnp.arange(n_slots)[:, None])
    begin_A = jnp.where(in_AxN, jnp.arange(n_tokens, dtype=jnp.int32), n_tokens).min(axis=1)
    return Taken(mine_N, slot_N, begin_A, in_AxN.sum(axis=1, dtype=jnp.int32))


def _operands(taken: Taken, q_BxTxHxC: jax.Array, k_BxTxKxC: jax.Array) -> tuple[jax.Array, ...]:
    """(lengths of queries, of keys [B, M], offsets of queries, of keys [B, M + 1]): cuDNN reads A and A + 1 of them,
    in a line, whatever their shape. Offsets count elements."""
    batch, length, n_heads, head_dim = q_BxTxHxC.shape
    length_BxM = taken.length_A.reshape(batch, SLOTS)
    begin = jnp.pad(taken.begin_A, (0, batch), constant_values=batch * length).reshape(batch, SLOTS + 1)
    return length_BxM, length_BxM, begin * (n_heads * head_dim), begin * (k_BxTxKxC.shape[2] * head_dim)


def _for_all_segments(segment_ids_BxT: jax.Array, call: Any, start: Any) -> Any:
    """`start`, a tuple of arrays, with the tokens of each call's segments set to what it gave for them.

    call(taken) gives arrays [B, T, ...] or [H, N] float32.
    """
    segments = find_segments(segment_ids_BxT)
    n_slots = segment_ids_BxT.shape[0] * SLOTS

    def one(i, so_far):
        taken = take(segments, i * n_slots, n_slots)
        mine_BxT = taken.mine_N.reshape(segment_ids_BxT.shape)

        def choose(new, old):
            return jnp.where(taken.mine_N if new.ndim == 2 else mine_BxT[:, :, None, None], new, old)

        return jax.tree.map(choose, call(taken, segments), so_far)

    return jax.lax.fori_loop(0, -(-segments.count // n_slots), one, start)


def _forward(q_BxTxHxC, k_BxTxKxC, v_BxTxKxC, segment_ids_BxT):
    batch, length, n_heads, _ = q_BxTxHxC.shape

    def call(taken, segments):
        context, stats_AxHxT = _cudnn_forward(q_BxTxHxC, k_BxTxKxC, v_BxTxKxC, *_operands(taken, q_BxTxHxC, k_BxTxKxC))
        stats_Hx_AT = stats_AxHxT.swapaxes(0, 1).reshape(n_heads, -1)
        where_N = jnp.where(taken.mine_N, taken.slot_N * length + segments.place_N, 0)
        return context, stats_Hx_AT[:, where_N]

    start = jnp.zeros_like(q_BxTxHxC), jnp.zeros((n_heads, batch * length), jnp.float32)
    context, stats_HxN = _for_all_segments(segment_ids_BxT, call, start)
    context, stats_HxN = named(context, "context"), named(stats_HxN, "context")
    return context, (q_BxTxHxC, k_BxTxKxC, v_BxTxKxC, segment_ids_BxT, context, stats_HxN)


def _backward(saved, d_context):
    q, k, v, segment_ids_BxT, context, stats_HxN = saved
    length = q.shape[1]

    def call(taken, _):
        column_T = jnp.arange(length)
        token_AxT = jnp.minimum(taken.begin_A[:, None] + column_T, stats_HxN.shape[1] - 1)
        stats_AxHxT = stats_HxN[:, token_AxT].swapaxes(0, 1)
        # exp(score - infinity) = 0: a row of a tile behind the end of its sequence weighs nothing.
        stats_AxHxT = jnp.where((column_T < taken.length_A[:, None])[:, None], stats_AxHxT, jnp.inf)
        return _cudnn_backward(q, k, v, stats_AxHxT, d_context, context, *_operands(taken, q, k))

    start = jnp.zeros_like(q), jnp.zeros_like(k), jnp.zeros_like(v)
    return *_for_all_segments(segment_ids_BxT, call, start), None


packed_attention.defvjp(_forward, _backward)


def _cudnn_forward(q, k, v, *operands) -> tuple[jax.Array, jax.Array]:
    """(context [B, T, H, C], statistics of the softmax [A, H, T] float32), both unset outside the sequences."""
    batch, length, n_heads, _ = q.shape
    stats = jax.ShapeDtypeStruct((batch * SLOTS, n_heads, length), jnp.float32)
    context, stats, _ = _custom_call("__cudnn$fmhaSoftmax", [_heads_first(q), stats, _WORKSPACE], 1, q, _FORWARD)(
        q, k, v, *operands
    )
    return context.swapaxes(1, 2), stats


def _cudnn_backward(q, k, v, stats_AxHxT, d_context, context, *operands) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Gradients of queries, keys and values, in their shapes, unset outside the sequences."""
    results = [*(_heads_first(x) for x in (q, k, v)), _WORKSPACE]
    *gradients, _ = _custom_call("__cudnn$fmhaSoftmaxBackward", results, 3, q, _BACKWARD)(
        q, k, v, stats_AxHxT, d_context, context, *operands
    )
    return tuple(x.swapaxes(1, 2) for x in gradients)


_WORKSPACE = jax.ShapeDtypeStruct((0,), jnp.uint8)  # XLA asks cuDNN for its size


def _heads_first(x: jax.Array) -> jax.ShapeDtypeStruct:
    batch, length, n_heads, head_dim = x.shape
    return jax.ShapeDtypeStruct((batch, n_heads, length, head_dim), x.dtype)


def _custom_call(target: str, results: list, n_heads_first: int, q_BxTxHxC: jax.Array, products: dict):
    """XLA's call of cuDNN; its first results are [B, H, T, C] in name and lie in memory as [B, T, H, C]."""
    batch, length, n_heads, head_dim = q_BxTxHxC.shape
    config = dict(
        algorithm=dict(
            algo_id="0",
            math_type="TENSOR_OP_MATH",
            tuning_knobs={"17": "1", "24": "0"},
            is_cudnn_frontend=True,
            workspace_size="0",
        ),
        fmha_scale=head_dim**-0.5,
        intermediate_tensor_shape=dict(
            element_type={"bfloat16": "BF16", "float16": "F16"}[q_BxTxHxC.dtype.name],
            dimensions=[str(n) for n in (batch, n_heads, length, length)],
            tuple_shapes=[],
            layout=dict(
                dim_level_types=[],
                dim_unique=[],
                dim_ordered=[],
                minor_to_major=["3", "2", "1", "0"],
                tiles=[],
                element_size_in_bits="0",
                memory_space="0",
                index_primitive_type="PRIMITIVE_TYPE_INVALID",
                pointer_primitive_type="PRIMITIVE_TYPE_INVALID",
                dynamic_shape_metadata_prefix_bytes="0",
            ),
            is_dynamic_dimension=[False] * 4,
        ),
        is_flash_attention=True,
        mask_type="PADDING_CAUSAL",
        dropout_rate=0.0,
        seed=42,
        sliding_window_length=0,
        max_seg_per_batch=SLOTS,
        is_paged_attention=False,
        **{f"{name}_dot_dimension_numbers": _dimensions(*product) for name, product in products.items()},
    )
    return jax.ffi.ffi_call(
        target,
        results,
        output_layouts=[(0, 2, 1, 3) if i < n_heads_first else None for i in range(len(results))],
        custom_call_api_version=2,
        legacy_backend_config=json.dumps(dict(operation_queue_id="0", cudnn_fmha_backend_config=config)),
    )


# (contracted axis of the left side, of the right side, heads of the left side, of the right side), with queries and
# keys as [B, T, H, C] and scores as [B, H, T, S].
_FORWARD = {"bmm1": (3, 3, 2, 2), "bmm2": (3, 1, 1, 2)}
_BACKWARD = {
    "bmm1_grad_gemm1": (2, 1, 1, 2),
    "bmm1_grad_gemm2": (3, 1, 1, 2),
    "bmm2_grad_gemm1": (2, 1, 1, 2),
    "bmm2_grad_gemm2": (3, 3, 2, 2),
}


def _dimensions(left: int, right: int, left_heads: int, right_heads: int) -> dict[str, list[str]]:
    return dict(
        lhs_contracting_dimensions=[str(left)],
        rhs_contracting_dimensions=[str(right)],
        lhs_batch_dimensions=["0", str(left_heads)],
        rhs_batch_dimensions=["0", str(right_heads)],
    )
