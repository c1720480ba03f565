"""Audio longer than data.max_seconds: in pieces that together are the whole, or left out by name."""

import re

import numpy as np
import pytest
import soundfile

from jaxslm.audio.io import decode_flac
from jaxslm.data.prepare import prepare
from jaxslm.data.reading import Reading, read_pieces
from jaxslm.data.records import Records
from jaxslm.data.sources import RawUtterance
from jaxslm.units.alignment import Word
from jaxslm.units.units import UnitSequence
from tests.data.tones import RATE, config, write_manifest

LIMIT = Reading(max_seconds=5.0)


def speech(seconds: float = 12.0, pauses=(4.0, 8.0)) -> np.ndarray:
    samples_N = np.random.default_rng(0).integers(-9000, 9000, int(seconds * RATE)) / 32768
    for start in pauses:
        samples_N[int(start * RATE) : int((start + 0.5) * RATE)] = 0.0
    return samples_N.astype(np.float32)


def raw(**fields) -> RawUtterance:
    return RawUtterance(**(dict(id="a", where="m.jsonl:1", audio=(speech(), RATE)) | fields))


def joined(results) -> np.ndarray:
    return np.concatenate([decode_flac(utterance.audio) for _, utterance, _ in results])


def test_untranscribed_speech_is_cut_at_quiet_places_and_nothing_is_lost():
    results = read_pieces(raw(speaker="s", split="heldout"), LIMIT)
    assert [piece.id for piece, _, _ in results] == ["a/0001", "a/0002", "a/0003"]
    assert [piece.where for piece, _, _ in results][1] == "m.jsonl:1 [4.10-8.11 s]"
    utterances = [utterance for _, utterance, _ in results]
    assert {(u.speaker, u.split, u.text, u.words) for u in utterances} == {("s", "heldout", "", ())}
    assert all(0 < u.duration <= 5.0 for u in utterances)
    np.testing.assert_array_equal(joined(results), speech())
    notes = [entry["cause"] for _, _, entries in results for entry in entries]
    assert notes == ["12.0 s cut into 3 pieces"]


def test_words_go_with_the_piece_they_are_in():
    text = "one two three, four five six!"
    times = [(0.5, 1.5), (1.5, 3.9), (4.6, 6.0), (6.1, 7.9), (8.6, 9.5), (9.5, 11.9)]
    words = tuple(Word(word, *span) for word, span in zip("one two three four five six".split(), times, strict=True))
    results = read_pieces(raw(text=text, words=words), LIMIT)
    utterances = [utterance for _, utterance, _ in results]
    assert [u.text for u in utterances] == ["one two", "three, four", "five six!"]
    assert all(u.words_from == "record" for u in utterances)
    np.testing.assert_array_equal(joined(results), speech())
    starts = np.cumsum([0.0] + [u.duration for u in utterances])
    back = [(w.start + start, w.end + start) for u, start in zip(utterances, starts[:-1], strict=True) for w in u.words]
    np.testing.assert_allclose(back, times, atol=1e-9)


@pytest.mark.parametrize(
    "fields, cause, cure",
    [
        (dict(text="one two"), "12.0 s is longer than the limit of 5 s, and no word times say where", "align it"),
        (
            dict(text="one two", words=(Word("one", 0.2, 9.0), Word("two", 9.0, 11.0))),
            "longer than the limit.*cannot be cut between words: no pause between words from",
            "cut it, or raise max_seconds",
        ),
        (
            dict(text="one two", words=(Word("one", 3.0, 2.0), Word("two", 4.0, 5.0))),
            "longer than the limit.*runs backwards",
            "in seconds",
        ),
    ],
    ids=["no times", "a long word", "bad times"],
)
def test_what_cannot_be_cut_is_left_out_by_name(fields, cause, cure):
    ((_, utterance, (entry,)),) = read_pieces(raw(**fields), LIMIT)
    assert utterance is None and entry["where"] == "m.jsonl:1" and entry["what"] == "utterance"
    assert re.search(cause, entry["cause"]) and cure in entry["cure"]


def test_precomputed_units_are_not_cut():
    asked = Reading(max_seconds=5.0, units_sha256="f" * 64, units_size=9, frame_rate=50.0)
    ((_, utterance, (entry,)),) = read_pieces(raw(units=UnitSequence([1], [600], 50.0)), asked)
    assert utterance is None and "longer than the limit" in entry["cause"]


def test_a_silent_piece_is_left_out_and_the_others_are_used():
    samples_N = speech(20.0, pauses=())
    samples_N[6 * RATE : 14 * RATE] = 0.0
    results = read_pieces(raw(audio=(samples_N, RATE)), LIMIT)
    entries = [entry for _, _, entries in results for entry in entries if entry["kind"] == "left out"]
    assert entries and all("silent" in entry["cause"] and "m.jsonl:1 [" in entry["where"] for entry in entries)
    used = sum(utterance.duration for _, utterance, _ in results if utterance)
    assert 12.0 <= used <= 20.0


def test_a_long_recording_becomes_records_with_units(tmp_path):
    folder = tmp_path / "tones"
    folder.mkdir()
    soundfile.write(folder / "long.flac", np.stack([speech()] * 2, 1), RATE)
    soundfile.write(folder / "short.flac", speech(2.0, ()), RATE)
    write_manifest(folder, [dict(audio_filepath=f"{name}.flac", text="", split="train") for name in ("long", "short")])
    prepared = prepare(config(folder, max_seconds=5), tmp_path / "cache", progress=False)
    records = list(Records(prepared.folder))
    assert [u.id for u in records] == [*(f"tones/long/000{i}" for i in (1, 2, 3)), "tones/short"]
    assert sum(u.duration for u in records) == 14.0
    assert all(len(u.units[prepared.inventory.sha256]) for u in records)
    assert {e["cause"] for e in prepared.report.entries} == {"2 channels mixed down", "12.0 s cut into 3 pieces"}
