"""Runs that are killed, stopped, moved to other devices and spread over processes are the run that never was."""

import os
import shlex
import signal
import socket
import subprocess
import sys
import time

import pytest

from jaxslm.benchmarks import resume
from jaxslm.training.metrics import read_rows

PROGRAM = f"{sys.executable} -m tests.training.tiny_task"


def test_killed_and_stopped_runs_are_exact():
    """checkpoint.every=5 and eval.every=7 do not fall together; steps take long enough to be hit."""
    slow = ["--config.steps=20", "--config.step_seconds=0.05"]
    result = resume.run([f"--program={PROGRAM}", "--trials=2", "--devices=", "--seed=1", *slow])
    trials = result["details"]["trials"]
    assert [trial["differs"] for trial in trials] == ["", ""]
    assert result["ours"] == 1.0 and {trial["signal"] for trial in trials} == {"SIGKILL", "SIGTERM"}


@pytest.mark.slow
def test_ten_trials_and_four_device_counts():
    result = resume.run([f"--program={PROGRAM}", "--config.step_seconds=0.05", "--config.mesh.fsdp=1"])
    assert result["ours"] == 1.0
    assert result["details"]["largest_loss_difference_across_devices"] < 1e-5


def test_two_processes_stop_together_and_one_goes_on(tmp_path):
    """SIGTERM to one of two processes saves and ends both; one process then goes on, as if it had been alone."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    workdir = tmp_path / "run"
    command = [*shlex.split(PROGRAM), "--config.steps=30"]
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": "2"}
    environment["XLA_FLAGS"] += " --xla_force_host_platform_device_count=2"
    processes = []
    for index in range(2):
        with (tmp_path / f"{index}.txt").open("wb") as output:
            processes.append(
                subprocess.Popen(
                    [*command, f"--workdir={workdir}", "--config.step_seconds=0.3"],
                    env=environment | {"JAX_PROCESS_ID": str(index)},
                    stdout=output,
                    stderr=output,
                )
            )
    while processes[0].poll() is None and len(read_rows(workdir / "metrics.jsonl")) < 3:
        time.sleep(0.05)
    processes[1].send_signal(signal.SIGTERM)
    codes = [process.wait(60) for process in processes]
    output = [(tmp_path / f"{index}.txt").read_text() for index in range(2)]
    assert codes == [0, 0], output
    assert f"waiting for 2 processes at {address} (this is process 0)" in output[0]
    assert "process 1 of 2: all have joined, 4 devices" in output[1]
    assert "saved; the same command continues" in output[0]
    stopped = read_rows(workdir / "metrics.jsonl")[-1]["step"]
    assert stopped < 30

    resume.finish(command, workdir, 1)
    resume.finish(command, tmp_path / "alone", 1)
    rows, alone = (
        {(row["step"], "heldout/loss" in row): row for row in read_rows(folder / "metrics.jsonl")}
        for folder in (workdir, tmp_path / "alone")
    )
    assert rows.keys() == alone.keys()
    for key, row in rows.items():
        name = "heldout/loss" if key[1] else "loss"
        assert row[name] == pytest.approx(alone[key][name], abs=1e-5), key
