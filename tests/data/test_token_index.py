"""The token index against the records it was made from."""

import pickle

import numpy as np

from jaxslm.data.records import Utterance, write_records
from jaxslm.data.token_index import TokenIndex, build_token_index
from jaxslm.tokenizer import load_tokenizer
from jaxslm.units.alignment import Word
from jaxslm.units.units import UnitSequence, unit_word_offsets
from tests.data.corpora import inventory


def test_every_record_is_there(corpus):
    assert len(corpus.index) == len(corpus.records)
    for i in range(len(corpus.records)):
        record, encoded = corpus.records[i], corpus.index[i]
        assert corpus.tokenizer.decode(encoded.text_ids.tolist()) == record.text
        assert bool(corpus.index.heldout[i]) == (record.split == "heldout")
        words = [
            corpus.tokenizer.decode(encoded.text_ids[a:b].tolist()).strip()
            for a, b in zip(encoded.text_edges[:-1], encoded.text_edges[1:], strict=True)
        ]
        assert words == record.text.split()
        if not record.units:
            assert len(encoded.unit_ids) == 0 and encoded.unit_edges is None
            continue
        units = record.units[corpus.units.sha256]
        np.testing.assert_array_equal(encoded.unit_ids, units.ids)
        if record.words:
            np.testing.assert_array_equal(encoded.unit_edges, unit_word_offsets(units, record.words))
        else:
            assert encoded.unit_edges is None


def test_edges_by_hand(tmp_path):
    """Units of 50 frames a second, in seconds: 3 until .04, 8 until .10, 5 until .12, 8 until .20, 1 until .30.

    "a" ends at .08 and "bc," starts at .12: the cut is at .10; "d" starts where "bc," ends, at .22. The middles of the
    units are .02, .07, .11, .16, .25, so "a" owns 3 8, "bc," 5 8 and "d" 1.
    """
    units = inventory()
    spoken = Utterance(
        id="u",
        text="a bc, d",
        duration=0.3,
        words=(Word("a", 0.01, 0.08), Word("bc,", 0.12, 0.22), Word("d", 0.22, 0.29)),
        units={units.sha256: UnitSequence([3, 8, 5, 8, 1], [2, 3, 1, 4, 5], 50.0)},
    )
    document = Utterance(id="t", text="xy z")
    write_records(tmp_path / "records", [document, spoken], inventories=[units])
    index = build_token_index(tmp_path / "records", load_tokenizer("byte"), units, tmp_path, progress=False)
    assert index[1].text_ids.tolist() == [3 + byte for byte in b"a bc, d"]
    assert index[1].text_edges.tolist() == [0, 1, 5, 7]
    assert index[1].unit_ids.tolist() == [3, 8, 5, 8, 1]
    assert index[1].unit_edges.tolist() == [0, 2, 4, 5]
    assert index[0].text_edges.tolist() == [0, 2, 4] and index[0].unit_edges is None


def test_without_a_tokenizer_there_are_units_alone(corpus):
    records = corpus.folder / "records"
    index = build_token_index(records, load_tokenizer("none"), corpus.units, corpus.folder, progress=False)
    assert index.folder != corpus.index.folder and len(index) == len(corpus.index)
    np.testing.assert_array_equal(index.unit_ids, corpus.index.unit_ids)
    np.testing.assert_array_equal(index.n_units, corpus.index.n_units)
    assert not index.n_text.any() and not index.n_words.any() and not index.aligned.any()


def test_pickles_as_a_path_and_is_reused(corpus):
    copy = pickle.loads(pickle.dumps(corpus.index))
    assert isinstance(copy, TokenIndex) and isinstance(copy.text_ids, np.memmap)
    np.testing.assert_array_equal(copy.unit_edges, corpus.index.unit_edges)
    stamp = (corpus.index.folder / "text_ids.npy").stat().st_mtime_ns
    again = build_token_index(corpus.folder / "records", corpus.tokenizer, corpus.units, corpus.folder, progress=False)
    assert again.folder == corpus.index.folder
    assert (again.folder / "text_ids.npy").stat().st_mtime_ns == stamp
