"""Cross-entropy over a large vocabulary without ever holding the logits of the whole batch.

Legend: B batch, T time, D model, V vocabulary (padded), O objectives, C chunks, S = T / C positions of a chunk.
"""

from functools import partial

import jax
import jax.numpy as jnp

from jaxslm.sharding import Constrain, no_constraint


@jax.named_scope("loss")
def chunked_cross_entropy(
    hidden_BxTxD: jax.Array,
    unembedding_DxV: jax.Array,
    targets_BxT: jax.Array,
    weights_BxT: jax.Array,
    objective_BxT: jax.Array,
    *,
    n_objectives: int,
    vocab_size: int,
    n_chunks: int = 8,
    z_loss: float = 0.0,
    constrain: Constrain = no_constraint,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Weighted next-token loss summed over tokens, and its parts by objective.

    Float32 logits exist for T / n_chunks positions of each row at a time. Ids from `vocab_size` on are padding of the
    unembedding and take no probability. If `n_chunks` does not divide T the next larger number that does is used.

    Returns:
      total: float32 scalar to differentiate with respect to `hidden` and `unembedding`: the sum of
        weights * (nll + z_loss * logsumexp ** 2). Divide by the summed weights to get the mean; the sum is what adds
        up over micro-batches and devices.
      sums: {"nll_O", "weight_O"}: float32 [n_objectives], sums of weights * nll and of weights; not differentiable.
    """
    length = targets_BxT.shape[1]
    n_chunks = next(n for n in range(min(n_chunks, length), length + 1) if length % n == 0)

    # Chunk c takes positions c, c + C, c + 2C, ... of every row: a batch or length axis sharded over devices stays
    # sharded inside the chunk, where a contiguous cut would leave all but one device idle.
    def cut(x):
        return jnp.moveaxis(x.reshape(x.shape[0], length // n_chunks, n_chunks, *x.shape[2:]), 2, 0)

    hidden, targets, weights, objective = map(cut, (hidden_BxTxD, targets_BxT, weights_BxT, objective_BxT))
    weights = jax.lax.stop_gradient(weights.astype(jnp.float32))
    hidden = constrain(hidden, None, "batch", "length", None)
    unembedding_DxV = constrain(unembedding_DxV, None, "vocab")  # gathered once, not once a chunk
    total, nll = _summed_loss(vocab_size, z_loss, hidden, unembedding_DxV, targets, weights)

    def by_objective(x):
        return jax.ops.segment_sum(x.ravel(), objective.ravel(), n_objectives)

    # A weight of 0 silences even a token whose loss is not finite.
    weighted_nll = jnp.where(weights > 0, weights * jax.lax.stop_gradient(nll), 0.0)
    return total, {"nll_O": by_objective(weighted_nll), "weight_O": by_objective(weights)}


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _summed_loss(vocab_size, z_loss, hidden_CxBxSxD, unembedding_DxV, targets_CxBxS, weights_CxBxS):
    """(total, nll [C, B, S]). Only `total` is differentiable.

    The loss is the last step of the model, so its gradient is known up to one factor as soon as a chunk's logits are:
    computing it there and then costs three matrix products a chunk, where recomputing the logits later costs four.
    """

    def chunk_loss(total, chunk):
        hidden, targets, weights = chunk
        nll, loss, _ = _chunk(vocab_size, z_loss, hidden, unembedding_DxV, targets, weights)
        return total + loss, nll

    return jax.lax.scan(chunk_loss, jnp.zeros(()), (hidden_CxBxSxD, targets_CxBxS, weights_CxBxS))


def _summed_loss_forward(vocab_size, z_loss, hidden_CxBxSxD, unembedding_DxV, targets_CxBxS, weights_CxBxS):
    def chunk_gradient(carry, chunk):
        total, d_unembedding_DxV = carry
        hidden, targets, weights = chunk
        nll, loss, d_logits = _chunk(vocab_size, z_loss, hidden, unembedding_DxV, targets, weights)
        d_logits = d_logits.astype(hidden.dtype)
        d_hidden = jnp.einsum("bsv,dv->bsd", d_logits, unembedding_DxV.astype(hidden.dtype))
        d_unembedding_DxV += jnp.einsum("bsd,bsv->dv", hidden, d_logits, preferred_element_type=jnp.float32)
        return (total + loss, d_unembedding_DxV), (nll, d_hidden)

    start = (jnp.zeros(()), jnp.zeros(unembedding_DxV.shape, jnp.float32))
    chunks = (hidden_CxBxSxD, targets_CxBxS, weights_CxBxS)
    (total, d_unembedding_DxV), (nll, d_hidden) = jax.lax.scan(chunk_gradient, start, chunks)
    return (total, nll), (d_hidden, d_unembedding_DxV.astype(unembedding_DxV.dtype))


def _summed_loss_backward(vocab_size, z_loss, gradients, cotangents):
    factor, _ = cotangents
    d_hidden, d_unembedding = (factor.astype(g.dtype) * g for g in gradients)
    return d_hidden, d_unembedding, None, None


_summed_loss.defvjp(_summed_loss_forward, _summed_loss_backward)


def _chunk(vocab_size, z_loss, hidden_BxSxD, unembedding_DxV, targets_BxS, weights_BxS):
    """nll [B, S], the summed weighted loss, and its gradient with respect to the logits; all float32."""
    logits = jnp.dot(hidden_BxSxD, unembedding_DxV.astype(hidden_BxSxD.dtype), preferred_element_type=jnp.float32)
    ids_V = jnp.arange(logits.shape[-1])
    if vocab_size < logits.shape[-1]:
        logits = jnp.where(ids_V < vocab_size, logits, jnp.finfo(jnp.float32).min)
    lse = jax.nn.logsumexp(logits, axis=-1)
    nll = lse - jnp.take_along_axis(logits, targets_BxS[..., None], axis=-1)[..., 0]
    loss = jnp.sum(jnp.where(weights_BxS > 0, weights_BxS * (nll + z_loss * lse**2), 0.0))
    # d loss / d logits = weight * ((1 + 2 z lse) softmax - one_hot(target))
    softmax_factor = (weights_BxS * (1 + 2 * z_loss * lse))[..., None]
    is_target = ids_V == targets_BxS[..., None]
    d_logits = softmax_factor * jnp.exp(logits - lse[..., None]) - jnp.where(is_target, weights_BxS[..., None], 0.0)
    return nll, loss, jnp.where(weights_BxS[..., None] > 0, d_logits, 0.0)
