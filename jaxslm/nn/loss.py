"""Cross-entropy over a large vocabulary without ever holding the logits of the whole batch.

Legend: B batch, T time, D model, V vocabulary (padded), O objectives, C chunks, S tokens of a chunk.
"""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

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

    Float32 logits exist for one in `n_chunks` of the tokens of a device at a time, and for its shard of the vocabulary
    alone. Ids from `vocab_size` on are padding of the unembedding and take no probability. If `n_chunks` does not
    divide the tokens of a device the next larger number that does is used.

    Returns:
      total: float32 scalar to differentiate with respect to `hidden` and `unembedding`: the sum of
        weights * (nll + z_loss * logsumexp ** 2). Divide by the summed weights to get the mean; the sum is what adds
        up over micro-batches and devices.
      sums: {"nll_O", "weight_O"}: float32 [n_objectives], sums of weights * nll and of weights; not differentiable.
    """
    weights_BxT = jax.lax.stop_gradient(weights_BxT.astype(jnp.float32))
    how = _Settings(vocab_size, z_loss, n_chunks)
    total, nll_BxT = _summed_loss(how, constrain, hidden_BxTxD, unembedding_DxV, targets_BxT, weights_BxT)

    def by_objective(x):
        return jax.ops.segment_sum(x.ravel(), objective_BxT.ravel(), n_objectives)

    # A weight of 0 silences even a token whose loss is not finite.
    weighted_nll = jnp.where(weights_BxT > 0, weights_BxT * jax.lax.stop_gradient(nll_BxT), 0.0)
    return total, {"nll_O": by_objective(weighted_nll), "weight_O": by_objective(weights_BxT)}


class _Settings(NamedTuple):
    vocab_size: int
    z_loss: float
    n_chunks: int


class _Axes(NamedTuple):
    """Mesh axes that divide the batch, the length, the vocabulary and the features of the unembedding."""

    batch: tuple[str, ...]
    length: tuple[str, ...]
    vocab: tuple[str, ...]
    embed: tuple[str, ...]

    @property
    def tokens(self) -> tuple[str, ...]:
        return self.batch + self.length


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _summed_loss(how, constrain, hidden_BxTxD, unembedding_DxV, targets_BxT, weights_BxT):
    """(total, nll [B, T]). Only `total` is differentiable.

    The loss is the last step of the model, so its gradient is known up to one factor as soon as a chunk's logits are:
    computing it there and then costs three matrix products a chunk, where recomputing the logits later costs four.
    """
    run = _per_device(_loss_of_shard, how, constrain, hidden_BxTxD, unembedding_DxV)
    return run(hidden_BxTxD, unembedding_DxV, targets_BxT, weights_BxT)


def _summed_loss_forward(how, constrain, hidden_BxTxD, unembedding_DxV, targets_BxT, weights_BxT):
    run = _per_device(_gradients_of_shard, how, constrain, hidden_BxTxD, unembedding_DxV)
    total, nll_BxT, *gradients = run(hidden_BxTxD, unembedding_DxV, targets_BxT, weights_BxT)
    return (total, nll_BxT), gradients


def _summed_loss_backward(how, constrain, gradients, cotangents):
    factor, _ = cotangents
    d_hidden, d_unembedding = (factor.astype(g.dtype) * g for g in gradients)
    return d_hidden, d_unembedding, None, None


_summed_loss.defvjp(_summed_loss_forward, _summed_loss_backward)


def _per_device(of_shard, how: _Settings, constrain: Constrain, hidden_BxTxD, unembedding_DxV):
    """`of_shard` on each device's tokens and part of the unembedding, the sums over devices written out: left to the
    compiler, the gradient of the unembedding would be summed over devices once a chunk, or lie whole on all of them."""
    batch, length, _ = constrain.mesh_axes(("batch", "length", None), hidden_BxTxD.shape)
    embed, vocab = constrain.mesh_axes(("embed", "vocab"), unembedding_DxV.shape)
    embed = tuple(axis for axis in embed if axis in batch + length)  # others divide nothing that is summed here
    vocab = tuple(axis for axis in vocab if axis not in batch + length)  # devices with other tokens cannot share these
    axes = _Axes(batch, length, vocab, embed)
    hidden, unembedding = PartitionSpec(batch, length, None), PartitionSpec(embed, vocab)
    tokens = PartitionSpec(batch, length)
    outputs = (PartitionSpec(), tokens, hidden, unembedding)
    return constrain.shard_map(
        partial(of_shard, how, axes),
        in_specs=(hidden, unembedding, tokens, tokens),
        out_specs=outputs if of_shard is _gradients_of_shard else outputs[:2],
    )


def _cut(how: _Settings, hidden_BxTxD, *others):
    """Tokens in chunks: hidden [C, S, D], others [C, S]."""
    n_tokens = math.prod(hidden_BxTxD.shape[:2])
    n_chunks = next(n for n in range(min(how.n_chunks, n_tokens), n_tokens + 1) if n_tokens % n == 0)
    return hidden_BxTxD.reshape(n_chunks, -1, hidden_BxTxD.shape[-1]), *(x.reshape(n_chunks, -1) for x in others)


def _gather(axes: _Axes, unembedding_DxV, dtype) -> jax.Array:
    whole = unembedding_DxV.astype(dtype)  # before it travels
    return jax.lax.all_gather(whole, axes.embed, axis=0, tiled=True) if axes.embed else whole


def _sum(x: jax.Array, axes: tuple[str, ...]) -> jax.Array:
    return jax.lax.psum(x, axes) if axes else x


def _loss_of_shard(how, axes, hidden_BxTxD, unembedding_DxV, targets_BxT, weights_BxT):
    unembedding_DxV = _gather(axes, unembedding_DxV, hidden_BxTxD.dtype)

    def chunk_loss(total, chunk):
        nll, loss, _ = _chunk(how, axes, unembedding_DxV, *chunk)
        return total + loss, nll

    chunks = _cut(how, hidden_BxTxD, targets_BxT, weights_BxT)
    total, nll_CxS = jax.lax.scan(chunk_loss, jnp.zeros(()), chunks)
    return _sum(total, axes.tokens), nll_CxS.reshape(targets_BxT.shape)


def _gradients_of_shard(how, axes, hidden_BxTxD, unembedding_DxV, targets_BxT, weights_BxT):
    whole_DxV = _gather(axes, unembedding_DxV, hidden_BxTxD.dtype)

    def chunk_gradient(carry, chunk):
        total, d_unembedding_DxV = carry
        nll, loss, d_logits = _chunk(how, axes, whole_DxV, *chunk)
        d_logits = d_logits.astype(whole_DxV.dtype)
        d_hidden = jnp.einsum("sv,dv->sd", d_logits, whole_DxV)
        d_unembedding_DxV += jnp.einsum("sd,sv->dv", chunk[0], d_logits, preferred_element_type=jnp.float32)
        return (total + loss, d_unembedding_DxV), (nll, d_hidden)

    start = (jnp.zeros(()), jnp.zeros(whole_DxV.shape, jnp.float32))
    chunks = _cut(how, hidden_BxTxD, targets_BxT, weights_BxT)
    (total, d_unembedding_DxV), (nll, d_hidden) = jax.lax.scan(chunk_gradient, start, chunks)
    d_unembedding_DxV = _sum(d_unembedding_DxV, tuple(axis for axis in axes.tokens if axis not in axes.embed))
    if axes.embed:
        d_unembedding_DxV = jax.lax.psum_scatter(d_unembedding_DxV, axes.embed, scatter_dimension=0, tiled=True)
    d_hidden = _sum(d_hidden.reshape(hidden_BxTxD.shape), axes.vocab)
    # Or the compiler would put the sum over devices off, and hold the gradient whole through the backward pass.
    d_hidden, d_unembedding_DxV = jax.lax.optimization_barrier((d_hidden, d_unembedding_DxV))
    return (
        _sum(total, axes.tokens),
        nll.reshape(targets_BxT.shape),
        d_hidden,
        d_unembedding_DxV.astype(unembedding_DxV.dtype),
    )


def _chunk(how: _Settings, axes: _Axes, unembedding_DxV, hidden_SxD, targets_S, weights_S):
    """nll [S], the summed weighted loss, and its gradient with respect to this shard of the logits; all float32."""
    logits = jnp.dot(hidden_SxD, unembedding_DxV, preferred_element_type=jnp.float32)
    ids_V = jnp.arange(logits.shape[-1])
    if axes.vocab:
        ids_V += jax.lax.axis_index(axes.vocab) * logits.shape[-1]
    logits = jnp.where(ids_V < how.vocab_size, logits, jnp.finfo(jnp.float32).min)
    highest = logits.max(axis=-1, keepdims=True)
    highest = jax.lax.pmax(highest, axes.vocab) if axes.vocab else highest
    lse = (highest + jnp.log(_sum(jnp.exp(logits - highest).sum(axis=-1, keepdims=True), axes.vocab)))[:, 0]
    is_target = ids_V == targets_S[:, None]
    nll = lse - _sum(jnp.where(is_target, logits, 0.0).sum(axis=-1), axes.vocab)
    loss = jnp.sum(jnp.where(weights_S > 0, weights_S * (nll + how.z_loss * lse**2), 0.0))
    # d loss / d logits = weight * ((1 + 2 z lse) softmax - one_hot(target))
    softmax_factor = (weights_S * (1 + 2 * how.z_loss * lse))[:, None]
    d_logits = softmax_factor * jnp.exp(logits - lse[:, None]) - jnp.where(is_target, weights_S[:, None], 0.0)
    return nll, loss, jnp.where(weights_S[:, None] > 0, d_logits, 0.0)
