"""Golden ids of every format, written out by hand, and the properties that interleaving promises."""

import numpy as np
import pytest

from jaxslm.data.draws import draw_bits
from jaxslm.data.layouts import LAYOUTS
from jaxslm.data.segments import LayoutSettings
from jaxslm.data.spans import SpanLengths, draw_spans
from jaxslm.data.token_index import EncodedUtterance
from jaxslm.tokenizer import load_tokenizer
from jaxslm.vocabulary import build_vocabulary
from tests.test_vocabulary import LlamaTwoShape

SPANS = SpanLengths()
SETTINGS = LayoutSettings(SPANS)
# "the cat sat" as ids 10 | 20 21 | 30 and units 3 7 | 9 | 200 3.
UTTERANCE = EncodedUtterance(
    np.array([10, 20, 21, 30]), np.array([3, 7, 9, 200, 3]), np.array([0, 1, 3, 4]), np.array([0, 2, 3, 5])
)
BOS, EOS, TEXT, SPEECH, HU, ASR, TTS = 1, 2, 32_000, 32_001, 32_002, 32_503, 32_504
UNITS = [HU + 3, HU + 7, HU + 9, HU + 200, HU + 3]


def flat(segments):
    return [int(i) for segment in segments for i in segment.ids]


def build(name, utterance=UTTERANCE, key=0, spans=SPANS):
    return LAYOUTS[name].build(utterance, build_vocabulary(LlamaTwoShape(), 501, "b" * 64), key, LayoutSettings(spans))


@pytest.mark.parametrize(
    ("name", "ids"),
    [
        ("text", [BOS, TEXT, 10, 20, 21, 30, EOS]),
        ("speech", [BOS, SPEECH, *UNITS, EOS]),
        ("asr", [BOS, SPEECH, *UNITS, ASR, 10, 20, 21, 30, EOS]),
        ("tts", [BOS, TEXT, 10, 20, 21, 30, TTS, *UNITS, EOS]),
    ],
)
def test_golden_ids(name, ids):
    assert flat(build(name)) == ids


def test_golden_speech_alone():
    """`<s>` units `</s>` of GSLM, TWIST and Slam: begin 1, end 2, units from 3 on, nothing else."""
    vocabulary = build_vocabulary(load_tokenizer("none"), 500, "b" * 64)
    layout = LAYOUTS["speech"].build
    assert flat(layout(UTTERANCE, vocabulary, 0, SETTINGS)) == [1, 6, 10, 12, 203, 6, 2]
    assert flat(layout(UTTERANCE._replace(complete=False), vocabulary, 0, SETTINGS)) == [1, 6, 10, 12, 203, 6]
    assert {name for name in LAYOUTS if not LAYOUTS[name].needs_text} == {"speech", "coarse", "fine"}


def test_golden_interleaved():
    one_word = SpanLengths(text_words=(1, 1), speech_words=(1, 1))
    speech_first = [BOS, SPEECH, HU + 3, HU + 7, TEXT, 20, 21, SPEECH, HU + 200, HU + 3, EOS]
    text_first = [BOS, TEXT, 10, SPEECH, HU + 9, TEXT, 30, EOS]
    seen = {tuple(flat(build("interleaved", key=key, spans=one_word))) for key in range(20)}
    assert seen == {tuple(speech_first), tuple(text_first)}
    two_words = SpanLengths(text_words=(2, 2), speech_words=(2, 2))
    seen = {tuple(flat(build("interleaved", key=key, spans=two_words))) for key in range(20)}
    assert seen == {
        (BOS, TEXT, 10, 20, 21, SPEECH, HU + 200, HU + 3, EOS),
        (BOS, SPEECH, HU + 3, HU + 7, HU + 9, TEXT, 30, EOS),
    }


def test_segments_are_typed():
    kinds = [(s.modality, len(s.ids), s.loss_weight) for s in build("asr")]
    text, speech = ("text", 4, 1.0), ("speech", 5, 1.0)
    marker = ("marker", 1, 1.0)
    assert kinds == [marker, marker, speech, marker, text, marker]


def test_piece_of_a_document_has_no_end():
    assert flat(build("text", UTTERANCE._replace(complete=False))) == [BOS, TEXT, 10, 20, 21, 30]


def test_no_word_is_lost_or_doubled(corpus):
    """Unit ids and text ids of an interleaved example, put back by word, are each word in exactly one modality."""
    first_unit, checked = corpus.vocabulary.block("units").first, 0
    for i in np.flatnonzero(corpus.index.aligned):
        utterance = corpus.index[i]
        for epoch in range(3):
            key = draw_bits(0, epoch, i)
            _, (planned,) = draw_spans(len(utterance.text_edges) - 1, key, SPANS)
            word, runs = 0, LAYOUTS["interleaved"].build(utterance, corpus.vocabulary, key, SETTINGS)[1:-1]
            for marker, run in zip(runs[::2], runs[1::2], strict=True):
                speech = run.modality == "speech"
                assert corpus.vocabulary.token(marker.ids[0]) == ("[Speech]" if speech else "[Text]")
                edges = utterance.unit_edges if speech else utterance.text_edges
                ids = utterance.unit_ids + first_unit if speech else utterance.text_ids
                stop = int(planned[planned > word].min())
                np.testing.assert_array_equal(run.ids, ids[edges[word] : edges[stop]])
                word, checked = stop, checked + 1
            assert word == len(utterance.text_edges) - 1
    assert checked > 200


def test_span_lengths_and_alternation():
    n_words = np.full(400, 200)
    first, edges = draw_spans(n_words, np.arange(400), SPANS)
    lengths = np.diff(edges, axis=1)
    speech = (np.arange(lengths.shape[1]) % 2 == 0) == first[:, None]
    whole = edges[:, 1:] < 200  # all but each utterance's last span
    assert set(lengths[whole & ~speech]) == set(range(10, 31))
    assert set(lengths[whole & speech]) == set(range(5, 16))
    assert 0.4 < first.mean() < 0.6
    assert (edges[:, -1] == 200).all()


def test_spans_change_with_the_epoch_and_only_with_it(corpus):
    i = int(np.argmax(corpus.index.n_words * corpus.index.aligned))
    drawn = [
        flat(LAYOUTS["interleaved"].build(corpus.index[i], corpus.vocabulary, draw_bits(0, e, i), SETTINGS))
        for e in (0, 1)
    ]
    again = flat(LAYOUTS["interleaved"].build(corpus.index[i], corpus.vocabulary, draw_bits(0, 0, i), SETTINGS))
    assert drawn[0] == again != drawn[1]


@pytest.mark.parametrize("name", sorted(name for name in LAYOUTS if not LAYOUTS[name].needs_codes))
def test_lengths_are_what_build_gives(corpus, name):
    layout = LAYOUTS[name]
    items = np.flatnonzero(layout.eligible(corpus.index))
    keys = draw_bits(7, 3, items)
    speech_alone = build_vocabulary(load_tokenizer("none"), corpus.units.size, corpus.units.sha256)
    for vocabulary in (corpus.vocabulary,) if layout.needs_text else (corpus.vocabulary, speech_alone):
        lengths = layout.lengths(corpus.index, vocabulary, items, keys, SETTINGS)
        built = [
            len(flat(layout.build(corpus.index[i], vocabulary, key, SETTINGS)))
            for i, key in zip(items, keys, strict=True)
        ]
        assert len(items) > 20 and lengths.tolist() == built


def test_impossible_spans():
    with pytest.raises(ValueError, match="data.spans.text_words"):
        SpanLengths(text_words=(5, 3))
