import hashlib
import itertools
import re
import subprocess
import sys

import numpy as np
import pytest

from jaxslm.data.report import Report
from jaxslm.data.sources import grammar, read_source
from jaxslm.units.alignment import check_words

SPEC = dict(kind="demo", utterances=24, seed=3, heldout=0.25)


def sentences(text):
    return re.findall(r"[^.?]+[.?]", text)


@pytest.fixture(scope="module")
def utterances():
    pytest.importorskip("espeakng_loader", reason="pip install 'jaxslm[demo]'")
    return list(read_source(SPEC, Report()))


def test_word_times_fit_the_text_and_the_audio(utterances):
    for utterance in utterances:
        samples, rate = utterance.audio
        assert rate == 22050 and samples.dtype == np.float32 and 0.1 < np.abs(samples).max() < 0.99
        duration = len(samples) / rate
        assert check_words(utterance.words, utterance.text, duration, utterance.where) == utterance.words
        assert all(0.02 < word.end - word.start < 1.2 for word in utterance.words)
        assert utterance.words[0].start == 0 and duration - 0.06 < utterance.words[-1].end <= duration
        pauses = [(a, b) for a, b in itertools.pairwise(utterance.words) if b.start > a.end]
        assert all(a.text.endswith((".", "?")) for a, _ in pauses)  # inside a sentence words meet
        assert all(np.abs(samples[round(a.end * rate) + 1 : round(b.start * rate)]).max() < 0.01 for a, b in pauses)


def test_word_times_agree_with_forced_alignment(utterances):
    """PocketSphinx shares nothing with espeak-ng. It fails on some synthetic voices, so only what it aligns counts."""
    pocketsphinx = pytest.importorskip("pocketsphinx")
    soxr = pytest.importorskip("soxr")
    decoder = pocketsphinx.Decoder(loglevel="FATAL", lm=None)
    differences = []
    for utterance in utterances:
        samples, rate = utterance.audio
        pcm = (soxr.resample(samples, rate, 16_000) * 32767).astype(np.int16).tobytes()
        text = re.sub(r"[.?]", "", utterance.text).lower()
        decoder.set_align_text(text)
        decoder.start_utt()
        decoder.process_raw(pcm, full_utt=True)
        decoder.end_utt()
        aligned = [s for s in decoder.seg() or () if not s.word.startswith("<")]
        if [re.sub(r"\(\d\)", "", s.word) for s in aligned] == text.split():
            differences += [s.start_frame / 100 - w.start for s, w in zip(aligned, utterance.words, strict=True)]
    assert len(differences) > 50
    assert abs(np.median(differences)) < 0.01 and np.percentile(np.abs(differences), 90) < 0.06


def test_frequent_pairs_have_two_times():
    """espeak-ng itself reads "in the" as one word."""
    pytest.importorskip("espeakng_loader", reason="pip install 'jaxslm[demo]'")
    from jaxslm.data.sources.espeak import Synthesizer

    text = "She is in the house, at the end of the day. I am not going to have to go."
    samples, words = Synthesizer().speak(text, "en-us")
    assert [word.text for word in words] == text.split()
    assert check_words(words, text, len(samples) / 22050, "test") == words


def test_same_seed_same_corpus_in_any_process(utterances):
    def digest(utterances):
        parts = [repr((u.id, u.text, u.words, u.speaker, u.split)).encode() + u.audio[0].tobytes() for u in utterances]
        return hashlib.sha256(b"".join(parts)).hexdigest()

    interleaved = read_source(dict(kind="demo", seed=9), Report())
    assert digest(u for u, _ in zip(read_source(SPEC, Report()), interleaved, strict=False)) == digest(utterances)
    program = (
        "import sys, hashlib; from jaxslm.data.sources import read_source; from jaxslm.data.report import Report;"
        f"us = read_source({SPEC!r}, Report());"
        "parts = [repr((u.id, u.text, u.words, u.speaker, u.split)).encode() + u.audio[0].tobytes() for u in us];"
        "print(hashlib.sha256(b''.join(parts)).hexdigest())"
    )
    child = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert child.stdout.strip() == digest(utterances)
    assert digest(read_source(SPEC | dict(seed=4), Report())) != digest(utterances)


