"""Autoregressive sampling with a key/value cache: one prefill, then one jitted decode loop.

Shape suffixes: B batch, P prompt, N new tokens, V vocabulary (padded), C candidate ids, K ids of one block, D model,
R steps after which the allowed ids repeat.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import multihost_utils

from jaxslm.generation.steps import step, take_apart
from jaxslm.models.decoder import Decoder, init_cache
from jaxslm.row_keys import keys_of

PROMPT_MULTIPLE = 32  # prompts are padded to a multiple of this, so that few lengths are ever compiled
BLOCK = 128  # ids a block of `draw`
UNUSED = -1  # what follows the end of a row


@dataclass(frozen=True)
class Sampling:
    """How the next token is drawn. `temperature=0` is greedy; `top_k=0`, `top_p=1`, `repetition_penalty=1`: off."""

    max_new_tokens: int = 100
    temperature: float = 0.8
    top_k: int = 0
    top_p: float = 0.95
    repetition_penalty: float = 1.0

    def __post_init__(self):
        checks = {
            "max_new_tokens": (self.max_new_tokens >= 1, "at least 1"),
            "temperature": (0 <= self.temperature < float("inf"), "0 (greedy) or a positive number"),
            "top_k": (self.top_k >= 0, "0 (off) or positive"),
            "top_p": (0 < self.top_p <= 1, "above 0 and at most 1 (off)"),
            "repetition_penalty": (0 < self.repetition_penalty < float("inf"), "above 0 (1 is off)"),
        }
        for name, (fine, cure) in checks.items():
            if not fine:
                raise ValueError(f"sampling {name}={getattr(self, name)}: it must be {cure}")


def generate(
    model: Decoder,
    prompt_BxP: np.ndarray,
    prompt_mask_BxP: np.ndarray,
    key: jax.Array,
    sampling: Sampling,
    *,
    allowed_V: np.ndarray,
    stop_ids: Sequence[int],
) -> tuple[np.ndarray, np.ndarray]:
    """Continues every prompt until a stop id or `max_new_tokens`.

    Args:
      prompt_BxP: int ids; padding may stand on either side, `prompt_mask_BxP` is True at the real tokens.
      key: one key, of which row b uses `fold_in(key, b)`; or B keys, one a row. With its own key a row gives the same
        tokens alone as in any batch.
      allowed_V: bool mask of the ids that may be drawn. No other id is ever returned, and the output projection
        and the softmax are computed for these ids alone. Or [R, V], where what is allowed depends on the step: row
        n mod R is for step n.
      stop_ids: ids that end a row; they are drawn only if `allowed_V` has them.

    Returns:
      (tokens_BxN, lengths_B), int32: row b is `tokens[b, :lengths[b]]`; then the stop id, if one was drawn, and -1.

    Raises:
      ValueError: arguments that do not fit, or a model whose logits are not finite; nothing is drawn from those.
    """
    prompt_BxP, prompt_mask_BxP = np.asarray(prompt_BxP, np.int32), np.asarray(prompt_mask_BxP, bool)
    allowed_RxV = np.atleast_2d(np.asarray(allowed_V, bool))
    _check(prompt_BxP, prompt_mask_BxP, allowed_RxV, model.config.vocab_size)
    keys_B = keys_of(key, len(prompt_BxP))
    # Left, right and holed padding all become right padding: the same numbers, whichever way the caller padded.
    order_BxP = np.argsort(~prompt_mask_BxP, axis=1, kind="stable")
    lengths_B = prompt_mask_BxP.sum(axis=1).astype(np.int32)
    width = -(-lengths_B.max() // PROMPT_MULTIPLE) * PROMPT_MULTIPLE
    prompt_BxP = np.where(prompt_mask_BxP, prompt_BxP, 0)  # padding ids may lie outside the vocabulary
    prompt_BxP = np.take_along_axis(prompt_BxP, order_BxP, axis=1)[:, : lengths_B.max()]
    prompt_BxP = np.pad(prompt_BxP, ((0, 0), (0, width - prompt_BxP.shape[1])))
    candidates_C = np.flatnonzero(allowed_RxV.any(axis=0)).astype(np.int32)
    allowed_RxC = allowed_RxV[:, candidates_C]
    stop_C = np.isin(candidates_C, np.asarray(stop_ids, np.int32))
    tokens_BxN, new_B, finite_B = _decode(
        model, prompt_BxP, lengths_B, keys_B, candidates_C, None if allowed_RxC.all() else allowed_RxC, stop_C, sampling
    )
    if not _to_host(finite_B).all():
        raise ValueError(
            "the model gives logits that are not finite, from which nothing can be drawn: its parameters overflowed in "
            "training, or model.dtype is too small for them; take an earlier checkpoint"
        )
    return _to_host(tokens_BxN), _to_host(new_B)


def _check(prompt_BxP: np.ndarray, mask_BxP: np.ndarray, allowed_RxV: np.ndarray, n_ids: int) -> None:
    if prompt_BxP.ndim != 2 or prompt_BxP.shape != mask_BxP.shape:
        raise ValueError(f"prompt {prompt_BxP.shape} and prompt mask {mask_BxP.shape} must be one [B, P] shape")
    if not mask_BxP.any(axis=1).all():
        raise ValueError("a prompt row has no tokens: begin it with the beginning-of-sequence id")
    real = prompt_BxP[mask_BxP]
    if real.min() < 0 or real.max() >= n_ids:
        raise ValueError(f"prompt ids run from {real.min()} to {real.max()}: the model has {n_ids}")
    if allowed_RxV.shape != (len(allowed_RxV), n_ids) or not (allowed_RxV.any(axis=1)).all():
        raise ValueError(f"allowed_V has shape {allowed_RxV.shape}: it must mark some of {n_ids} ids")


def _to_host(x: jax.Array) -> np.ndarray:
    """The whole array on every process, also where the model is spread over several."""
    return np.asarray(x if x.is_fully_addressable else multihost_utils.process_allgather(x, tiled=True))


@partial(jax.jit, static_argnames="sampling")
def _decode(
    model, prompt_BxP, lengths_B, keys_B, candidates_C, allowed_RxC, stop_C, sampling
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Prefill and decode loop of `generate`; prompts are padded on the right, and `allowed_RxC` is None where it allows
    all. Gives also whether the logits of each row were finite; a row stops where they are not.
    """
    (B, P), N = prompt_BxP.shape, sampling.max_new_tokens
    rows_B = jnp.arange(B)
    unembedding_DxC = model.unembedding()[:, candidates_C].astype(model.config.dtype)
    real_BxP = jnp.arange(P) < lengths_B[:, None]
    seen_BxV = jnp.zeros((B, model.config.vocab_size), bool).at[rows_B[:, None], prompt_BxP].max(real_BxP)

    def draw_next(hidden_BxD, column, seen_BxC) -> tuple[jax.Array, jax.Array]:
        logits_BxC = jnp.dot(hidden_BxD, unembedding_DxC, preferred_element_type=jnp.float32)
        allowed_C = None if allowed_RxC is None else allowed_RxC[column % len(allowed_RxC)]
        return _choose(logits_BxC, allowed_C, seen_BxC, keys_B, column, sampling)

    def write(state: dict[str, Any], choice_B, finite_B) -> dict[str, Any]:
        """Puts the tokens drawn down in column `step`; rows that had stopped before stay as they are."""
        running_B = ~state["stopped"]
        token_B = jnp.where(running_B, candidates_C[choice_B], UNUSED)
        stopped_B = state["stopped"] | stop_C[choice_B] | ~finite_B
        return state | {
            "finite": state["finite"] & (finite_B | ~running_B),
            "tokens": lax.dynamic_update_index_in_dim(state["tokens"], token_B, state["step"], axis=1),
            "lengths": state["lengths"] + (running_B & ~stopped_B),
            "stopped": stopped_B,
            "seen": state["seen"].at[rows_B, choice_B].set(True),
            "last": candidates_C[choice_B],
            "step": state["step"] + 1,
        }

    def body(state: dict[str, Any]) -> dict[str, Any]:
        hidden_BxD, caches = step(model, blocks, state["caches"], state["last"], lengths_B + state["step"] - 1)
        return write(state | {"caches": caches}, *draw_next(hidden_BxD, state["step"], state["seen"]))

    hidden_BxPxD, cache = model(
        prompt_BxP,
        positions_BxT=jnp.broadcast_to(jnp.arange(P), (B, P)),
        segment_ids_BxT=real_BxP.astype(jnp.int32),
        cache=init_cache(model.config, B, P + N - 1),  # the last token drawn is never fed back
    )
    blocks, caches = take_apart(model, cache)
    state = {
        "tokens": jnp.full((B, N), UNUSED, jnp.int32),
        "lengths": jnp.zeros(B, jnp.int32),
        "stopped": jnp.zeros(B, bool),
        "finite": jnp.ones(B, bool),
        "seen": seen_BxV[:, candidates_C],
        "last": jnp.zeros(B, jnp.int32),
        "step": jnp.int32(0),
        "caches": caches,
    }
    state = write(state, *draw_next(hidden_BxPxD[rows_B, lengths_B - 1], 0, state["seen"]))
    state = lax.while_loop(lambda s: (s["step"] < N) & ~s["stopped"].all(), body, state)
    return state["tokens"], state["lengths"], state["finite"]


