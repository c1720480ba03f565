"""launch/train.py as a command: whatever goes wrong, the last line says what."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from jaxslm.locking import held
from jaxslm.tasks.table import TASKS
from jaxslm.training import loop
from launch import train

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("full", [False, True])
def test_errors_end_in_one_line_even_if_the_disk_is_full(tmp_path, full):
    environment = os.environ | {"JAX_COORDINATOR_ADDRESS": "localhost:1", "JAX_NUM_PROCESSES": "two"}
    environment |= {"TMPDIR": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "launch/train.py", "--config=configs/spiritlm_7b.py:tiny", f"--workdir={tmp_path}/run"]
    if full:  # no file can grow
        command = ["sh", "-c", 'ulimit -f 0; exec "$@"', "sh", *command]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    *before, last = done.stderr.splitlines()
    assert done.returncode == 1
    assert last == "error: JAX_COORDINATOR_ADDRESS is set, so JAX_NUM_PROCESSES must be a whole number, not 'two'."
    if full:
        assert "Traceback" in done.stderr
    else:
        assert before[-1].startswith(f"details: {tmp_path}") and "Traceback" not in done.stderr
        assert "Traceback" in Path(before[-1].removeprefix("details: ")).read_text()


def test_a_second_run_in_a_workdir_is_refused_and_touches_nothing(tmp_path):
    (half := tmp_path / "run" / "checkpoints" / "3.orbax-checkpoint-tmp").mkdir(parents=True)
    command = [sys.executable, "launch/train.py", "--config=configs/spiritlm_7b.py:tiny", f"--workdir={tmp_path}/run"]
    environment = os.environ | {"TMPDIR": str(tmp_path), "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    with held(tmp_path / "run") as mine:
        assert mine
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 1 and last.startswith(f"error: another process trains in {tmp_path}/run: wait until")
    assert half.is_dir() and os.listdir(tmp_path / "run") == ["checkpoints"]


@pytest.mark.parametrize("made, given, status", [(4, {}, None), (3, {}, 0), (3, {"JAXSLM_STOPPED_STATUS": "75"}, 75)])
def test_the_status_of_a_stopped_run_can_be_chosen(tmp_path, monkeypatch, made, given, status):
    monkeypatch.setattr(sys, "argv", ["train.py", "--config=configs/spiritlm_7b.py:tiny", "--config.steps=4"])
    sys.argv.append(f"--workdir={tmp_path}/run")
    monkeypatch.setitem(TASKS, "speech_text_lm", lambda config, folder: None)
    monkeypatch.setattr(loop, "run", lambda *_: made)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    try:
        assert train.main() is None and status is None
    except SystemExit as end:
        assert end.code == status
