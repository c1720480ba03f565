"""Scores of sequences against a plain loop over the logits, whatever else is in the batch."""

from itertools import combinations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxslm.evaluation.scoring import GROUPS, Scorer, Tokens, _groups
from jaxslm.models.decoder import Decoder, DecoderConfig
from jaxslm.nn.loss import chunked_cross_entropy

CONFIG = DecoderConfig(vocab_size=128, d_model=32, n_layers=2, n_heads=2, n_kv_heads=1, d_ff=64)
SIZE = 100  # ids from here on are padding


@pytest.fixture(scope="module")
def model() -> Decoder:
    return jax.tree.map(lambda x: 3 * x, Decoder(CONFIG, jax.random.key(0)))  # far from uniform


def make_sums(n: int):
    def sums(model, batch):
        hidden = model(batch["tokens"], positions_BxT=batch["positions"], segment_ids_BxT=batch["segment_ids"])
        rest = (batch["targets"], batch["loss_weights"], batch["objective"])
        how = dict(n_objectives=n, vocab_size=SIZE, n_chunks=4)
        return chunked_cross_entropy(hidden, model.unembedding(), *rest, **how)[1]

    return sums


def scorer(rows: int = 2, context: int = 64) -> Scorer:
    return Scorer(make_sums, lambda batch: batch, rows=rows, context=context)


def sequences(lengths, seed=0) -> list[Tokens]:
    rng = np.random.default_rng(seed)
    return [Tokens(rng.integers(0, SIZE, n).astype(np.int32), rng.random(n) < 0.7) for n in lengths]


def by_loop(model, sequence: Tokens) -> float:
    ids = jnp.asarray(sequence.ids)[None]
    where = dict(positions_BxT=jnp.arange(ids.shape[1])[None], segment_ids_BxT=jnp.ones_like(ids))
    logits_TxV = np.asarray(model.logits(model(ids, **where)), np.float64)[0, :, :SIZE]
    logits_TxV -= logits_TxV.max(-1, keepdims=True)
    log_p_TxV = logits_TxV - np.log(np.exp(logits_TxV).sum(-1, keepdims=True))
    return sum(log_p_TxV[t - 1, sequence.ids[t]] for t in range(1, len(sequence.ids)) if sequence.scored[t])


def score(made: Scorer, model, given) -> np.ndarray:
    return made(model, made.batches(given))


def test_sums_are_those_of_a_loop(model):
    given = sequences([2, 9, 30, 64, 65, 7, 12])
    expected = [by_loop(model, s) for s in given]
    np.testing.assert_allclose(score(scorer(), model, given), expected, rtol=2e-5, atol=1e-4)
    assert min(expected) < -100  # the model has opinions


@pytest.mark.parametrize("rows, context", [(1, 64), (8, 64), (2, 96), (4, 640)])
def test_neither_batch_nor_padding_matters(model, rows, context):
    given = sequences([5, 60, 33, 8, 21, 40, 3, 17])
    np.testing.assert_allclose(
        score(scorer(rows, context), model, given), score(scorer(), model, given), rtol=1e-5, atol=1e-4
    )
    alone = [score(scorer(1), model, [each])[0] for each in given]
    np.testing.assert_allclose(alone, score(scorer(), model, given), rtol=1e-5, atol=1e-4)


def test_equal_sequences_have_equal_scores_wherever_they_stand(model):
    given = sequences([40, 21, 33, 9, 52, 17])
    found = score(scorer(3, 128), model, [*given, *reversed(given), *given])
    assert found[:6].tolist() == found[11:5:-1].tolist() == found[12:].tolist()
    other = Tokens(given[0].ids, ~given[0].scored)
    together = score(scorer(), model, [given[0], other])
    assert together[0] != together[1]


def test_longer_than_the_context(model):
    given = sequences([150, 10])
    np.testing.assert_allclose(score(scorer(), model, given), [by_loop(model, s) for s in given], rtol=2e-5, atol=1e-4)


def test_a_score_that_is_no_number_harms_no_other(model):
    """Id 50 has an embedding of NaN: in any row beside others, only what has it in is lost."""
    table = model.embedding.weight[...].at[50].set(jnp.nan)
    broken = jax.tree.map(lambda x: x, model)
    broken.embedding.weight.set_value(table)
    given = [Tokens(np.where(s.ids == 50, 51, s.ids), s.scored) for s in sequences([10, 20, 15])]
    expected = score(scorer(), model, given)
    bad = Tokens(np.array([1, 50, 3, 4], np.int32), np.array([False, True, True, True]))
    found = score(scorer(), broken, [given[0], bad, *given[1:]])
    assert np.isnan(found[1])
    np.testing.assert_allclose(found[[0, 2, 3]], expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("n_sizes", [1, 3, GROUPS, 10])
def test_rows_have_the_lengths_that_take_the_fewest_places(n_sizes):
    rng = np.random.default_rng(n_sizes)
    sizes = rng.choice(np.arange(1, 60), n_sizes, replace=False)
    places = np.concatenate([sizes, rng.choice(sizes, 50)])
    groups = _groups(places)
    assert len(groups) == min(GROUPS, n_sizes)
    assert sorted(np.concatenate(groups).tolist()) == list(range(len(places)))
    found = sum(len(group) * places[group].max() for group in groups)
    others = combinations(sorted(set(sizes.tolist()) - {sizes.max()}), min(GROUPS, n_sizes) - 1)
    every = [sum(min(end for end in (*ends, sizes.max()) if end >= n) for n in places) for ends in others]
    assert found == min(every)


def test_batches_of_short_rows_have_more_of_them():
    given = sequences([9] * 3 + [20] * 100 + [60, 200], seed=1)
    batches = scorer(rows=2, context=128).batches(given)
    shapes = {batch["tokens"].shape for _, batch in batches}
    assert shapes == {(8, 32), (2, 64), (2, 224)}  # as many places as two rows of 128, or a row each
    scored = [int(n) for members, _ in batches for n in members if n >= 0]
    assert sorted(scored) == list(range(len(batches.sequences)))


def test_each_process_takes_its_rows(model):
    """Two processes, one after the other: what both place is the batch of one."""
    given, halves = sequences([9, 40, 33, 20, 21, 60]), []

    def take(batch):
        halves.append(batch["tokens"])
        return batch

    for index in range(2):
        part = Scorer(make_sums, take, rows=4, context=64, process_index=index, process_count=2)
        batches = part.batches(given)
        part(model, batches)
    whole = [batch["tokens"] for _, batch in batches]
    assert len(halves) == 2 * len(whole) > 2
    for first, second, both in zip(halves, halves[len(whole) :], whole, strict=False):
        np.testing.assert_array_equal(np.concatenate([first, second]), both)


def test_nothing_to_score():
    with pytest.raises(ValueError, match="no sequence to score"):
        scorer().batches([])