def _choose(logits_BxC, allowed_C, seen_BxC, keys_B, column, sampling) -> tuple[jax.Array, jax.Array]:
    """(index of the next token of each row, whether its logits were finite)."""
    finite_B = jnp.isfinite(logits_BxC).all(axis=-1)
    if allowed_C is not None:
        logits_BxC = jnp.where(allowed_C, logits_BxC, -jnp.inf)
    logits_BxC = process(logits_BxC, seen_BxC, sampling)
    if sampling.temperature == 0:
        return jax.vmap(highest)(logits_BxC), finite_B
    return jax.vmap(draw)(jax.vmap(jax.random.fold_in, (0, None))(keys_B, column), logits_BxC), finite_B


def process(logits_BxC: jax.Array, seen_BxC: jax.Array, sampling: Sampling) -> jax.Array:
    """Applies penalty, temperature, top-k and top-p, in the order of transformers; what is off costs nothing."""
    if sampling.repetition_penalty != 1:
        logits_BxC = penalize_repetition(logits_BxC, seen_BxC, sampling.repetition_penalty)
    if sampling.temperature == 0:
        return logits_BxC
    logits_BxC = logits_BxC / sampling.temperature
    if 0 < sampling.top_k < logits_BxC.shape[-1]:
        logits_BxC = keep_top_k(logits_BxC, sampling.top_k)
    if sampling.top_p < 1:
        logits_BxC = keep_top_p(logits_BxC, sampling.top_p)
    return logits_BxC


