"""What cuDNN does with packed sequences, as its documentation has it, by numpy in float64.

Legend: B batch, T length, H query heads, K key heads, C head dimension, A sequences of a call.
"""

import jax
import jax.numpy as jnp
import numpy as np


def forward(q, k, v, *operands):
    """(context [B, T, H, C], log of the softmax's normalisers [A, H, T] float32), NaN where no sequence lies."""
    shapes = q, jax.ShapeDtypeStruct((operands[0].size, q.shape[2], q.shape[1]), jnp.float32)
    return jax.pure_callback(_forward, shapes, q, k, v, *operands)


def backward(q, k, v, stats_AxHxT, d_context, context, *operands):
    """Gradients of q, k and v, NaN where no sequence lies."""
    return jax.pure_callback(_backward, (q, k, v), q, k, v, stats_AxHxT, d_context, context, *operands)


def _sequences(x, lengths, offsets):
    """For each sequence a view [length, heads, C] into the buffer of x [B, T, heads, C] from its element on."""
    flat, token = x.reshape(-1), x.shape[2] * x.shape[3]
    starts, lengths = offsets.reshape(-1)[: lengths.size], lengths.reshape(-1)
    assert np.all(starts + lengths * token <= flat.size) and np.all(starts % token == 0)
    return [flat[s : s + n * token].reshape(n, *x.shape[2:]) for s, n in zip(starts, lengths, strict=True)]


def _weights(q, k, log_total=None):
    """exp(scores - log_total) [H, n, n] below the diagonal, and log_total [H, n], of q [n, H, C] and k [n, H, C]."""
    scores = np.einsum("thc,shc->hts", q, k) / np.sqrt(q.shape[-1])
    scores = np.where(np.tri(len(q), dtype=bool), scores, -np.inf)
    if log_total is None:
        log_total = np.log(np.exp(scores).sum(-1))
    return np.exp(scores - log_total[..., None]), log_total


def _float64(*arrays):
    return [np.asarray(x).astype(np.float64) for x in arrays]


def _forward(q, k, v, q_lengths, kv_lengths, q_offsets, kv_offsets):
    dtype, n_sequences = q.dtype, q_lengths.size
    q, k, v = _float64(q, k, v)
    context, stats = np.full(q.shape, np.nan), np.full((n_sequences, q.shape[2], q.shape[1]), np.nan)
    q_of, k_of = np.array(q_lengths), np.array(kv_lengths)
    views = [_sequences(x, q_of, np.array(q_offsets)) for x in (q, context)]
    views += [_sequences(x, k_of, np.array(kv_offsets)) for x in (k, v)]
    for i, (q_i, context_i, k_i, v_i) in enumerate(zip(*views, strict=True)):
        if len(q_i):
            k_i, v_i = (x.repeat(q.shape[2] // k.shape[2], axis=1) for x in (k_i, v_i))
            weights, stats[i, :, : len(q_i)] = _weights(q_i, k_i)
            context_i[:] = np.einsum("hts,shc->thc", weights, v_i)
    return context.astype(dtype), stats.astype(np.float32)


def _backward(q, k, v, stats, d_context, context, q_lengths, kv_lengths, q_offsets, kv_offsets):
    dtype, group = q.dtype, q.shape[2] // k.shape[2]
    q, k, v, d_context, context, stats = _float64(q, k, v, d_context, context, stats)
    d_q, d_k, d_v = (np.full(x.shape, np.nan) for x in (q, k, v))
    q_of, k_of = np.array(q_lengths), np.array(kv_lengths)
    views = [_sequences(x, q_of, np.array(q_offsets)) for x in (q, context, d_context, d_q)]
    views += [_sequences(x, k_of, np.array(kv_offsets)) for x in (k, v, d_k, d_v)]
    for i, (q_i, context_i, d_context_i, d_q_i, k_i, v_i, d_k_i, d_v_i) in enumerate(zip(*views, strict=True)):
        n = len(q_i)
        if n:
            wide_k, wide_v = k_i.repeat(group, axis=1), v_i.repeat(group, axis=1)
            weights, _ = _weights(q_i, wide_k, stats[i, :, :n])
            d_weights = np.einsum("thc,shc->hts", d_context_i, wide_v)
            mean = np.einsum("thc,thc->ht", d_context_i, context_i)[..., None]
            d_scores = weights * (d_weights - mean) / np.sqrt(q.shape[-1])
            d_q_i[:] = np.einsum("hts,shc->thc", d_scores, wide_k)
            d_k_i[:] = np.einsum("hts,thc->shc", d_scores, q_i).reshape(n, -1, group, q.shape[-1]).sum(2)
            d_v_i[:] = np.einsum("hts,thc->shc", weights, d_context_i).reshape(n, -1, group, q.shape[-1]).sum(2)
    return d_q.astype(dtype), d_k.astype(dtype), d_v.astype(dtype)
