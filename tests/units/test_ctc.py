import itertools
import re

import numpy as np
import pytest

from jaxslm.units import ctc
from jaxslm.units.ctc import CtcAlignment, forced_align, frames_needed, with_star
from jaxslm.units.words import AlignmentError


def log_probs(n_frames: int, n_labels: int, seed: int) -> np.ndarray:
    logits = np.random.default_rng(seed).normal(0, 2, (n_frames, n_labels))
    return (logits - np.log(np.exp(logits).sum(1, keepdims=True))).astype(np.float32)


def by_enumeration(log_probs_TxV: np.ndarray, tokens: list[int], blank: int) -> tuple[float, np.ndarray]:
    """Score and token spans of the best of all label sequences that collapse to the tokens, in float64."""
    best, n_frames = (-np.inf, None), len(log_probs_TxV)
    for labels in itertools.product(sorted({blank, *tokens}), repeat=n_frames):
        runs = [(label, len(list(run))) for label, run in itertools.groupby(labels)]
        if [label for label, _ in runs if label != blank] != tokens:
            continue
        score = float(log_probs_TxV.astype(np.float64)[np.arange(n_frames), labels].sum())
        if score > best[0]:
            ends = np.cumsum([length for _, length in runs])
            spans = [(end - n, end) for (label, n), end in zip(runs, ends, strict=True) if label != blank]
            best = score, np.array(spans)
    return best


@pytest.mark.parametrize("blank", [0, 3])
@pytest.mark.parametrize("tokens", [[1], [1, 2], [2, 2], [1, 1, 2], [2, 1, 2], [1, 1, 1]])
@pytest.mark.parametrize("n_frames", [5, 7])
def test_the_path_is_the_best_of_all(tokens, n_frames, blank):
    cases = [log_probs(n_frames, 4, seed) for seed in range(4)]
    for case, found in zip(cases, forced_align(cases, [tokens] * 4, blank=blank), strict=True):
        score, spans = by_enumeration(case, tokens, blank)
        np.testing.assert_allclose(found.score, score, rtol=1e-6)
        np.testing.assert_array_equal(found.spans_Sx2, spans)
        means = [case[first:end, token].mean() for token, (first, end) in zip(tokens, spans, strict=True)]
        np.testing.assert_allclose(found.scores_S, means, rtol=1e-5)


def by_loop(log_probs_TxV: np.ndarray, tokens: list[int], blank: int) -> tuple[float, np.ndarray]:
    """Score and frame labels by the textbook recursion over the 2 S + 1 states, in float64."""
    labels = [blank]
    for token in tokens:
        labels += [token, blank]
    log_probs_TxL = log_probs_TxV.astype(np.float64)[:, labels]
    n_frames, scores = len(log_probs_TxV), np.full(len(labels), -np.inf)
    scores[:2] = log_probs_TxL[0, :2]
    came = np.zeros((n_frames, len(labels)), int)
    for t in range(1, n_frames):
        before = scores.copy()
        for i, label in enumerate(labels):
            steps = [0, 1, 2] if i > 1 and label != blank and label != labels[i - 2] else [0, 1][: i + 1]
            came[t, i] = max(steps, key=lambda step: before[i - step])
            scores[i] = before[i - came[t, i]] + log_probs_TxL[t, i]
    at = len(labels) - 1 - int(scores[-2] > scores[-1])
    score, path = scores[at], []
    for t in range(n_frames - 1, -1, -1):
        path.append(labels[at])
        at -= came[t, at]
    return score, np.array(path[::-1])


def test_long_utterances_against_a_float64_loop():
    rng = np.random.default_rng(0)
    cases = [(log_probs(t, 6, t), rng.integers(1, 6, s).tolist()) for t, s in [(150, 20), (97, 60), (64, 31)]]
    for (case, tokens), found in zip(cases, forced_align(*zip(*cases, strict=True), blank=0), strict=True):
        score, path = by_loop(case, tokens, 0)
        np.testing.assert_allclose(found.score, score, rtol=1e-6)
        mine = np.zeros(len(case), int)
        for token, (first, end) in zip(tokens, found.spans_Sx2, strict=True):
            mine[first:end] = token
        np.testing.assert_array_equal(mine, path)


