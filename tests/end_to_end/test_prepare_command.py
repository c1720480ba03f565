"""launch/prepare.py as a user runs it: what it says, that it goes on, and that training finds what it made."""

import json
import signal
import subprocess
import sys
import time

import pytest

from tests.data.tones import config, files, write_corpus
from tests.end_to_end.commands import ROOT, run, train

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


def test_killed_it_goes_on(tmp_path):
    write_corpus(tmp_path / "tones", 700)
    command = [sys.executable, "launch/prepare.py", *arguments(tmp_path), f"--cache={tmp_path / 'cache'}"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not list(tmp_path.glob("cache/audio-*/records-00000.json")):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    first = next(tmp_path.glob("cache/audio-*/records-00000.array_record"))
    kept = first.stat().st_mtime_ns
    run("prepare.py", *arguments(tmp_path), f"--cache={tmp_path / 'cache'}")
    assert first.stat().st_mtime_ns == kept
    run("prepare.py", *arguments(tmp_path), f"--cache={tmp_path / 'whole'}")
    assert files(tmp_path / "cache" / first.parent.name) == files(tmp_path / "whole" / first.parent.name)


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
