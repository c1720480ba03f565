"""However a preparation was stopped, shared or damaged, its files are those of an undisturbed run by one process."""

import errno
import logging
import os
import resource
import signal

import numpy as np
import pytest
import soundfile

from jaxslm.data import audio_shards, readers, shards
from jaxslm.data.prepare import prepare
from jaxslm.data.records import Records
from jaxslm.data.report import Report
from jaxslm.units.inventory import UnitInventory
from tests.data.children import child, times
from tests.data.killers import deadly_source
from tests.data.tones import RATE, config, files, write_corpus, write_manifest


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(audio_shards, "SHARD", 4)


def test_killed_anywhere_and_run_again(tmp_path):
    lines = write_corpus(tmp_path / "tones", 14)
    lines[5]["audio_filepath"] = "lost.wav"
    lines[9]["id"] = "u1"
    write_manifest(tmp_path / "tones", lines)
    asked, cache = config(tmp_path / "tones"), tmp_path / "killed"
    for point in (
        'shards.ShardWriter, "write", 6',  # amid the second shard
        'shards, "write_json", 2',  # a shard is there, and nothing says that it is whole
        'audio_shards, "write_json", 1',
        'prepare, "learn_inventory", 1',
        'prepare, "write_json", 1',  # learnt, and nothing says by what
        'derived_shards, "_write", 2',
        'derived_shards, "write_json", 1',
    ):
        killed = child(asked, cache, f"dies({point})")
        said = killed.communicate()[1]
        assert killed.returncode == -signal.SIGKILL, said
        (folder,) = cache.glob("audio-*/")
        assert (folder / "manifest.json").exists() == (point[0] in "pd")  # the audio is complete before any unit is
        kept = times(folder)
    resumed = prepare(asked, cache, progress=False)
    assert kept and times(resumed.folder) == kept
    whole = prepare(asked, tmp_path / "whole", progress=False)
    assert files(resumed.folder) == files(whole.folder)
    assert [u.id for u in Records(whole.folder)] == [f"tones/u{i}" for i in range(14) if i not in (5, 9)]
    assert ["the id 'u1' is taken"] == [e["cause"] for e in whole.report.entries if "taken" in e["cause"]]
    for utterance in Records(whole.folder):
        assert utterance.units[whole.inventory.sha256].seconds > 0.7


def test_a_file_that_killed_the_program_is_left_out_when_it_is_run_again(tmp_path, monkeypatch):
    lines = write_corpus(tmp_path / "tones", 10)
    asked, cache = config(tmp_path / "tones"), tmp_path / "cache"
    deadly = "from tests.data.killers import deadly_source as read_source\naudio_shards.read_source = read_source"
    killed = child(asked, cache, deadly)
    said = killed.communicate()[1]
    assert killed.returncode == -signal.SIGKILL, said
    monkeypatch.setattr(audio_shards, "read_source", deadly_source)
    prepared = prepare(asked, cache, progress=False, workers=1)
    (entry,) = [entry for entry in prepared.report.entries if entry["kind"] == "left out"]
    assert entry["where"].endswith("manifest.jsonl:3") and "is killed" in entry["cause"] and entry["cure"]
    del lines[2]
    assert [u.id for u in Records(prepared.folder)] == [f"tones/{line['id']}" for line in lines]
    monkeypatch.setattr(readers, "POOL_AFTER", -1.0)
    two = prepare(asked, tmp_path / "two", progress=False, workers=2)
    assert files(two.folder) == files(prepared.folder)


def test_another_inventory_lies_beside_the_first_and_leaves_the_audio_alone(tmp_path, monkeypatch):
    write_corpus(tmp_path / "tones", 10)
    first = prepare(config(tmp_path / "tones"), tmp_path / "cache", progress=False)
    before, written = files(first.folder), times(first.folder)
    monkeypatch.setattr(audio_shards, "read_utterances", None)
    second = prepare(config(tmp_path / "tones", units=dict(clusters=6)), tmp_path / "cache", progress=False)
    assert second.folder == first.folder and times(first.folder) == written
    assert before.items() <= files(second.folder).items()
    for utterance in Records(first.folder):
        assert set(utterance.units) == {first.inventory.sha256, second.inventory.sha256}
    assert set(Records(first.folder, second.inventory.sha256)[0].units) == {second.inventory.sha256}
    assert not Records(first.folder, "")[0].units


def flip(path, at: int = 70_000) -> None:
    content = bytearray(path.read_bytes())
    content[at % len(content)] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [flip, lambda path: path.unlink(), lambda path: path.write_bytes(b"short")])
def test_damaged_shards_are_named_and_made_again(tmp_path, caplog, damage):
    write_corpus(tmp_path / "tones", 10)
    asked = config(tmp_path / "tones")
    prepared = prepare(asked, tmp_path / "cache", progress=False)
    before = files(prepared.folder)
    for name in ("records-00001", f"{prepared.units.name}/units-00002"):
        damage(prepared.folder / f"{name}.array_record")
        caplog.clear()
        prepare(asked, tmp_path / "cache", progress=False, check=True)
        said = [record.getMessage() for record in caplog.records]
        assert sum(f"{name}.array_record is damaged" in message for message in said) == 1, said
        assert files(prepared.folder) == before


def test_damaged_audio_is_found_before_another_inventory_is_made_of_it(tmp_path, caplog):
    write_corpus(tmp_path / "tones", 10)
    prepared = prepare(config(tmp_path / "tones"), tmp_path / "cache", progress=False)
    before = files(prepared.folder)
    shard = prepared.folder / "records-00001.array_record"
    flip(shard, before["records-00001.array_record"].find(b"fLaC") + 500)
    with pytest.raises(OSError, match="damaged.*launch/prepare.py"):
        list(Records(prepared.folder))
    prepare(config(tmp_path / "tones", units=dict(clusters=6)), tmp_path / "cache", progress=False)
    assert f"{shard} is damaged" in caplog.text
    assert before.items() <= files(prepared.folder).items()


