"""Logits processors against those of transformers, and the drawn distribution against the exact softmax."""

import jax
import numpy as np
import pytest
from scipy import stats

from jaxslm.generation import sampler
from jaxslm.generation.sampler import Sampling

B, C = 5, 1000


@pytest.fixture(scope="module")
def logits_BxC():
    """From nearly flat to very peaked rows."""
    scale_B = np.array([0.1, 1, 2, 5, 20])[:, None]
    return (np.random.default_rng(0).normal(size=(B, C)) * scale_B).astype(np.float32)


def theirs(processor, logits_BxC, ids_BxT=None):
    torch = pytest.importorskip("torch")
    ids_BxT = np.zeros((len(logits_BxC), 1), np.int64) if ids_BxT is None else ids_BxT
    return processor(torch.tensor(ids_BxT), torch.tensor(logits_BxC)).numpy()


@pytest.mark.parametrize("k", [1, 2, 50, 999, 1000])
def test_top_k(logits_BxC, k):
    transformers = pytest.importorskip("transformers")
    np.testing.assert_array_equal(
        sampler.keep_top_k(logits_BxC, k), theirs(transformers.TopKLogitsWarper(k), logits_BxC)
    )


def test_top_k_keeps_ties(logits_BxC):
    transformers = pytest.importorskip("transformers")
    rounded_BxC = np.round(logits_BxC)
    expected_BxC = theirs(transformers.TopKLogitsWarper(7), rounded_BxC)
    assert (np.isfinite(expected_BxC).sum(axis=1) > 7).any()
    np.testing.assert_array_equal(sampler.keep_top_k(rounded_BxC, 7), expected_BxC)


@pytest.mark.parametrize("p", [1e-6, 0.3, 0.5, 0.9, 0.95, 0.999])
def test_top_p(logits_BxC, p):
    transformers = pytest.importorskip("transformers")
    ours_BxC = np.array(sampler.keep_top_p(logits_BxC, p))
    expected_BxC = theirs(transformers.TopPLogitsWarper(p), logits_BxC)
    # The two sum float32 probabilities in different orders: an id exactly at the edge of the mass may differ.
    for ours_C, expected_C in zip(ours_BxC, expected_BxC, strict=True):
        assert abs(np.isfinite(ours_C).sum() - np.isfinite(expected_C).sum()) <= 1
        both = np.isfinite(ours_C) & np.isfinite(expected_C)
        np.testing.assert_array_equal(ours_C[both], expected_C[both])
    assert (np.isfinite(ours_BxC) == np.isfinite(expected_BxC)).mean() > 0.999


def test_top_p_keeps_the_smallest_sufficient_set(logits_BxC):
    kept_BxC = np.isfinite(sampler.keep_top_p(logits_BxC, 0.9))
    for logits_C, kept_C in zip(logits_BxC.astype(np.float64), kept_BxC, strict=True):
        probabilities_C = np.exp(logits_C - logits_C.max()) / np.exp(logits_C - logits_C.max()).sum()
        descending = np.sort(probabilities_C)[::-1]
        needed = np.searchsorted(np.cumsum(descending), 0.9) + 1
        assert kept_C.sum() == needed
        assert probabilities_C[kept_C].min() >= probabilities_C[~kept_C].max()


def test_repetition_penalty(logits_BxC):
    transformers = pytest.importorskip("transformers")
    ids_BxT = np.random.default_rng(1).integers(0, C, (B, 40))
    seen_BxC = np.zeros((B, C), bool)
    np.put_along_axis(seen_BxC, ids_BxT, True, axis=1)
    np.testing.assert_allclose(
        sampler.penalize_repetition(logits_BxC, seen_BxC, 1.3),
        theirs(transformers.RepetitionPenaltyLogitsProcessor(1.3), logits_BxC, ids_BxT),
        rtol=1e-6,
    )


def test_all_together_in_their_order(logits_BxC):
    transformers = pytest.importorskip("transformers")
    ids_BxT = np.random.default_rng(1).integers(0, C, (B, 40))
    seen_BxC = np.zeros((B, C), bool)
    np.put_along_axis(seen_BxC, ids_BxT, True, axis=1)
    chain = transformers.LogitsProcessorList(
        [
            transformers.RepetitionPenaltyLogitsProcessor(1.2),
            transformers.TemperatureLogitsWarper(0.7),
            transformers.TopKLogitsWarper(30),
            transformers.TopPLogitsWarper(0.8),
        ]
    )
    ours_BxC = sampler.process(logits_BxC, seen_BxC, Sampling(1, 0.7, 30, 0.8, 1.2))
    np.testing.assert_allclose(ours_BxC, theirs(chain, logits_BxC, ids_BxT), rtol=1e-6)


@pytest.mark.parametrize("n_ids", [5, 128, 300])
def test_draws_follow_the_softmax(n_ids):
    logits_C = np.random.default_rng(n_ids).normal(size=n_ids).astype(np.float32)
    logits_C[1] = -np.inf
    keys_S = jax.random.split(jax.random.key(0), 20_000)
    counts_C = np.bincount(jax.jit(jax.vmap(sampler.draw, (0, None)))(keys_S, logits_C), minlength=n_ids)
    assert len(counts_C) == n_ids and counts_C[1] == 0
    expected_C = np.exp(logits_C.astype(np.float64))
    expected_C *= counts_C.sum() / expected_C.sum()
    allowed_C = expected_C > 0
    assert stats.chisquare(counts_C[allowed_C], expected_C[allowed_C]).pvalue > 0.01


@pytest.mark.parametrize("n_ids", [2, 127, 128, 129, 1000])
def test_highest_is_the_first_of_the_largest(n_ids):
    rng = np.random.default_rng(n_ids)
    few_values = rng.integers(0, 3, (50, n_ids)).astype(np.float32)  # nearly every row has ties
    logits_BxC = np.concatenate([few_values, rng.normal(size=(50, n_ids)).astype(np.float32)])
    logits_BxC[-1, :-1] = -np.inf
    ids_B = jax.jit(jax.vmap(sampler.highest))(logits_BxC)
    assert ids_B.tolist() == np.argmax(logits_BxC, axis=-1).tolist()


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_new_tokens": 0},
        {"temperature": -1.0},
        {"temperature": float("nan")},
        {"top_k": -1},
        {"top_p": 0.0},
        {"top_p": 1.5},
        {"repetition_penalty": 0.0},
    ],
)
def test_settings_out_of_range_are_named(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Sampling(**wrong)
