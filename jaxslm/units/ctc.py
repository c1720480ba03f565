"""CTC forced alignment: the most probable path of a token sequence through frame log-probabilities, by Viterbi.

Graves et al. 2006 (CTC); the task of `torchaudio.functional.forced_align` (Kürzinger et al. 2020, CTC segmentation).

S tokens make 2 S + 1 states: the tokens, and a blank before, between and behind them. They are kept as two rows of
S + 1: token s, and the blank before token s (the last token is padding, behind the last blank). A path stays in its
state or moves on by one; from token to token the blank may be left out, unless both are the same.

Shape letters: B batch, T frames, V labels, S tokens, L states of either kind (S + 1).
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from jaxslm.units.words import AlignmentError

_BATCH = 16
_STAR_COST = 0.1  # nats a frame
_BACKPOINTERS = 2**26  # bytes of them a call: one for each utterance, frame and token
_MOST_BACKPOINTERS = 2**32  # bytes of them for one utterance: half an hour of speech with its text
_MIN_FRAMES, _MIN_TOKENS = 64, 32  # shorter ones are padded up to these


@dataclass(frozen=True)
class CtcAlignment:
    """The best path of one utterance.

    Attributes:
      spans_Sx2: first frame of each token, and the frame after its last.
      scores_S: mean log-probability of each token over its frames.
      score: log-probability of the whole path, blanks included.
    """

    spans_Sx2: np.ndarray
    scores_S: np.ndarray
    score: float


def forced_align(
    log_probs: Sequence[np.ndarray], tokens: Sequence[Sequence[int]], *, blank: int
) -> list[CtcAlignment | AlignmentError]:
    """Aligns utterances in padded batches; the result of each is the same in any company, and in the order given.

    Args:
      log_probs: float32 [T, V] of each utterance, normalised or not.
      tokens: label ids of each utterance, without blanks.
    Returns:
      An AlignmentError in the place of an utterance without tokens, of which the tokens need more frames than there
      are, that is too long to be aligned at once, or whose log-probabilities allow no path.
    Raises:
      ValueError: ids outside the labels, the blank among the tokens, or log-probabilities that are NaN.
    """
    results: list = [None] * len(tokens)
    for i, (log_probs_TxV, ids) in enumerate(zip(log_probs, tokens, strict=True)):
        _check(log_probs_TxV, ids, blank)
        if not len(ids):
            results[i] = AlignmentError("there is no token to align")
        elif (needed := frames_needed(ids)) > len(log_probs_TxV):
            results[i] = AlignmentError(
                f"the text needs {needed} frames, the audio has {len(log_probs_TxV)}; check that they belong together"
            )
        elif (
            size := _bucket(len(log_probs_TxV), _MIN_FRAMES) * _bucket(len(ids) + 1, _MIN_TOKENS)
        ) > _MOST_BACKPOINTERS:
            results[i] = AlignmentError(
                f"{len(log_probs_TxV)} frames with {len(ids)} letters would take {size / 2**30:.1f} GiB, more than the "
                f"{_MOST_BACKPOINTERS >> 30} for one clip; give word times, or cut the audio and its text"
            )
    waiting = [i for i, result in enumerate(results) if result is None]
    waiting.sort(key=lambda i: (_bucket(len(log_probs[i]), _MIN_FRAMES), len(tokens[i])))
    while waiting:
        n_frames = _bucket(len(log_probs[waiting[0]]), _MIN_FRAMES)
        alike = [i for i in waiting if _bucket(len(log_probs[i]), _MIN_FRAMES) == n_frames][:_BATCH]
        n_tokens = _bucket(max(len(tokens[i]) for i in alike) + 1, _MIN_TOKENS)
        size = max(1, min(_BATCH, _BACKPOINTERS // (n_frames * n_tokens)))
        batch = alike[:size]
        size = size if len(batch) > 1 else 1  # two programs a bucket: a lone utterance, and a full batch
        found = _align_batch([log_probs[i] for i in batch], [tokens[i] for i in batch], blank, size, n_frames, n_tokens)
        for i, result in zip(batch, found, strict=True):
            results[i] = result
        waiting = waiting[len(batch) :]
    return results


def frames_needed(tokens: Sequence[int]) -> int:
    """The fewest frames the tokens fit into: one each, and a blank between equal neighbours."""
    ids_S = np.asarray(tokens)
    return len(ids_S) + int((ids_S[1:] == ids_S[:-1]).sum())


def with_star(log_probs_TxV: np.ndarray) -> np.ndarray:
    """Adds a label V, the star, that stands for any speech: [T, V + 1], at each frame a little less probable than the
    best label.

    So a star costs the same wherever the model is sure, and pauses beside it stay with the blank. (MMS gives its star
    the log-probability 0, which takes frames from its neighbours; the best label but the blank leaves it on one peak.)
    """
    return np.append(log_probs_TxV, log_probs_TxV.max(axis=1, keepdims=True) - np.float32(_STAR_COST), axis=1)


def _check(log_probs_TxV: np.ndarray, tokens: Sequence[int], blank: int) -> None:
    n_labels = log_probs_TxV.shape[1]
    if not 0 <= blank < n_labels:
        raise ValueError(f"the blank is {blank}, and there are {n_labels} labels: give its id")
    ids_S = np.asarray(tokens, np.int64)
    if ids_S.size and not (0 <= ids_S.min() and ids_S.max() < n_labels):
        raise ValueError(f"tokens from {ids_S.min()} to {ids_S.max()} and {n_labels} labels: they are of another model")
    if (ids_S == blank).any():
        raise ValueError(f"the blank ({blank}) is among the tokens: leave it out, the aligner puts it in")
    if np.isnan(log_probs_TxV).any():
        raise ValueError("log-probabilities are NaN: check the model")


def _bucket(n: int, least: int) -> int:
    """The next of least times 1, 1.5, 2, 3, 4, 6, ...: few lengths to compile for."""
    size = least
    while size < n:
        size = size * 3 // 2 if size & (size - 1) == 0 else size * 4 // 3
    return size


def _align_batch(
    log_probs: list[np.ndarray], tokens: list[Sequence[int]], blank: int, size: int, n_frames: int, n_tokens: int
) -> list[CtcAlignment | AlignmentError]:
    log_probs_BxTxV = np.zeros((size, n_frames, log_probs[0].shape[1]), np.float32)
    tokens_BxL = np.zeros((size, n_tokens), np.int32)
    frames_B, lengths_B = np.ones((2, size), np.int32)
    for i, (log_probs_TxV, ids) in enumerate(zip(log_probs, tokens, strict=True)):
        frames_B[i], lengths_B[i] = len(log_probs_TxV), len(ids)
        log_probs_BxTxV[i, : len(log_probs_TxV)] = log_probs_TxV
        tokens_BxL[i, : len(ids)] = ids
    paths_BxT, scores_B = jax.device_get(viterbi(log_probs_BxTxV, frames_B, tokens_BxL, lengths_B, blank=blank))
    return [
        _spans(path_T[: len(log_probs_TxV)], log_probs_TxV, ids, float(score))
        for path_T, log_probs_TxV, ids, score in zip(paths_BxT, log_probs, tokens, scores_B, strict=False)
    ]


def _spans(path_T: np.ndarray, log_probs_TxV: np.ndarray, tokens: Sequence[int], score: float):
    if not np.isfinite(score):
        return AlignmentError("the model gives the text no probability; check that text and audio belong together")
    at_F = np.flatnonzero(path_T >= 0)
    token_F = path_T[at_F]
    starts = np.searchsorted(token_F, np.arange(len(tokens)))
    ends = np.append(starts[1:], len(token_F))
    spans_Sx2 = np.stack([at_F[starts], at_F[ends - 1] + 1], axis=1)
    sums_S = np.add.reduceat(log_probs_TxV[at_F, np.asarray(tokens)[token_F]], starts)
    return CtcAlignment(spans_Sx2, sums_S / (ends - starts), score)


@functools.partial(jax.jit, static_argnames="blank")
def viterbi(
    log_probs_BxTxV: jax.Array, frames_B: jax.Array, tokens_BxL: jax.Array, lengths_B: jax.Array, *, blank: int
) -> tuple[jax.Array, jax.Array]:
    """The best paths, int32 [B, T]: the number of the token at each frame, -1 for a blank or padding; and their scores.

    Args:
      tokens_BxL: with at least one id of padding behind each utterance's tokens.
      frames_B, lengths_B: how many frames and tokens of each are real, at least one each.

    The score is -inf, and the path without meaning, where the frames are too few.
    """
    impossible_Bx1 = jnp.full((len(tokens_BxL), 1), -jnp.inf)
    repeats_BxL = jnp.pad(tokens_BxL[:, 1:] == tokens_BxL[:, :-1], ((0, 0), (1, 0)))

    def step(carry, inputs):
        token_BxL, blank_BxL = carry
        t, log_probs_BxV = inputs
        before_BxL = jnp.concatenate([impossible_Bx1, token_BxL[:, :-1]], axis=1)
        direct_BxL = jnp.where(repeats_BxL, -jnp.inf, before_BxL)
        best_BxL = jnp.maximum(jnp.maximum(token_BxL, blank_BxL), direct_BxL)
        # Two bits say where a token is reached from (itself, its blank, the token before), a third where its blank is.
        from_BxL = jnp.where(best_BxL == token_BxL, 0, jnp.where(best_BxL == blank_BxL, 1, 2))
        from_BxL += 4 * (before_BxL > blank_BxL)
        emitted_BxL = jnp.take_along_axis(log_probs_BxV, tokens_BxL, axis=1)
        new = best_BxL + emitted_BxL, jnp.maximum(blank_BxL, before_BxL) + log_probs_BxV[:, blank, None]
        real_Bx1 = (t < frames_B)[:, None]
        carry = tuple(jnp.where(real_Bx1, after, ahead) for after, ahead in zip(new, carry, strict=True))
        return carry, from_BxL.astype(jnp.uint8)

    nowhere_BxL = jnp.full(tokens_BxL.shape, -jnp.inf)
    start = nowhere_BxL, nowhere_BxL.at[:, 0].set(0.0)  # ahead of the first frame: in the first blank
    times_T = jnp.arange(log_probs_BxTxV.shape[1])
    (token_BxL, blank_BxL), from_TxBxL = jax.lax.scan(step, start, (times_T, log_probs_BxTxV.swapaxes(0, 1)))
    last_token_B = jnp.take_along_axis(token_BxL, lengths_B[:, None] - 1, axis=1)[:, 0]
    last_blank_B = jnp.take_along_axis(blank_BxL, lengths_B[:, None], axis=1)[:, 0]

    def back(carry, inputs):
        at_B, in_token_B = carry
        t, from_BxL = inputs
        came_B = jnp.take_along_axis(from_BxL, at_B[:, None], axis=1)[:, 0]
        real_B = t < frames_B
        shown_B = jnp.where(real_B & in_token_B, at_B, -1)
        by_token_B = jnp.where(in_token_B, came_B & 3 == 2, came_B >= 4)  # from the token before
        stays_B = jnp.where(in_token_B, came_B & 3 == 0, came_B < 4)
        was_in_token_B = jnp.where(stays_B, in_token_B, by_token_B)
        moved = jnp.where(real_B, at_B - by_token_B, at_B), jnp.where(real_B, was_in_token_B, in_token_B)
        return moved, shown_B

    ends_in_token_B = last_token_B >= last_blank_B
    end = lengths_B - ends_in_token_B, ends_in_token_B
    _, paths_TxB = jax.lax.scan(back, end, (times_T, from_TxBxL), reverse=True)
    return paths_TxB.swapaxes(0, 1), jnp.maximum(last_token_B, last_blank_B)