def test_a_full_disk_keeps_what_is_finished(tmp_path):
    write_corpus(tmp_path / "tones", 10)
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 12 * RATE)
    soundfile.write(tmp_path / "tones" / "audio" / "u9.wav", noise, RATE)
    asked = config(tmp_path / "tones")
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limits[1]))
    try:
        with pytest.raises(OSError, match="records-00002.*MiB are free: free space.*what is finished is kept"):
            prepare(asked, tmp_path / "cache", progress=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    (folder,) = (tmp_path / "cache").glob("audio-*/")
    kept = times(folder)
    assert {path.stem for path in kept} == {"records-00000", "records-00001"}
    assert not list(folder.glob("partial-*"))
    resumed = prepare(asked, tmp_path / "cache", progress=False)
    assert kept.items() <= times(folder).items()
    assert (
        files(folder) == files(prepare(asked, tmp_path / "whole", progress=False).folder) and resumed.folder == folder
    )


@pytest.mark.parametrize(
    "module, name, file",
    [
        (UnitInventory, "save", "units-[0-9a-f]+/inventory"),
        (Report, "save", "report.jsonl"),
        (shards, "_to_disk", "learned-[0-9a-f]+.json"),
    ],
)
def test_a_full_disk_is_named_whatever_is_saved(tmp_path, monkeypatch, module, name, file):
    write_corpus(tmp_path / "tones", 10)
    real = getattr(module, name)

    def full(*arguments):
        if name == "save" or arguments[0].name.startswith("learned"):
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*arguments)

    asked = config(tmp_path / "tones")
    with monkeypatch.context() as patched:
        patched.setattr(module, name, full)
        with pytest.raises(OSError, match=f"{file} could not be written .*No space left.*MiB are free: free space"):
            prepare(asked, tmp_path / "cache", progress=False)
    resumed = prepare(asked, tmp_path / "cache", progress=False).folder
    assert files(resumed) == files(prepare(asked, tmp_path / "whole", progress=False).folder)


def test_shards_of_a_source_that_changed_meanwhile_are_made_again(tmp_path, monkeypatch, caplog):
    """LibriSpeech's layout: nothing in the name of the folder tells that an utterance was added."""
    chapter = tmp_path / "tones" / "train-clean" / "7" / "1"
    write_corpus(tmp_path / "tones", 10)
    chapter.mkdir(parents=True)
    for i in range(10):
        os.rename(tmp_path / "tones" / "audio" / f"u{i}.wav", chapter / f"7-1-{i:04d}.wav")
    transcript = chapter / "7-1.trans.txt"
    transcript.write_text("".join(f"7-1-{i:04d} low high\n" for i in range(1, 10)))
    (chapter / "7-1-0000.wav").rename(tmp_path / "kept.wav")
    asked = dict(sources=dict(a=dict(kind="librispeech", path=str(tmp_path / "tones"))))
    with monkeypatch.context() as patched:
        patched.setattr(audio_shards, "_conclude", lambda *_: exec("raise KeyboardInterrupt"))
        with pytest.raises(KeyboardInterrupt):
            prepare(asked, tmp_path / "cache", progress=False)
    (tmp_path / "kept.wav").rename(chapter / "7-1-0000.wav")
    transcript.write_text("7-1-0000 high low\n" + transcript.read_text())
    with caplog.at_level(logging.WARNING):
        folder = prepare(asked, tmp_path / "cache", progress=False).folder
    assert caplog.text.count("the sources changed since") == 3
    assert [u.id for u in Records(folder)] == [f"a/7-1-{i:04d}" for i in range(10)]
    assert files(folder) == files(prepare(asked, tmp_path / "whole", progress=False).folder)


def test_what_is_finished_stays_where_the_units_cannot_be_learnt(tmp_path):
    write_corpus(tmp_path / "tones", 10)
    with pytest.raises(ValueError, match="too few"):
        prepare(config(tmp_path / "tones", units=dict(clusters=100_000)), tmp_path / "cache", progress=False)
    (folder,) = (tmp_path / "cache").glob("audio-*/")
    assert len(Records(folder)) == 10 and not list(folder.glob("units-*"))


def test_a_useless_source_costs_nothing_of_the_others(tmp_path):
    """Finished shards stay; corrected files are read by the next run, and the result is that of an undisturbed one."""
    write_corpus(tmp_path / "good", 8)
    lines = write_corpus(tmp_path / "poor", 4)
    asked = config(tmp_path / "good", tmp_path / "poor")
    whole = {path: path.read_bytes() for path in (tmp_path / "poor").rglob("*.wav")}
    assert len(whole) == len(lines)
    for path in whole:
        path.write_bytes(b"")
    with pytest.raises(ValueError, match="nothing in the source 'poor'"):
        prepare(asked, tmp_path / "cache", progress=False)
    (audio,) = (tmp_path / "cache").glob("audio-*/")
    finished = times(audio)
    assert len(finished) == 2
    for path, content in whole.items():
        path.write_bytes(content)
    prepared = prepare(asked, tmp_path / "cache", progress=False)
    assert prepared.folder == audio and finished.items() <= times(audio).items()
    prepare(asked, tmp_path / "undisturbed", progress=False)
    assert files(tmp_path / "cache") == files(tmp_path / "undisturbed")
