"""The global batch is a function of (seed, step): bit-identical for any workers, hosts and starting step."""

import itertools

import numpy as np
import pytest

from jaxslm.data.loader import heldout_batches, mixture_shares, training_batches
from jaxslm.data.packing import PackedRows
from jaxslm.data.segments import LayoutSettings

MIXTURE = {"text": 1 / 3, "speech": 1 / 3, "interleaved": 1 / 9, "asr": 1 / 9, "tts": 1 / 9}
B, T, STEPS = 8, 256, 6


def sources(corpus):
    names, _ = mixture_shares(MIXTURE)
    return [
        PackedRows(
            corpus.index, corpus.vocabulary, n, objective_id=i, context_length=T, seed=1, settings=LayoutSettings()
        )
        for i, n in enumerate(names)
    ]


def take(corpus, n, **kwargs):
    _, shares = mixture_shares(MIXTURE)
    return list(itertools.islice(training_batches(sources(corpus), shares, batch_size=B, **kwargs), n))


@pytest.fixture(scope="module")
def expected(corpus):
    return take(corpus, STEPS)


def assert_same(batches, others):
    for batch, other in zip(batches, others, strict=True):
        for name in batch:
            assert batch[name].dtype == other[name].dtype
            np.testing.assert_array_equal(batch[name], other[name])


@pytest.mark.parametrize("workers", [2, 3])
def test_worker_count_changes_nothing(corpus, expected, workers):
    assert_same(take(corpus, STEPS, workers=workers), expected)


@pytest.mark.parametrize("hosts", [2, 4])
def test_host_count_changes_nothing(corpus, expected, hosts):
    shares = [take(corpus, STEPS, process_index=h, process_count=hosts) for h in range(hosts)]
    whole = [
        {name: np.concatenate([share[step][name] for share in shares]) for name in expected[0]} for step in range(STEPS)
    ]
    assert_same(whole, expected)


@pytest.mark.parametrize(("first_step", "hosts"), [(3, 1), (4, 2)])
def test_starting_anywhere(corpus, expected, first_step, hosts):
    shares = [
        take(corpus, STEPS - first_step, first_step=first_step, process_index=h, process_count=hosts)
        for h in range(hosts)
    ]
    whole = [{k: np.concatenate([s[i][k] for s in shares]) for k in expected[0]} for i in range(STEPS - first_step)]
    assert_same(whole, expected[first_step:])


def test_mixture_shares_are_shares_of_rows(corpus):
    batches = take(corpus, 90)
    objectives = np.concatenate([batch["objective"][:, 0] for batch in batches])
    np.testing.assert_allclose(np.bincount(objectives) / len(objectives), list(MIXTURE.values()), atol=0.005)


def test_heldout_batches_cover_the_first_epoch_once(corpus):
    rows = PackedRows(
        corpus.index, corpus.vocabulary, "speech",
        objective_id=0, context_length=512, seed=1, settings=LayoutSettings(), heldout=True,
    )  # fmt: skip
    batches = list(heldout_batches(rows, batch_size=B, most=99))
    n = len(rows.epoch(0).row_order)
    assert len(batches) == -(-n // B)
    index = corpus.index
    weight = (index.n_units + 2)[np.asarray(index.heldout) & (index.n_units > 0)].sum()  # units, marker and end
    tokens = np.concatenate([batch["tokens"] for batch in batches])
    np.testing.assert_array_equal(tokens[:n], np.stack([rows[k]["tokens"] for k in range(n)]))
    assert sum(batch["loss_weights"].sum() for batch in batches) == weight
    half = [list(heldout_batches(rows, batch_size=B, most=99, process_index=h, process_count=2)) for h in (0, 1)]
    assert_same([{k: np.concatenate([a[k], b[k]]) for k in a} for a, b in zip(*half, strict=True)], batches)


def test_bad_mixtures():
    with pytest.raises(ValueError, match="data.mixture"):
        mixture_shares({"text": -1.0, "asr": 2.0})
    with pytest.raises(ValueError, match="data.mixture"):
        mixture_shares({"text": 0.0})
    assert mixture_shares({"text": 1, "asr": 3, "tts": 0}) == (["text", "asr"], [0.25, 0.75])


def test_batch_size_and_processes(corpus):
    with pytest.raises(ValueError, match="data.batch_size=8"):
        take(corpus, 1, process_count=3)