def penalize_repetition(logits_BxC: jax.Array, seen_BxC: jax.Array, penalty: float) -> jax.Array:
    """Makes ids already in the prompt or the answer less likely (CTRL, Keskar et al. 2019, section 4.1)."""
    penalized_BxC = jnp.where(logits_BxC < 0, logits_BxC * penalty, logits_BxC / penalty)
    return jnp.where(seen_BxC, penalized_BxC, logits_BxC)


def keep_top_k(logits_BxC: jax.Array, k: int) -> jax.Array:
    """Sets all but the k largest logits to -inf; ties with the k-th are kept."""
    return _keep_while(logits_BxC, jnp.ones_like(logits_BxC), k)


def keep_top_p(logits_BxC: jax.Array, p: float) -> jax.Array:
    """Keeps the fewest most likely ids whose probabilities sum to at least p (nucleus; Holtzman et al. 2020); the rest
    become -inf. Ids tied with the last one kept are kept."""
    return _keep_while(logits_BxC, jax.nn.softmax(logits_BxC, axis=-1), p)


def _keep_while(logits_BxC: jax.Array, weights_BxC: jax.Array, limit: float) -> jax.Array:
    """Keeps each logit above which less than `limit` of weight lies; the others become -inf.

    The lowest logit kept is found by bisection over the bits of a float, exactly and in 32 sums: on a CPU this is
    some 15 times faster than sorting a vocabulary of 32,000.
    """
    bits_BxC = lax.bitcast_convert_type(logits_BxC, jnp.int32)
    ranks_BxC = jnp.where(bits_BxC < 0, -(bits_BxC & 0x7FFFFFFF), bits_BxC)  # ints in the order of the floats; -0 is 0

    def halve(_, bounds):
        low_Bx1, high_Bx1 = bounds  # too much weight lies above rank `low`, little enough above rank `high`
        middle_Bx1 = (low_Bx1 >> 1) + (high_Bx1 >> 1) + (low_Bx1 & high_Bx1 & 1)  # the mean, without overflow
        above_Bx1 = jnp.where(ranks_BxC > middle_Bx1, weights_BxC, 0).sum(axis=-1, keepdims=True)
        enough_Bx1 = above_Bx1 < limit
        return jnp.where(enough_Bx1, low_Bx1, middle_Bx1), jnp.where(enough_Bx1, middle_Bx1, high_Bx1)

    bounds = ranks_BxC.min(axis=-1, keepdims=True) - 1, ranks_BxC.max(axis=-1, keepdims=True)
    _, threshold_Bx1 = lax.fori_loop(0, 32, halve, bounds)
    return jnp.where(ranks_BxC >= threshold_Bx1, logits_BxC, -jnp.inf)


def _blocks(logits_C: jax.Array) -> jax.Array:
    """[N, K] logits, padded with -inf."""
    return jnp.pad(logits_C, (0, -len(logits_C) % BLOCK), constant_values=-jnp.inf).reshape(-1, BLOCK)


def highest(logits_C: jax.Array) -> jax.Array:
    """argmax, the first of equals: first the block, by a maximum, which a CPU computes in a tenth of an argmax's time,
    then the id in the block."""
    blocks_NxK = _blocks(logits_C)
    block = blocks_NxK.max(axis=-1).argmax()
    return block * BLOCK + blocks_NxK[block].argmax()


def draw(key: jax.Array, logits_C: jax.Array) -> jax.Array:
    """Draws one index from softmax(logits): first a block of ids by its total probability, then an id of the block,
    which takes a few hundred random numbers, where Gumbel noise on a whole vocabulary takes tens of thousands."""
    blocks_NxK = _blocks(logits_C)
    block_key, id_key = jax.random.split(key)
    block = jax.random.categorical(block_key, jax.nn.logsumexp(blocks_NxK, axis=-1))
    return block * BLOCK + jax.random.categorical(id_key, blocks_NxK[block])
