"""The token index against the records it was made from."""

import pickle

import numpy as np

from jaxslm.data.token_index import TokenIndex, build_token_index
from jaxslm.units.units import unit_word_offsets


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


def test_pickles_as_a_path_and_is_reused(corpus):
    copy = pickle.loads(pickle.dumps(corpus.index))
    assert isinstance(copy, TokenIndex) and isinstance(copy.text_ids, np.memmap)
    np.testing.assert_array_equal(copy.unit_edges, corpus.index.unit_edges)
    stamp = (corpus.index.folder / "text_ids.npy").stat().st_mtime_ns
    again = build_token_index(corpus.folder / "records", corpus.tokenizer, corpus.units, corpus.folder, progress=False)
    assert again.folder == corpus.index.folder
    assert (again.folder / "text_ids.npy").stat().st_mtime_ns == stamp
