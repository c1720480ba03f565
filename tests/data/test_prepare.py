import json
import logging
import os
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import soundfile

from jaxslm.audio.io import decode_clip, decode_flac
from jaxslm.data import aligning, audio_shards, readers
from jaxslm.data.prepare import UNITS, given_inventory, prepare
from jaxslm.data.records import Records
from tests.data.tones import RATE, config, files, write_corpus, write_manifest


def problems(report) -> list[dict]:
    return [entry for entry in report.entries if entry["kind"] != "coverage"]


def test_records_hold_text_audio_words_and_units(tmp_path):
    write_corpus(tmp_path / "tones")
    prepared = prepare(config(tmp_path / "tones"), tmp_path / "cache", progress=False)
    records, inventory = Records(prepared.folder), prepared.inventory
    records.check()
    assert len(records) == 16 and records.manifest["utterances"] == {"train": 12, "heldout": 4}
    assert records.manifest["inventories"][0]["sha256"] == inventory.sha256
    assert inventory.size == 4 and inventory.encoder == "mfcc"
    for utterance in records:
        assert [word.text for word in utterance.words] == ["Low", "high."]
        units = utterance.units[inventory.sha256]
        assert units == inventory.encode(decode_flac(utterance.audio))
        assert abs(units.durations.sum() / units.frame_rate - utterance.duration) < 0.05
    assert problems(prepared.report) == []
    units, (learned,) = f"units-{inventory.sha256[:12]}", [path.name for path in prepared.folder.glob("learned-*.json")]
    assert sorted(files(prepared.folder)) == [
        learned,
        "manifest.json",
        "records-00000.array_record",
        "records-00000.json",
        "report.jsonl",
        f"{units}/inventory/centroids.npy",
        f"{units}/inventory/inventory.json",
        f"{units}/manifest.json",
        f"{units}/units-00000.array_record",
        f"{units}/units-00000.json",
    ]


def test_made_once_and_again_when_what_decides_it_changes(tmp_path, caplog, monkeypatch):
    lines = write_corpus(tmp_path / "tones")
    asked = config(tmp_path / "tones")
    first = prepare(asked, tmp_path / "cache", progress=False)
    monkeypatch.setattr(audio_shards, "read_source", None)  # nothing is read again
    with caplog.at_level(logging.INFO):
        again = prepare(asked | {"context_length": 4096}, tmp_path / "cache", progress=False)
    assert again.folder == first.folder and again.inventory == first.inventory
    assert [record.getMessage() for record in caplog.records if "prepared already" in record.getMessage()]
    other = prepare(asked | {"units": dict(clusters=5)}, tmp_path / "cache", progress=False)
    assert other.folder == first.folder and other.inventory.size == 5 and other.units != first.units
    monkeypatch.undo()
    write_manifest(tmp_path / "tones", lines[:-1])
    assert len(Records(prepare(asked, tmp_path / "cache", progress=False).folder)) == 15


def test_same_bytes_for_any_number_of_workers(tmp_path, monkeypatch):
    monkeypatch.setattr(readers, "POOL_AFTER", 0.0)
    lines = write_corpus(tmp_path / "tones", 24)
    lines[5]["words"] = [["low", 0.5, 0.4]]
    lines[11]["audio_filepath"] = "lost.wav"
    (tmp_path / "tones" / "audio" / "u7.wav").write_bytes(b"")
    write_manifest(tmp_path / "tones", lines)
    one = prepare(config(tmp_path / "tones"), tmp_path / "one", progress=False, workers=1).folder
    two = prepare(config(tmp_path / "tones"), tmp_path / "two", progress=False, workers=2).folder
    assert one.name == two.name
    assert files(one) == files(two)


