"""Attention of encoders: every frame sees every real frame of its row.

Legend: B batch, T queries, S keys (= T), H heads, C head dimension, R = 2 S - 1 distances from a query to a key.
"""

import jax
import jax.numpy as jnp

QUERY_BLOCK = 512  # rows of more than twice as many frames hold the scores of this many queries at a time


def attend_bidirectional(
    q_BxTxHxC: jax.Array,
    k_BxSxHxC: jax.Array,
    v_BxSxHxC: jax.Array,
    visible_BxS: jax.Array,
    bias_RxH: jax.Array | None = None,
    gate_BxTxH: jax.Array | None = None,
) -> jax.Array:
    """Context [B, T, H, C] of scaled dot-product attention over the keys that are `visible`.

    bias_RxH: added to the scores by distance, key position minus query position, from -(S - 1) to S - 1.
    gate_BxTxH: multiplies the bias of each query (WavLM, Chen et al. 2022, section 3.1). Scores are float32.
    """
    n_keys = k_BxSxHxC.shape[1]
    q_BxTxHxC = q_BxTxHxC * q_BxTxHxC.shape[-1] ** -0.5

    def of_queries(block):
        q, gate, positions_T = block
        scores = jnp.einsum("bthc,bshc->bhts", q, k_BxSxHxC, preferred_element_type=jnp.float32)
        if bias_RxH is not None:
            distance_TxS = jnp.arange(n_keys)[None, :] - positions_T[:, None] + n_keys - 1
            bias_HxTxS = bias_RxH.T.astype(jnp.float32)[:, distance_TxS]
            scores += jnp.moveaxis(gate, 2, 1)[..., None].astype(jnp.float32) * bias_HxTxS
        scores = jnp.where(visible_BxS[:, None, None, :], scores, jnp.finfo(jnp.float32).min)
        weights = jax.nn.softmax(scores, axis=-1).astype(v_BxSxHxC.dtype)
        return jnp.einsum("bhts,bshc->bthc", weights, v_BxSxHxC)

    n_queries = q_BxTxHxC.shape[1]
    positions_T = jnp.arange(n_queries)
    if n_queries <= 2 * QUERY_BLOCK:
        return of_queries((q_BxTxHxC, gate_BxTxH, positions_T))

    def cut(x, axis):
        short = -n_queries % QUERY_BLOCK
        x = jnp.pad(x, [(0, short if a == axis else 0) for a in range(x.ndim)])
        x = x.reshape(*x.shape[:axis], -1, QUERY_BLOCK, *x.shape[axis + 1 :])
        return jnp.moveaxis(x, axis, 0)

    gates = None if gate_BxTxH is None else cut(gate_BxTxH, 1)
    context = jax.lax.map(of_queries, (cut(q_BxTxHxC, 1), gates, cut(positions_T, 0)))
    context = jnp.moveaxis(context, 0, 1)
    return context.reshape(context.shape[0], -1, *context.shape[3:])[:, :n_queries]
