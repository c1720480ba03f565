"""Audio longer than data.max_seconds: in pieces that together are the whole, or left out by name."""

import re

import numpy as np
import pytest
import soundfile

from jaxslm.audio.io import decode_flac, read_audio
from jaxslm.data import audio_shards, reading
from jaxslm.data.prepare import prepare
from jaxslm.data.reading import Reading, read_pieces
from jaxslm.data.records import Records
from jaxslm.data.report import Report
from jaxslm.data.sources import RawUtterance, read_source
from jaxslm.units.alignment import AlignmentError, Word
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


class Evenly:
    """An aligner that gives each word an equal share of the audio, its middle half; of a bad text it says so."""

    def align(self, samples_N, text):
        if "bad" in text:
            raise AlignmentError("the audio does not fit the text; check that they belong together")
        share = len(samples_N) / RATE / len(text.split())
        return tuple(Word(w, (i + 0.25) * share, (i + 0.75) * share) for i, w in enumerate(text.split()))

    def align_batch(self, clips, texts, languages):
        results = []
        for samples_N, text in zip(clips, texts, strict=True):
            try:
                results.append(self.align(samples_N, text))
            except AlignmentError as error:
                results.append(error)
        return results


def test_a_long_text_without_word_times_is_aligned_and_cut_between_words(monkeypatch):
    monkeypatch.setattr(reading, "_aligner", lambda name, language: Evenly())
    asked = Reading(max_seconds=5.0, aligner="pocketsphinx")
    results = read_pieces(raw(text="one two, three four five six"), asked)
    utterances = [utterance for _, utterance, _ in results]
    assert [u.text for u in utterances] == ["one two,", "three four", "five six"]
    assert all(u.words_from == "pocketsphinx" for u in utterances)
    np.testing.assert_array_equal(joined(results), speech())
    ((_, utterance, (entry,)),) = read_pieces(raw(text="a bad text"), asked)
    assert utterance is None and entry["what"] == "utterance" and "check that they belong" in entry["cure"]
    assert entry["cause"] == (
        "12.0 s is longer than the limit of 5 s, and cannot be cut between words: the audio does not fit the text"
    )


def test_an_aligner_of_many_clips_has_long_ones_aligned_before_they_are_cut(tmp_path, monkeypatch):
    """Records stay in their order and with their source, whatever is cut or left out between them."""
    folder, model, other = tmp_path / "tones", tmp_path / "model", tmp_path / "other"
    model.mkdir()
    asked = config(folder, other, max_seconds=5, alignment=f"ctc:{model}")
    texts = dict(a="hello there", b="one two three four five six", c="a bad text", d="good night")
    for place in (folder, other):
        place.mkdir()
        for name in texts:
            samples = np.stack([speech()] * 2, 1) if name in "bc" else speech(2.0, ())
            soundfile.write(place / f"{name}.flac", samples, RATE)
        write_manifest(place, [dict(audio_filepath=f"{n}.flac", text=t, split="train") for n, t in texts.items()])
    monkeypatch.setattr(audio_shards, "load_aligner", lambda name: Evenly())
    prepared = prepare(asked, tmp_path / "cache", progress=False)
    records = list(Records(prepared.folder))
    ids = ["a", "b/0001", "b/0002", "b/0003", "d"]
    assert [u.id for u in records] == [f"{source}/{id}" for source in ("other", "tones") for id in ids]
    assert [u.text for u in records[:5]] == ["hello there", "one two", "three four", "five six", "good night"]
    assert all(u.words_from == "ctc" and len(u.words) == 2 for u in records)
    whole = np.concatenate([decode_flac(u.audio) for u in records[1:4]])
    np.testing.assert_array_equal(whole, speech())
    left_out = [entry for entry in prepared.report.entries if entry["kind"] == "left out"]
    assert [entry["where"] for entry in left_out] == [f"{place / 'manifest.jsonl'}:3" for place in (other, folder)]
    assert all(entry["cause"].startswith("12.0 s is longer than the limit of 5 s, and cannot") for entry in left_out)
    notes = [entry["cause"] for entry in prepared.report.entries if entry["where"] == f"{folder / 'manifest.jsonl'}:2"]
    assert notes == ["2 channels mixed down", "12.0 s cut into 3 pieces"]


def test_pocketsphinx_aligns_long_speech_before_it_is_cut():
    for name in ("pocketsphinx", "espeakng_loader"):
        pytest.importorskip(name)
    spoken = list(read_source(dict(kind="demo", utterances=5), Report(log=False)))
    samples_N = np.concatenate([read_audio(r.audio, where=r.where).samples for r in spoken])
    text = " ".join(" ".join(r.text for r in spoken).split())
    asked = Reading(max_seconds=8.0, aligner="pocketsphinx")
    results = read_pieces(raw(text=text, audio=(samples_N, RATE), language="en"), asked)
    utterances = [utterance for _, utterance, _ in results]
    assert len(utterances) > 1 and all(u.duration <= 8.0 for u in utterances)
    assert " ".join(u.text for u in utterances) == text
    assert [word.text for u in utterances for word in u.words] == text.split()
    np.testing.assert_allclose(joined(results), samples_N, atol=1 / 32768)
