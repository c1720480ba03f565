"""launch/prepare.py as a user runs it: what it says, that it goes on, and that training finds what it made."""

import json
import signal
import subprocess
import sys

import pytest

from tests.data.tones import config, files, write_corpus
from tests.end_to_end.commands import ROOT, run, together, train

TINY = "--config=configs/spiritlm_7b.py:tiny"


def arguments(folder) -> list[str]:
    sources = config(folder / "tones")["sources"]
    return [TINY, f"--config.data.sources={json.dumps(sources)}", "--config.data.units.clusters=20", "--workers=1"]


def test_it_prepares_what_training_finds(tmp_path):
    lines = write_corpus(tmp_path / "tones", 24)
    (tmp_path / "tones" / lines[3]["audio_filepath"]).write_bytes(b"")
    done = run("prepare.py", *arguments(tmp_path), f"--cache={tmp_path / 'cache'}")
    (folder,) = (tmp_path / "cache").glob("audio-*/")
    (units,) = folder.glob("units-*")
    assert f"audio and report: {folder} (left out: 1, see report.jsonl)" in done.stdout
    assert f"units: {units} (mfcc-l0-k20, " in done.stdout and "train: 18 utterances" in done.stdout
    said = done.stderr
    assert "the audio is empty (0 bytes)" in said and "x real time" in said and "reading: 100%" in said
    before = files(folder)
    assert "is prepared already" in run("prepare.py", *arguments(tmp_path), f"--cache={tmp_path / 'cache'}").stderr
    assert files(folder) == before
    trained = train(
        tmp_path / "run", tmp_path / "cache", *arguments(tmp_path)[1:3], "--config.steps=1", "--config.eval.every=1",
        "--config.data.mixture.text=0",
    )  # fmt: skip
    assert f"{folder} is prepared already" in trained.stdout + trained.stderr


DYING = """
import os, runpy, signal, sys
from jaxslm.data import shards
close, closed = shards.ShardWriter.close_into, []
def dying(*arguments):
    closed.append(close(*arguments) if not closed else os.kill(os.getpid(), signal.SIGKILL))
shards.ShardWriter.close_into = dying
sys.argv[0] = "launch/prepare.py"
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_killed_it_goes_on(tmp_path):
    """Killed when one shard of audio is finished and the other is written but for its end."""
    write_corpus(tmp_path / "tones", 530)
    command = [sys.executable, "-c", DYING, *arguments(tmp_path), f"--cache={tmp_path / 'cache'}"]
    killed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    (folder,) = tmp_path.glob("cache/audio-*/")
    assert [path.stem for path in folder.glob("records-*.json")] == ["records-00000"]
    assert list(folder.glob("partial-*/records-00001.array_record")) and not (folder / "manifest.json").exists()
    first = folder / "records-00000.array_record"
    kept = first.stat().st_mtime_ns
    run("prepare.py", *arguments(tmp_path), f"--cache={tmp_path / 'cache'}")
    assert first.stat().st_mtime_ns == kept
    run("prepare.py", *arguments(tmp_path), f"--cache={tmp_path / 'whole'}")
    assert files(folder) == files(tmp_path / "whole" / folder.name)


def two_processes(folder, cache, *more: str) -> tuple[list[int], list[str]]:
    """What two processes of one run returned and said."""
    processes, logs = [], []
    for index, environment in enumerate(together(2)):
        logs.append(folder / f"{cache.name}-{index}.txt")
        command = [sys.executable, "launch/prepare.py", *arguments(folder), f"--cache={cache}", *more]
        with logs[-1].open("wb") as output:
            processes.append(subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output, env=environment))
    try:
        for process in processes:
            process.wait(timeout=120)
    finally:
        for process in processes:
            process.kill()
    return [process.returncode for process in processes], [log.read_text() for log in logs]


def test_two_processes_make_the_files_of_one(tmp_path):
    """The texts fill the first shard, which process 0 makes; the speech is in the second."""
    write_corpus(tmp_path / "tones", 12)
    (tmp_path / "text.txt").write_text("".join(f"line {i}\n" for i in range(512)))
    asked = json.loads(arguments(tmp_path)[1].partition("=")[2])
    asked["text"] = dict(kind="text", path=str(tmp_path / "text.txt"))
    text = f"--config.data.sources={json.dumps(asked)}"
    codes, logs = two_processes(tmp_path, tmp_path / "two", text)
    assert codes == [0, 0], logs
    assert all("2 devices" in log for log in logs) and not any("each does all of the work" in log for log in logs)
    run("prepare.py", *arguments(tmp_path), text, f"--cache={tmp_path / 'one'}")
    (folder,) = (tmp_path / "one").glob("audio-*/")
    assert len(list(folder.glob("records-*.array_record"))) == 2
    assert files(tmp_path / "two" / folder.name) == files(folder)


def test_two_processes_end_together_when_one_fails(tmp_path):
    """Twelve clips have too few frames for as many units, which process 0 finds out alone."""
    write_corpus(tmp_path / "tones", 12)
    codes, logs = two_processes(tmp_path, tmp_path / "cache", "--config.data.units.clusters=100000")
    assert codes == [1, 1], logs
    assert "are too few" in logs[0] and "error: process 0 failed: " in logs[1]


@pytest.mark.parametrize(
    "wrong, complaint",
    [
        ("--config.data.units.encoder=hubbert", "'hubbert' is not known"),
        ("--config.data.sources.tones.path=/none", "no such manifest"),
        ("--config.data.units.clutsers=5", "clusters"),
        ("--config.data.units.centroids=none.npy", "no file none.npy"),
    ],
)
def test_a_mistake_ends_in_one_line(tmp_path, wrong, complaint):
    write_corpus(tmp_path / "tones", 4)
    done = run("prepare.py", *arguments(tmp_path), f"--cache={tmp_path / 'cache'}", wrong, check=False)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: ") and complaint in done.stderr.splitlines()[-1]
