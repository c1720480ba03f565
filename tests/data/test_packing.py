"""Packing: nothing lost or doubled, rows full, plans reproducible."""

import collections
import pickle

import numpy as np
import pytest

from jaxslm.data.packing import PackedRows, pack
from jaxslm.data.segments import LayoutSettings
from jaxslm.tokenizer import load_tokenizer
from jaxslm.vocabulary import build_vocabulary

CONTEXT = 256


def rows_of(corpus, objective, **kwargs):
    options = dict(
        vocabulary=corpus.vocabulary, objective_id=2, context_length=CONTEXT, seed=5, settings=LayoutSettings()
    )
    return PackedRows(corpus.index, objective=objective, **(options | kwargs))


@pytest.mark.parametrize("seed", range(5))
def test_pack_uses_every_example_once_within_capacity(seed):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 101, 3000)
    order, row_start = pack(lengths, 100)
    assert sorted(order) == list(range(3000))
    used = np.add.reduceat(lengths[order], row_start[:-1])
    assert used.max() <= 100 and used.mean() > 97
    assert row_start[0] == 0 and row_start[-1] == 3000


def test_pack_small_cases():
    order, start = pack(np.array([60, 50, 40, 50]), 100)  # best fit: 40 joins 60, 50 joins 50
    assert [order[a:b].tolist() for a, b in zip(start[:-1], start[1:], strict=True)] == [[0, 2], [1, 3]]
    assert pack(np.array([], np.int64), 10)[0].size == 0


@pytest.mark.parametrize("objective", ["text", "speech", "asr", "tts", "interleaved"])
def test_rows_hold_whole_examples(corpus, objective):
    rows = rows_of(corpus, objective)
    plan = rows.epoch(1)
    for k in range(plan.first_row, plan.first_row + len(plan.row_order)):
        row, at = rows[k], 0
        for number, segments in enumerate(rows.segments(k), 1):
            ids = np.concatenate([s.ids for s in segments])
            here = slice(at, at + len(ids) - 1)
            np.testing.assert_array_equal(row["tokens"][here], ids[:-1])
            np.testing.assert_array_equal(row["targets"][here], ids[1:])
            np.testing.assert_array_equal(row["positions"][here], np.arange(len(ids) - 1))
            assert (row["segment_ids"][here] == number).all() and (row["loss_weights"][here] == 1).all()
            at = here.stop
        assert (row["segment_ids"][at:] == 0).all() and (row["loss_weights"][at:] == 0).all()
        assert (row["objective"] == 2).all()
        assert {name: (values.shape, values.dtype) for name, values in row.items()} == {
            name: ((CONTEXT,), np.float32 if name == "loss_weights" else np.int32)
            for name in ("tokens", "targets", "segment_ids", "positions", "loss_weights", "objective")
        }


@pytest.mark.parametrize(("objective", "tokenizer"), [("text", "byte"), ("speech", "byte"), ("speech", "none")])
def test_long_documents_are_cut_and_nothing_is_lost(corpus, objective, tokenizer):
    """All ids of an epoch, markers taken away, are the ids of the corpus."""
    vocabulary = build_vocabulary(load_tokenizer(tokenizer), corpus.units.size, corpus.units.sha256)
    rows = rows_of(corpus, objective, vocabulary=vocabulary, context_length=64)
    plan = rows.epoch(0)
    kind = {"text": "text", "speech": "speech"}[objective]
    seen = collections.Counter()
    ends = 0
    for k in range(len(plan.row_order)):
        for segments in rows.segments(k):
            seen.update(i for s in segments if s.modality == kind for i in np.asarray(s.ids).tolist())
            ends += segments[-1].modality == "marker" and segments[-1].ids[0] == vocabulary.eos_id
    items = np.flatnonzero(~np.asarray(corpus.index.heldout) & rows.layout.eligible(corpus.index))
    offset = vocabulary.block("units").first if objective == "speech" else 0
    whole = collections.Counter()
    for i in items:
        encoded = corpus.index[i]
        whole.update(((encoded.unit_ids + offset) if objective == "speech" else encoded.text_ids).tolist())
    assert seen == whole and ends == len(items)
    assert "full" in rows.describe() and "left out" not in rows.describe()


def test_too_long_for_the_context_is_counted(corpus):
    rows = rows_of(corpus, "asr")
    items = np.flatnonzero(~np.asarray(corpus.index.heldout) & rows.layout.eligible(corpus.index))
    too_long = int((4 + corpus.index.n_text[items] + corpus.index.n_units[items] > CONTEXT + 1).sum())
    assert too_long > 0 and f"{too_long} longer than data.context_length={CONTEXT} left out" in rows.describe()
    with pytest.raises(ValueError, match="objective 'asr'.*data.context_length=8"):
        rows_of(corpus, "asr", context_length=8).epoch(0)
    assert rows_of(corpus, "asr", context_length=8).n_fitting == 0 and rows.n_fitting == len(items) - too_long


def test_splits_do_not_mix(corpus):
    heldout, train = rows_of(corpus, "speech", heldout=True), rows_of(corpus, "speech")
    assert set(heldout._items).isdisjoint(train._items)
    assert all(corpus.index.heldout[heldout._items]) and len(heldout._items) > 5


def test_any_row_from_anywhere(corpus):
    """Rows read in any order, from a pickled copy, across epochs, are the rows read in sequence."""
    rows = rows_of(corpus, "interleaved")
    third = rows.epoch(2).first_row
    in_order = [rows[k] for k in range(third + 3)]
    copy = pickle.loads(pickle.dumps(rows_of(corpus, "interleaved")))
    for k in (third + 2, 0, third - 1, 5, third):
        for name, values in copy[k].items():
            np.testing.assert_array_equal(values, in_order[k][name])


def test_epochs_differ_and_seeds_differ(corpus):
    rows, other = rows_of(corpus, "asr"), rows_of(corpus, "asr", seed=6)
    first, second = rows[0]["tokens"], rows[rows.epoch(1).first_row]["tokens"]
    assert not np.array_equal(first, second) and not np.array_equal(first, other[0]["tokens"])


def test_unknown_objective(corpus):
    with pytest.raises(ValueError, match="'asrr'.*asr"):
        rows_of(corpus, "asrr")
