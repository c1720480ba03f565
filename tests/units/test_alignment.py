import sys

import numpy as np
import pytest

from jaxslm.audio.io import read_audio
from jaxslm.units.alignment import AlignmentError, PocketSphinxAligner, check_words


@pytest.fixture(scope="module")
def aligner():
    pytest.importorskip("pocketsphinx", reason="pip install 'jaxslm[demo]'")
    return PocketSphinxAligner()


@pytest.fixture(scope="module")
def spoken():
    """Synthetic speech whose word times espeak-ng tells."""
    pytest.importorskip("espeakng_loader", reason="pip install 'jaxslm[demo]'")
    from jaxslm.data.report import Report
    from jaxslm.data.sources import read_source

    utterances = read_source(dict(kind="demo", utterances=8, seed=5), Report())
    return [(read_audio(u.audio, where=u.where).samples, u.text, u.words) for u in utterances]


def test_word_times_are_those_of_the_synthesizer(aligner, spoken):
    errors = []
    for samples, text, truth in spoken:
        words = check_words(aligner.align(samples, text), text, len(samples) / 16000, "here")
        errors += [abs(found.start - word.start) for found, word in zip(words, truth, strict=True)]
    assert np.median(errors) < 0.04 and np.quantile(errors, 0.9) < 0.12


def test_the_times_of_a_clip_do_not_depend_on_the_clips_before_it(aligner, spoken):
    forwards = [aligner.align(samples, text) for samples, text, _ in spoken]
    assert forwards == [aligner.align(samples, text) for samples, text, _ in reversed(spoken)][::-1]


def test_written_forms_are_kept_and_marks_get_no_length(aligner, spoken):
    samples, text, _ = spoken[0]
    plain = aligner.align(samples, text)
    first, *others = text.split()
    marked = aligner.align(samples, " ".join(["–", f"“{first.upper()}”", "...", *others]))
    assert [word.text for word in marked][:3] == ["–", f"“{first.upper()}”", "..."]
    assert (marked[0].start, marked[0].end) == (0.0, 0.0)
    assert marked[2].start == marked[2].end == marked[1].end
    assert [(word.start, word.end) for word in marked[1:2] + marked[3:]] == [(word.start, word.end) for word in plain]


def test_unknown_words_are_read_by_rule(aligner, spoken):
    samples, text, truth = spoken[0]
    items = text.split()
    words = aligner.align(samples, " ".join(["zzyqquax" if i == 1 else item for i, item in enumerate(items)]))
    assert words[1].text == "zzyqquax" and abs(words[-1].start - truth[-1].start) < 0.3


def test_what_cannot_be_aligned_is_refused(aligner, spoken):
    samples, text, _ = spoken[0]
    with pytest.raises(AlignmentError, match="no word to align in '-- ...'"):
        aligner.align(samples, "-- ...")
    with pytest.raises(AlignmentError, match="'日本' cannot be read out: spell it in letters a to z"):
        aligner.align(samples, "日本")
    with pytest.raises(AlignmentError, match="the audio does not fit the text .*check that they belong together"):
        aligner.align(samples[:8000], text * 5)


def test_other_languages_and_a_missing_wheel_are_refused(monkeypatch):
    with pytest.raises(ValueError, match="'en' only, not 'ru'; give word times with the data"):
        PocketSphinxAligner("ru")
    monkeypatch.setitem(sys.modules, "pocketsphinx", None)
    with pytest.raises(ValueError, match=r"pip install 'jaxslm\[demo\]'"):
        PocketSphinxAligner()


def test_audio_too_long_for_pocketsphinx_is_refused_before_it_is_decoded(aligner, monkeypatch):
    monkeypatch.setattr(aligner, "_decode", lambda _: pytest.fail("decoded"))
    with pytest.raises(AlignmentError, match="601.0 s is longer than the 600 s that PocketSphinx aligns.*ctc:FOLDER"):
        aligner.align(np.zeros(601 * 16_000, np.float32), "a long story")