def test_speakers_differ_in_pitch(utterances):
    from jaxslm.data.sources.demo import VOICES
    from jaxslm.data.sources.espeak import Synthesizer

    assert len({utterance.speaker for utterance in utterances}) >= 4
    synthesizer, pitches = Synthesizer(), []
    for voice, pitch in VOICES.values():
        samples, words = synthesizer.speak("Maria", voice, pitch=pitch)
        middle = samples[len(samples) // 2 - 1100 : len(samples) // 2 + 1100].astype(np.float64)
        correlation = np.correlate(middle, middle, "full")[len(middle) - 1 :]
        pitches.append(22050 / (70 + np.argmax(correlation[70:320])))  # 69 to 315 Hz
    assert all(high / low > 1.05 for low, high in itertools.pairwise(pitches)), pitches


def test_unknown_voice_and_missing_extra_are_named(monkeypatch):
    pytest.importorskip("espeakng_loader", reason="pip install 'jaxslm[demo]'")
    from jaxslm.data.sources.espeak import Synthesizer

    with pytest.raises(ValueError, match="no voice 'klingon-opera'"):
        Synthesizer().speak("hello", "klingon-opera")
    with pytest.raises(ValueError, match="cannot say"):
        Synthesizer().speak(" ", "en-us")
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(ValueError, match=r"pip install 'jaxslm\[demo\]'"):
        next(read_source(dict(kind="demo"), Report()))


def texts(kind, **spec):
    """(split, text) of a corpus, without its audio."""
    from jaxslm.data.sources import demo

    purpose, stories = ("speech", demo.STORIES) if kind == "demo" else ("text", 1.0)
    return [(split, text) for _, split, text, _ in demo._texts(purpose, spec, stories=stories)]


def test_heldout_and_text_only_sentences_are_not_spoken_in_training():
    corpora = [
        ("speech", texts("demo", utterances=600, heldout=0.2)),
        ("speech", texts("demo", utterances=300, seed=5)),
    ]
    corpora.append(("text", texts("demo_text", utterances=300, heldout=0.2)))
    said = {}
    for purpose, corpus in corpora:
        assert len({text for _, text in corpus}) == len(corpus)
        for split, text in corpus:
            said.setdefault((purpose, split), set()).update(sentence.strip() for sentence in sentences(text))
    assert len(said) == 4 and all(len(a) > 100 for a in said.values())
    assert all(a.isdisjoint(b) for a, b in itertools.combinations(said.values(), 2))


def test_shape_of_the_corpus():
    corpus = texts("demo")
    assert [split for split, _ in corpus].count("heldout") == 20
    assert "heldout" in [split for split, _ in corpus[:20]]  # a limit keeps some
    lengths = [len(text.split()) for _, text in corpus]
    assert all(n in grammar.SENTENCE_WORDS or n in grammar.STORY_WORDS for n in lengths)
    assert 80 < sum(n in grammar.STORY_WORDS for n in lengths) < 120
    vocabulary = {word for _, text in corpus for word in re.sub(r"[.?]", "", text).lower().split()}
    assert 100 <= len(vocabulary) <= 150 and all(word.isalpha() for word in vocabulary)


def test_text_documents_need_no_espeak(monkeypatch):
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    documents = list(read_source(dict(kind="demo_text", utterances=20), Report()))
    assert len(documents) == 20 and documents[0].audio is None and documents[0].words is None
    assert [document.split for document in documents].count("heldout") == 1
    assert documents == list(read_source(dict(kind="demo_text", utterances=20), Report()))


@pytest.mark.parametrize("wrong", [dict(utterances=0), dict(utterances=1.5), dict(heldout=1.0), dict(heldout=-0.1)])
def test_wrong_sizes_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        next(read_source(dict(kind="demo_text") | wrong, Report()))


def test_more_than_the_grammar_has_is_an_error(monkeypatch):
    for name in ("sentence", "story"):
        monkeypatch.setattr(grammar, name, lambda rng, pool: rng.choice(["It is cold.", "It is warm."]))
    with pytest.raises(ValueError, match="no more train texts after 2 utterances"):
        texts("demo", utterances=5)
