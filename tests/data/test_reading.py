import multiprocessing
import os
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from jaxslm.audio.io import decode_flac
from jaxslm.data import readers
from jaxslm.data.readers import read_utterances
from jaxslm.data.reading import Reading, read_pieces, read_utterance
from jaxslm.data.sources import RawUtterance
from jaxslm.units.alignment import Word
from jaxslm.units.units import UnitSequence
from tests.data.killers import Deadly

RATE = 16_000


def noise(seconds: float, seed: int = 0, rate: int = RATE) -> tuple[np.ndarray, int]:
    return np.random.default_rng(seed).uniform(-0.5, 0.5, int(seconds * rate)).astype(np.float32), rate


def raw(**fields) -> RawUtterance:
    return RawUtterance(**(dict(id="a", where="m.jsonl:1", text="hello there", audio=noise(1.0)) | fields))


def test_audio_is_stored_as_flac_and_text_with_single_spaces():
    utterance, entries = read_utterance(raw(text=" hello  there\n", speaker="s", split="heldout"), Reading())
    assert (utterance.text, utterance.speaker, utterance.split, utterance.words) == ("hello there", "s", "heldout", ())
    assert utterance.duration == 1.0 and not entries
    np.testing.assert_allclose(decode_flac(utterance.audio), noise(1.0)[0], atol=1 / 32768)


@pytest.mark.parametrize(
    "audio, cause",
    [
        (b"", "empty"),
        (b"RIFF but not a WAV file", "unreadable"),
        ((np.zeros(RATE, np.float32), RATE), "silent"),
        ((np.full(RATE, np.nan, np.float32), RATE), "NaN"),
        (noise(5.0), "longer than the limit of 3 s"),
        (noise(0.01), "shorter"),
    ],
)
def test_bad_audio_is_left_out_with_a_cure(audio, cause):
    ((_, utterance, (entry,)),) = read_pieces(raw(audio=audio), Reading(max_seconds=3))
    assert utterance is None
    assert cause in entry["cause"] and entry["where"] == "m.jsonl:1" and entry["cure"] and entry["what"] == "utterance"
    assert "m.jsonl" not in entry["cause"]


def test_repaired_audio_is_noted():
    samples, _ = noise(1.0, rate=8000)
    utterance, entries = read_utterance(raw(audio=(np.stack([samples, samples], 1), 8000)), Reading())
    assert utterance.duration == 1.0
    assert {entry["cause"] for entry in entries} == {"2 channels mixed down", "resampled from 8000 Hz"}
    assert {entry["kind"] for entry in entries} == {"note"}


def test_text_without_words_leaves_the_speech():
    utterance, (entry,) = read_utterance(raw(text=" ... "), Reading())
    assert utterance.text == "" and utterance.audio and entry["what"] == "text" and entry["cure"]
    assert read_utterance(raw(text=""), Reading())[1] == []  # untranscribed on purpose
    nothing, entries = read_utterance(raw(text="!", audio=None), Reading())
    assert nothing is None and entries[-1]["what"] == "utterance"


GOOD = (Word("hello", 0.1, 0.4), Word("there", 0.5, 0.9))


def test_word_times_given_with_the_record():
    given = read_utterance(raw(words=GOOD), Reading())[0]
    assert (given.words, given.words_from) == (GOOD, "record")
    loud = raw(text="Hello, there!", words=GOOD)
    assert [word.text for word in read_utterance(loud, Reading())[0].words] == ["Hello,", "there!"]


@pytest.mark.parametrize(
    "words",
    [
        (Word("hello", 0.1, 0.6), Word("there", 0.5, 0.9)),
        (Word("hello", 0.5, 0.9), Word("there", 0.1, 0.4)),
        (Word("hello", 0.4, 0.1), Word("there", 0.5, 0.9)),
        (Word("hello", 0.1, 0.4), Word("there", 0.5, 1.9)),
        (Word("hello", 0.1, 0.4),),
        (Word("hello", 0.1, 0.4), Word("where", 0.5, 0.9)),
        (),
    ],
    ids=["overlap", "order", "backwards", "past the end", "one missing", "another word", "none"],
)
def test_bad_word_times_cost_only_themselves(words):
    utterance, (entry,) = read_utterance(raw(words=words), Reading())
    assert utterance.words == () and utterance.audio and utterance.text == "hello there"
    assert entry["what"] == "word times" and entry["where"] == "m.jsonl:1" and entry["cure"]


def test_word_times_beside_the_audio(tmp_path):
    import soundfile

    soundfile.write(tmp_path / "a.wav", noise(1.0)[0], RATE)
    (tmp_path / "a.json").write_text('[["hello", 0.1, 0.4], ["there", 0.5, 0.9]]')
    found = read_utterance(raw(audio=tmp_path / "a.wav"), Reading())[0]
    assert (found.words, found.words_from) == (GOOD, "file")
    (tmp_path / "a.json").write_text("not json")
    utterance, (entry,) = read_utterance(raw(audio=tmp_path / "a.wav"), Reading())
    assert utterance.words == () and entry["what"] == "word times"


