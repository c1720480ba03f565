"""Several processes that make one preparation, and several programs that ask for the same."""

import os
import shutil
import tempfile
import time
from pathlib import Path

import pytest

from jaxslm.data import audio_shards, sharing
from jaxslm.data.prepare import prepare
from jaxslm.data.records import Records
from tests.data.children import child, times
from tests.data.tones import config, files, write_corpus


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(audio_shards, "SHARD", 4)


def logs_of(processes) -> list[str]:
    return [process.communicate(timeout=100)[1] for process in processes]


def until(happened, process) -> None:
    """Waits until it happened, or the process, which does it, has ended."""
    while not happened() and process.poll() is None:
        time.sleep(0.01)


def test_two_processes_make_the_files_of_one(tmp_path):
    write_corpus(tmp_path / "tones", 14)
    asked = config(tmp_path / "tones")
    parts = [child(asked, tmp_path / "two", process_index=i, process_count=2, run="a") for i in range(2)]
    logs = logs_of(parts)
    assert [process.returncode for process in parts] == [0, 0], logs
    one = prepare(asked, tmp_path / "one", progress=False)
    assert len(times(one.folder)) == 4
    assert files(tmp_path / "two" / one.folder.name) == files(one.folder)


FAULTS = dict(
    early="prepare.given_inventory = lambda *_: exec('raise ValueError(\"no such weights\")')",
    late="prepare.learn_inventory = lambda *_, **__: exec('raise ValueError(\"no such weights\")')",
)


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("first", [0, 1])
def test_a_process_that_fails_ends_the_others_of_its_run_whoever_began_first(tmp_path, fault, first):
    write_corpus(tmp_path / "tones", 10)
    asked, cache = config(tmp_path / "tones"), tmp_path / "cache"

    def begin(index: int, run: str, code: str = ""):
        return child(asked, cache, code, process_index=index, process_count=2, run=run)

    failing = begin(0, "a", FAULTS[fault]) if first == 0 else None
    if fault == "early" and failing:
        failing.wait()
    waiting = begin(1, "a")
    if first == 1:
        until((cache / ".run-a" / "complete-1").exists, waiting)
        failing = begin(0, "a", FAULTS[fault])
    logs = logs_of([failing, waiting])
    assert [failing.returncode, waiting.returncode] == [1, 1], logs
    assert logs[0].rstrip().endswith("ValueError: no such weights")
    assert logs[1].rstrip().endswith("OtherFailed: process 0 failed: no such weights")
    again = [begin(i, "b") for i in (1, 0)]  # what the run before left does not disturb the next
    logs = logs_of(again)
    assert [process.returncode for process in again] == [0, 0], logs


def test_processes_need_a_name_for_their_run(tmp_path):
    write_corpus(tmp_path / "tones", 4)
    with pytest.raises(ValueError, match="`run` is empty: give all of them one new name"):
        prepare(config(tmp_path / "tones"), tmp_path / "cache", progress=False, process_count=2)


def test_what_a_run_said_is_forgotten_after_a_month(tmp_path):
    for name, hours in (("old", 800), ("young", 600)):
        (tmp_path / f".run-{name}").mkdir()
        (tmp_path / f".run-{name}" / "failed-0").write_text("why")
        os.utime(tmp_path / f".run-{name}", (time.time() - hours * 3600,) * 2)
    with sharing.telling(tmp_path, 1, 2, "new") as part:
        part.check()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".run-new", ".run-young"]


def test_units_are_learnt_only_when_the_shards_of_all_processes_are_sound(tmp_path):
    write_corpus(tmp_path / "tones", 10)
    cache = tmp_path / "cache"
    folder = prepare(config(tmp_path / "tones"), cache, progress=False).folder
    shutil.copytree(cache, tmp_path / "sound")
    shard = folder / "records-00001.array_record"  # process 1 makes it
    content = bytearray(shard.read_bytes())
    content[content.find(b"fLaC") + 500] ^= 1
    shard.write_bytes(content)
    asked = config(tmp_path / "tones", units=dict(clusters=6))
    first = child(asked, cache, process_index=0, process_count=2, run="a")
    until((cache / ".run-a" / "complete-0").exists, first)
    parts = [first, child(asked, cache, process_index=1, process_count=2, run="a")]
    logs = logs_of(parts)
    assert [process.returncode for process in parts] == [0, 0], logs
    assert f"{shard} is damaged" in logs[1]
    prepare(asked, tmp_path / "sound", progress=False)
    assert files(folder) == files(tmp_path / "sound" / folder.name)


def test_two_programs_prepare_once(tmp_path):
    write_corpus(tmp_path / "tones", 8)
    inside, go, asked = tmp_path / "inside", tmp_path / "go", config(tmp_path / "tones")
    code = f"""
import pathlib, time
make, inside, go = prepare.make_audio_shards, pathlib.Path({str(inside)!r}), pathlib.Path({str(go)!r})
def making(*arguments, **options):
    inside.touch()
    while not go.exists():
        time.sleep(0.01)
    return make(*arguments, **options)
prepare.make_audio_shards = making
"""
    first = child(asked, tmp_path / "cache", code)
    until(inside.exists, first)
    second = child(asked, tmp_path / "cache")
    said = ""
    while "waiting for another process that prepares" not in said:
        line = second.stderr.readline()
        assert line, said  # it ended without waiting
        said += line
    go.touch()
    logs = logs_of([first, second])
    assert [first.returncode, second.returncode] == [0, 0], logs
    assert ["prepared already" in log for log in logs] == [False, True]


def test_a_complete_preparation_is_used_from_a_folder_that_cannot_be_written(monkeypatch):
    """Root may write anywhere, so it becomes somebody else meanwhile; pytest's own folders would be closed to that."""
    with tempfile.TemporaryDirectory() as name:
        top = Path(name)
        top.chmod(0o755)
        write_corpus(top / "tones", 10)
        asked, cache = config(top / "tones"), top / "cache"
        prepared = prepare(asked, cache, progress=False)
        for lock in cache.glob("*.lock"):
            lock.unlink()
        before = files(cache)
        for path in (cache, *cache.rglob("*")):
            path.chmod(0o555 if path.is_dir() else 0o444)
        if os.getuid() == 0:
            os.seteuid(65534)
        try:
            with pytest.raises(PermissionError):
                (cache / "new").touch()
            for check in (False, True):
                again = prepare(asked, cache, progress=False, check=check)
            assert again.folder == prepared.folder and len(Records(again.folder)) == 10
            with pytest.raises(OSError, match="could not be written.*choose another folder"):
                prepare(config(top / "tones", max_seconds=5), cache, progress=False)
        finally:
            os.seteuid(os.getuid())
            for path in (cache, *cache.rglob("*")):
                path.chmod(0o755)
        assert files(cache) == before