def same(left: CtcAlignment, right: CtcAlignment) -> bool:
    return (
        left.score == right.score
        and (left.spans_Sx2 == right.spans_Sx2).all()
        and (left.scores_S == right.scores_S).all()
    )


def test_company_changes_nothing(monkeypatch):
    rng = np.random.default_rng(1)
    lengths = [(int(t), int(rng.integers(1, t // 2))) for t in rng.integers(4, 128, 30)]
    cases = [log_probs(t, 8, i) for i, (t, _) in enumerate(lengths)]
    tokens = [rng.integers(1, 8, s).tolist() for _, s in lengths]
    together = forced_align(cases, tokens, blank=0)
    alone = [forced_align([case], [ids], blank=0)[0] for case, ids in zip(cases, tokens, strict=True)]
    assert all(map(same, together, alone))
    monkeypatch.setattr(ctc, "_BACKPOINTERS", 3 * 64 * 32)  # small batches
    assert all(map(same, together, forced_align(cases, tokens, blank=0)))


def test_a_text_that_does_not_fit_is_named_and_the_others_are_aligned():
    cases = [log_probs(4, 4, 0)] * 4
    fits, repeats, long, empty = forced_align(cases, [[1, 2, 1, 2], [1, 1, 2, 2], [1, 2, 1, 2, 1], []], blank=0)
    assert fits.spans_Sx2.tolist() == [[0, 1], [1, 2], [2, 3], [3, 4]]
    assert frames_needed([1, 1, 2, 2]) == 6
    for error, cause in ((repeats, "6 frames, the audio has 4"), (long, "5 frames"), (empty, "no token")):
        assert isinstance(error, AlignmentError) and cause in str(error)


def test_labels_without_probability_are_no_path():
    case = log_probs(6, 4, 0)
    case[:, 2] = -np.inf
    lost, found = forced_align([case, case], [[1, 2], [1, 3]], blank=0)
    assert isinstance(lost, AlignmentError) and "no probability" in str(lost)
    assert np.isfinite(found.score)


@pytest.mark.parametrize(
    "tokens, blank, message",
    [
        ([1, 4], 0, "of another model"),
        ([-1], 0, "of another model"),
        ([1, 0], 0, "blank .0. is among"),
        ([1], 9, "is 9"),
    ],
)
def test_ids_of_another_model_are_refused(tokens, blank, message):
    with pytest.raises(ValueError, match=message):
        forced_align([log_probs(8, 4, 0)], [tokens], blank=blank)


def test_nan_is_refused():
    case = log_probs(8, 4, 0)
    case[3, 1] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        forced_align([case], [[1]], blank=0)


def test_the_star_takes_what_the_text_does_not_name():
    labels = [0, 1, 1, 0, 3, 0, 4, 4, 0, 2, 0]  # between 1 and 2 something is said that has no spelling
    case = np.full((len(labels), 5), -8.0, np.float32)
    case[np.arange(len(labels)), labels] = -0.1
    starred = with_star(case)
    np.testing.assert_array_equal(starred[:, :5], case)
    (found,) = forced_align([starred], [[1, 5, 2]], blank=0)
    assert found.spans_Sx2.tolist() == [[1, 3], [4, 8], [9, 10]]


def test_few_programs_are_compiled():
    sizes = {ctc._bucket(n, 64) for n in range(1, 6001)}
    assert sorted(sizes) == [64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096, 6144]
    assert all(ctc._bucket(n, 32) >= n for n in range(1, 3000))


def test_an_utterance_too_long_to_align_at_once_is_refused_and_the_others_are_not(monkeypatch):
    monkeypatch.setattr(ctc, "_MOST_BACKPOINTERS", 64 * 32)
    even = np.log(np.full((100, 3), 1 / 3, np.float32))
    long, short = forced_align([even, even[:50]], [[1, 2], [1, 2]], blank=0)
    assert isinstance(long, AlignmentError) and re.search("100 frames with 2 letters.*cut the audio", str(long))
    assert short.spans_Sx2.shape == (2, 2)