def test_bad_input_is_reported_and_the_rest_is_used(tmp_path):
    folder = tmp_path / "tones"
    lines = write_corpus(folder)
    soundfile.write(folder / "audio" / "u0.wav", np.zeros(RATE), RATE)
    (folder / "audio" / "u1.wav").write_bytes(b"")
    (folder / "audio" / "u2.wav").unlink()
    lines[3]["id"] = "u4"
    lines[5]["words"][1] = ["high", 0.4, 99.0]
    lines[6]["audio_filepath"] = "../elsewhere.wav"
    soundfile.write(folder / "audio" / "u8.wav", np.random.default_rng(0).uniform(-1, 1, (RATE // 2, 2)), 8000)
    write_manifest(folder, lines)
    with (folder / "manifest.jsonl").open("a") as file:
        file.write('{"audio_filepath": "audio/u3.wav"\n{"audio_filepath": "audio/u3.wav"}\n')
    prepared = prepare(config(folder), tmp_path / "cache", progress=False)
    report = {}
    for entry in problems(prepared.report):
        report.setdefault((int(entry["where"].rsplit(":", 1)[1]), entry["what"]), []).append(entry)
    assert set(report) == {
        (1, "utterance"),  # silent
        (2, "utterance"),  # empty
        (3, "utterance"),  # missing
        (5, "utterance"),  # line 4 has its id
        (6, "word times"),
        (7, "utterance"),  # outside
        (9, "note"),
        (17, "utterance"),  # not JSON
        (18, "utterance"),  # no text
    }
    assert all(entry["cure"] for (_, what), entries in report.items() if what != "note" for entry in entries)
    assert all(entry["where"].startswith(str(folder / "manifest.jsonl")) for entry in problems(prepared.report))
    records = {utterance.id: utterance for utterance in Records(prepared.folder)}
    assert len(records) == 11
    assert set(records) == {f"tones/u{i}" for i in (4, 5, 7, 8, 9, 10, 11, 12, 13, 14, 15)}
    assert records["tones/u5"].words == () and records["tones/u5"].units and records["tones/u8"].duration == 1.0
    assert json.loads((prepared.folder / "report.jsonl").read_text().splitlines()[0])["cause"]
    again = prepare(config(folder), tmp_path / "cache", progress=False)
    assert again.report.summary() == prepared.report.summary() and "7 x" not in again.report.summary()


def test_sources_join_and_text_needs_no_speech(tmp_path):
    write_corpus(tmp_path / "tones", 8)
    (tmp_path / "text.txt").write_text("a document\nanother one\n...\n")
    asked = config(tmp_path / "tones")
    asked["sources"]["text"] = dict(kind="text", path=str(tmp_path / "text.txt"), heldout=0.0)
    prepared = prepare(asked, tmp_path / "cache", progress=False)
    records = Records(prepared.folder)
    assert records.manifest["speech"] == {"train": 6, "heldout": 2} and len(records) == 10
    assert [u.text for u in records if not u.audio] == ["a document", "another one"]
    text_only = dict(sources=dict(text=asked["sources"]["text"]))
    prepared = prepare(text_only, tmp_path / "cache", progress=False)
    assert prepared.inventory is None and len(Records(prepared.folder)) == 2


def test_sources_may_use_the_same_ids(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        write_manifest(tmp_path / name, [dict(text=f"line {i} of {name}") for i in range(3)])
    sources = {name: dict(kind="text", path=str(tmp_path / name / "manifest.jsonl")) for name in "ab"}
    prepared = prepare(dict(sources=sources), tmp_path / "cache", progress=False)
    assert {u.id: u.text for u in Records(prepared.folder)} == {
        f"{name}/manifest.jsonl:{i + 1}": f"line {i} of {name}" for name in "ab" for i in range(3)
    }
    assert not problems(prepared.report)


def test_speech_used_as_text_too_is_held_out_as_both(tmp_path):
    lines = write_corpus(tmp_path / "tones", 40, split=None)
    for i, line in enumerate(lines):
        line["text"] = f"transcript {i}"
        if i % 3 == 0:  # by the audio path
            del line["id"]
        if i % 10 == 0:
            line["split"] = "dev"
    write_manifest(tmp_path / "tones", lines)
    asked = config(tmp_path / "tones")
    asked["sources"]["tones"]["heldout"] = 0.3
    asked["sources"]["text"] = dict(kind="text", path=str(tmp_path / "tones"), heldout=0.3)
    splits = {"text": {}, "tones": {}}
    for utterance in Records(prepare(asked, tmp_path / "cache", progress=False).folder):
        splits[utterance.id.split("/")[0]][utterance.text] = utterance.split
    heldout = {text for text, split in splits["tones"].items() if split == "heldout"}
    training = {text for text, split in splits["text"].items() if split == "train"}
    assert 5 < len(heldout) < 25 and not heldout & training
    assert splits["text"] == splits["tones"] and len(training) + len(heldout) == 40


def test_word_times_are_found_under_the_id_that_the_source_gives(tmp_path):
    (line,) = write_corpus(tmp_path / "tones", 1, words=None)
    (tmp_path / "tones" / "audio" / "u0.ctm").write_text("u0 1 0.05 0.35 low\nu0 1 0.40 0.35 high\n")
    (utterance,) = Records(prepare(config(tmp_path / "tones"), tmp_path / "cache", progress=False).folder)
    assert utterance.id == f"tones/{line['id']}" and [word.text for word in utterance.words] == ["Low", "high."]


def test_alignment_without_its_extra_is_refused(tmp_path, monkeypatch):
    write_corpus(tmp_path / "tones", 2)
    monkeypatch.setitem(sys.modules, "pocketsphinx", None)
    with pytest.raises(ValueError, match=r"pip install 'jaxslm\[demo\]'"):
        prepare(config(tmp_path / "tones", alignment="pocketsphinx"), tmp_path / "cache", progress=False)


class TonesModel:
    """A CTC model of tones: "l" while the pitch is low, "h" while it is high, "|" at the change."""

    labels, blank, frame_rate = ["<pad>", "|", *"lowhig"], 0, 50.0

    def log_probs(self, clips):
        results = []
        for samples_N in clips:
            n = len(samples_N) // 320
            spell = {0: "<pad>", 3: "l", 8: "o", 14: "w", 20: "|", 24: "h", 28: "i", 31: "g", 35: "h"}
            ids = [self.labels.index(spell.get(t, "<pad>")) for t in range(n)]
            results.append(np.log(np.eye(len(self.labels), dtype=np.float32)[ids] * 0.9 + 0.01))
        return results


def test_speech_without_word_times_is_aligned_by_a_ctc_model_in_batches(tmp_path, monkeypatch):
    fake = types.SimpleNamespace(NeuralCtc=lambda folder, language: TonesModel())
    monkeypatch.setitem(sys.modules, "jaxslm.units.neural_ctc", fake)
    monkeypatch.setattr(aligning, "BATCH_SECONDS", 2.0)
    folder, model = tmp_path / "tones", tmp_path / "model"
    lines = write_corpus(folder, 12)
    for line in lines[2:]:
        del line["words"]
    lines[1]["words"] = [["low", 0.5, 0.4], ["high", 0.4, 0.75]]
    lines[4]["text"] = "low high " * 40
    write_manifest(folder, lines)
    model.mkdir()
    (model / "config.json").write_text("{}")
    asked = config(folder, alignment=f"ctc:{model}")
    prepared = prepare(asked, tmp_path / "cache", progress=False)
    records = list(Records(prepared.folder))
    assert [utterance.id for utterance in records] == [f"tones/u{i}" for i in range(12)]
    assert [u.words_from for u in records] == ["record", "", "ctc", "ctc", "", *["ctc"] * 7]
    words = records[2].words
    assert [(w.text, round(w.start, 2), round(w.end, 2)) for w in words] == [("Low", 0.04, 0.32), ("high.", 0.46, 0.74)]
    bad, short = problems(prepared.report)
    assert (bad["where"], bad["what"]) == (f"{folder / 'manifest.jsonl'}:2", "word times") and "backwards" in bad[
        "cause"
    ]
    assert short["where"].endswith(":5") and "frames, the audio has 40" in short["cause"] and "belong" in short["cure"]
    (line,) = [entry for entry in prepared.report.entries if entry["kind"] == "coverage"]
    assert line["where"] == "tones"
    assert line["cause"] == "10 of 12 utterances have word times (9 ctc, 1 record), over 60% of 0.00 h"
    assert line["cause"] in prepared.report.summary()
    (model / "config.json").write_text('{"other": 1}')
    assert prepare(asked, tmp_path / "cache", progress=False).folder != prepared.folder


def test_precomputed_units(tmp_path):
    lines = [dict(id=f"u{i}", text="x", units=[i, 1, 2], durations=[3, 1, 1], frame_rate=25) for i in range(6)]
    (tmp_path / "units").mkdir()
    write_manifest(tmp_path / "units", lines)
    units = dict(encoder="precomputed:mhubert", layer=11, clusters=5, frame_rate=25.0, sha256="ab")
    prepared = prepare(config(tmp_path / "units", units=units), tmp_path / "cache", progress=False)
    inventory = prepared.inventory
    assert (inventory.encoder, inventory.layer, inventory.size) == ("precomputed:mhubert", 11, 5)
    sequences = [u.units.get(inventory.sha256) for u in Records(prepared.folder)]
    assert [s.ids.tolist() for s in sequences if s] == [[i, 1, 2] for i in range(5)]
    assert "unit 5 of an inventory of 5" in prepared.report.entries[0]["cause"]


def test_centroids_from_a_file_are_used(tmp_path):
    write_corpus(tmp_path / "a")
    np.save(tmp_path / "km.npy", np.random.default_rng(0).normal(size=(6, 39)))
    units = dict(encoder="mfcc", centroids=str(tmp_path / "km.npy"))
    prepared = prepare(config(tmp_path / "a", units=units), tmp_path / "cache", progress=False)
    assert prepared.inventory.name == "mfcc-l0-k6" and prepared.inventory.mean is None
    assert all(u.units[prepared.inventory.sha256] for u in Records(prepared.folder))


def test_given_inventory_is_used_and_a_changed_one_refused(tmp_path):
    write_corpus(tmp_path / "tones")
    learned = prepare(config(tmp_path / "tones"), tmp_path / "cache", progress=False)
    write_corpus(tmp_path / "more", 5, "m")
    units = dict(inventory=str(learned.units / "inventory"))
    prepared = prepare(config(tmp_path / "more", units=units), tmp_path / "cache", progress=False)
    assert prepared.inventory == learned.inventory
    assert all(u.units[learned.inventory.sha256] for u in Records(prepared.folder))
    centroids = learned.units / "inventory" / "centroids.npy"
    np.save(centroids, np.load(centroids) + 1)
    with pytest.raises(ValueError, match="inventory"):
        prepare(config(tmp_path / "more", units=units), tmp_path / "cache", progress=False)


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(sources={}), "data.sources is empty"),
        (dict(sources=dict(a=dict(kind="manifest", path="none.jsonl"))), "no such manifest"),
        (dict(sources=dict(a=dict(kind="manifest"))), "needs a path"),
        (dict(sources=dict(a=dict(kind="manifest", path="x", heldot=1))), "no heldot.*heldout"),
        (dict(units=dict(encoder="hubret")), "hubret.*mfcc"),
        (dict(units=dict(cluster=5)), "no cluster.*clusters"),
        (dict(units=dict(encoder="precomputed:x")), "frame_rate"),
        (dict(units=dict(inventory="hubert-base-ls960-l6-k100")), "needs its files: .*km100/km.bin.*units.centroids"),
        (dict(units=dict(centroids="none.npy")), "no file none.npy"),
        (dict(alignment="mfa"), "'mfa'.*pocketsphinx.*ctc:FOLDER"),
        (dict(alignment="ctc:"), "'ctc:'.*ctc:FOLDER"),
        (dict(alignment="ctc:nowhere"), "no such folder; give that of a Hugging Face CTC model"),
        (dict(max_seconds=0.2), "source 'tones'.*longer than the limit"),
    ],
)
def test_what_cannot_work_is_refused_and_leaves_nothing(tmp_path, changes, message):
    write_corpus(tmp_path / "tones", 4)
    with pytest.raises(ValueError, match=f"(?s){message}"):
        prepare(config(tmp_path / "tones") | changes, tmp_path / "cache", progress=False)
    assert not [path for path in (tmp_path / "cache").glob("*") if path.is_dir()]


def test_recorded_speech_is_aligned_alike_by_any_number_of_workers(tmp_path, monkeypatch):
    pytest.importorskip("pocketsphinx")
    corpus = Path(os.environ.get("JAXSLM_CORPORA", "")) / "asterisk_en"
    if not (corpus / "manifest.jsonl").is_file():
        pytest.skip("JAXSLM_CORPORA does not name a folder with asterisk_en")
    monkeypatch.setattr(readers, "POOL_AFTER", 0.0)
    asked = config(corpus, alignment="pocketsphinx", units=dict(clusters=20))
    asked["sources"]["asterisk_en"]["limit"] = 24
    one = prepare(asked, tmp_path / "one", progress=False, workers=1)
    two = prepare(asked, tmp_path / "two", progress=False, workers=2)
    assert files(one.folder) == files(two.folder)
    aligned = [utterance for utterance in Records(one.folder) if utterance.words]
    assert len(aligned) >= 23
    for utterance in aligned:
        assert [word.text for word in utterance.words] == utterance.text.split()
        loud = decode_flac(utterance.audio) ** 2
        spoken = np.zeros(len(loud), bool)
        for word in utterance.words:
            spoken[int(word.start * RATE) : int(word.end * RATE)] = True
        assert loud[spoken].sum() > 0.8 * loud.sum(), f"{utterance.id}: the words lie in the pauses"


def test_a_lost_report_and_damaged_descriptions_are_made_again(tmp_path):
    write_corpus(tmp_path / "tones", 4)
    broken = dict(audio_filepath="audio/u9.wav", text="gone", id="gone")
    with open(tmp_path / "tones" / "manifest.jsonl", "a") as file:
        file.write(json.dumps(broken) + "\n")
    made = prepare(config(tmp_path / "tones"), tmp_path / "cache", progress=False)
    before = files(made.folder)
    assert made.report.count() == 1
    for damage in (
        lambda: (made.folder / "report.jsonl").unlink(),
        lambda: (made.units / "manifest.json").write_text("{"),
        lambda: (made.folder / "records-00000.json").write_text("{}"),
        lambda: (made.units / "units-00000.json").write_text("[]"),
    ):
        damage()
        again = prepare(config(tmp_path / "tones"), tmp_path / "cache", progress=False)
        assert files(made.folder) == before and again.report.count() == 1
    (made.folder / "manifest.json").write_text("{}")
    with pytest.raises(ValueError, match="manifest.json is damaged .*prepare the data again"):
        Records(made.folder)
    prepare(config(tmp_path / "tones"), tmp_path / "cache", progress=False)
    assert files(made.folder) == before


def test_sweeping_the_audio_leaves_the_units_of_others_alone(tmp_path):
    write_corpus(tmp_path / "tones", 4)
    made = prepare(config(tmp_path / "tones"), tmp_path / "cache", progress=False)
    (made.folder / "report.jsonl").unlink()  # so that the audio is concluded once more
    living = made.units / "partial-1-ab"  # of process 1, which has begun with its units
    living.mkdir()
    prepare(config(tmp_path / "tones"), tmp_path / "cache", progress=False)
    assert living.is_dir()


def test_audio_may_be_stored_at_another_rate_and_units_are_those_of_16_khz(tmp_path):
    folder, rate = tmp_path / "tones", 24_000
    write_corpus(folder, 4)
    for path in (folder / "audio").iterdir():
        soundfile.write(path, 0.3 * np.sin(2 * np.pi * 9_000 * np.arange(rate) / rate), rate)
    stored, heard = (prepare(config(folder, sample_rate=hz), tmp_path / "c", progress=False) for hz in (rate, 16_000))
    assert stored.folder != heard.folder
    for high, low in zip(Records(stored.folder), Records(heard.folder), strict=True):
        clip = decode_clip(high.audio)
        assert clip.rate == rate and len(clip.samples) == rate and high.duration == 1.0
        assert np.abs(np.fft.rfft(clip.samples))[9_000] > 3_000  # of 3,600; at 16 kHz there is no such frequency
        assert decode_clip(low.audio).rate == 16_000 and len(decode_flac(high.audio)) == 16_000
        assert stored.inventory.encode(decode_flac(high.audio)) == high.units[stored.inventory.sha256]


def test_given_units_can_stay_one_a_frame(tmp_path):
    np.save(tmp_path / "km.npy", np.random.default_rng(0).normal(size=(5, 39)).astype(np.float32))
    for deduplicated in (True, False):
        given = given_inventory(UNITS | dict(centroids=str(tmp_path / "km.npy"), deduplicated=deduplicated))
        assert given.deduplicated == deduplicated
        listed = dict(encoder="precomputed:mine", frame_rate=50.0, deduplicated=deduplicated)
        assert given_inventory(UNITS | listed).deduplicated == deduplicated


def test_learned_units_can_stay_one_a_frame(tmp_path):
    write_corpus(tmp_path / "tones", 2)
    joined, frames = (
        prepare(config(tmp_path / "tones", units=dict(clusters=4, deduplicated=d)), tmp_path / "cache", progress=False)
        for d in (True, False)
    )
    assert frames.inventory.sha256 != joined.inventory.sha256 and not frames.inventory.deduplicated
    for a, b in zip(*(Records(p.folder, p.inventory.sha256) for p in (joined, frames)), strict=True):
        a, b = a.units[joined.inventory.sha256], b.units[frames.inventory.sha256]
        assert b.ids.tolist() == a.expand().tolist() and set(b.durations) == {1} and len(a) < len(b)


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(sample_rate=2_000), "data.sample_rate=2000: choose 4000 to 192000 Hz"),
        (dict(units=dict(kmeans_batch=-1)), "data.units.kmeans_batch=-1: give the frames of a batch, or 0"),
        (dict(units=dict(clusters=1)), "data.units.clusters=1: choose 2 to max_fit_frames=200000"),
        (dict(units=dict(inventory="hubert-base-ls960-l6-k101")), "no folder and no published inventory.*l6-k100"),
    ],
)
def test_settings_that_cannot_be_are_refused_before_anything_is_read(changes, message, tmp_path):
    write_corpus(tmp_path / "tones", 1)
    with pytest.raises(ValueError, match=message):
        prepare(config(tmp_path / "tones", **changes), tmp_path / "cache", progress=False)
    assert not list((tmp_path / "cache").glob("audio-*"))