def test_precomputed_units_are_checked_against_the_inventory():
    asked = Reading(units_sha256="f" * 64, units_size=10, frame_rate=50.0)
    units = UnitSequence([3, 9], [20, 30], 50.0)
    utterance, entries = read_utterance(raw(units=units, words=GOOD), asked)
    assert utterance.units == {"f" * 64: units} and utterance.words == GOOD and not entries
    without_audio, _ = read_utterance(raw(units=units, audio=None, words=GOOD), asked)
    assert without_audio.duration == 1.0 and without_audio.audio is None and without_audio.words == GOOD
    for bad in (UnitSequence([3, 10], [20, 30], 50.0), UnitSequence([3, 9], [20, 30], 25.0), None):
        utterance, (entry,) = read_utterance(raw(units=bad), asked)
        assert utterance.units == {} and utterance.audio and entry["what"] == "units" and entry["cure"]
    short = UnitSequence([3, 9], [1, 1], 50.0)  # deduplicated, and the durations lost
    utterance, (entry,) = read_utterance(raw(units=short, words=GOOD), asked)
    assert utterance.units and utterance.words == () and entry["what"] == "word times"
    _, (entry,) = read_utterance(raw(units=units), Reading())
    assert entry["what"] == "units" and "precomputed" in entry["cure"]


def test_alignment_of_another_language_is_reported_and_the_rest_used():
    pytest.importorskip("pocketsphinx")
    utterance, (entry,) = read_utterance(raw(language="de-DE"), Reading(aligner="pocketsphinx"))
    assert utterance.audio and utterance.words == () and "'de'" in entry["cause"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_order_and_result_do_not_depend_on_workers(monkeypatch):
    monkeypatch.setattr(readers, "POOL_AFTER", 0.0)
    raws = [raw(id=f"u{i}", where=f"m:{i}", audio=noise(0.2 + 0.01 * (i % 7), i) if i % 5 else b"") for i in range(40)]
    raws.insert(11, raw(id="document", audio=None))
    alone = [result for results in read_utterances(iter(raws), Reading(), 1) for result in results]
    assert [r.id for r, _, _ in alone] == [r.id for r in raws]
    shared = [result for results in read_utterances(iter(raws), Reading(), 2) for result in results]
    assert [result[1:] for result in shared] == [result[1:] for result in alone]
    assert sum(utterance is None for _, utterance, _ in shared) == 8


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_an_utterance_that_kills_its_reader_is_left_out_by_name_and_the_others_are_read(tmp_path, caplog):
    raws = [raw(id=f"u{i}", where=f"m:{i}", audio=noise(0.2, i)) for i in range(40)]
    harmless = [results for i, results in enumerate(read_utterances(iter(raws), Reading(), 1)) if i not in (3, 30)]
    raws[3], raws[30] = (replace(raws[i], audio=(Deadly(), RATE)) for i in (3, 30))
    raws.append(raw(id="once", where="m:40", audio=(Deadly(tmp_path / "mark"), RATE)))  # out of memory for a moment
    found = list(read_utterances(iter(raws), Reading(), 2, careful=True))
    assert [results[0][0].id for results in found] == [r.id for r in raws]
    killed = [found[3], found[30]]
    rest = [results for i, results in enumerate(found[:40]) if i not in (3, 30)]
    assert [results[0][1:] for results in rest] == [results[0][1:] for results in harmless]
    for (_, utterance, (entry,)), where in zip((k[0] for k in killed), ("m:3", "m:30"), strict=True):
        assert utterance is None and entry["where"] == where and entry["what"] == "utterance"
        assert "the process that reads it is killed" in entry["cause"] and "ffmpeg" in entry["cure"]
    assert found[40][0][1] is not None and (tmp_path / "mark").exists()
    assert "a process that reads was killed" in caplog.text


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_processes_that_cannot_start_are_not_taken_for_bad_utterances(monkeypatch):
    def dying(workers):
        context = multiprocessing.get_context("spawn")
        return ProcessPoolExecutor(workers, context, initializer=os._exit, initargs=(1,))

    monkeypatch.setattr(readers, "_processes", dying)
    with pytest.raises(RuntimeError, match="before they have read anything.*__main__"):
        list(read_utterances(iter([raw()]), Reading(), 2, careful=True))


def test_processes_that_read_do_without_jax():
    code = "import sys, jaxslm.data.readers; sys.exit('jax' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("rate", [4_000, 8_000, 11_025, 22_050, 44_100, 48_000, 96_000, 192_000])
def test_sample_rates_from_4_to_192_khz(rate):
    tone = (0.3 * np.sin(2 * np.pi * 440 * np.arange(rate) / rate)).astype(np.float32)
    utterance, (entry,) = read_utterance(raw(audio=(tone, rate)), Reading())
    assert utterance.duration == 1.0 and entry["cause"] == f"resampled from {rate} Hz"
    spectrum = np.abs(np.fft.rfft(decode_flac(utterance.audio)))
    assert int(np.argmax(spectrum)) == 440  # one second: a bin a hertz


def test_a_text_in_another_script_costs_only_the_word_times():
    pytest.importorskip("pocketsphinx")
    utterance, (entry,) = read_utterance(raw(text="привет мир"), Reading(aligner="pocketsphinx"))
    assert utterance.text == "привет мир" and utterance.audio and utterance.words == ()
    assert entry["what"] == "word times" and "'привет' cannot be read out" in entry["cause"]
