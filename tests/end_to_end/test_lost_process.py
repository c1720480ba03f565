"""A run of several processes, one of which is killed, goes on by the same command as the run that never was."""

import re
import time

import pytest

from jaxslm.training.metrics import read_rows
from tests.end_to_end.commands import together
from tests.end_to_end.processes import expect_success, losses, started

pytest.importorskip("espeakng_loader", reason="the demo extra is not installed")
STEPS = 8
HEARTBEAT = "5"


@pytest.mark.parametrize(
    "count, victim", [(2, 1), pytest.param(2, 0, marks=pytest.mark.slow), pytest.param(4, 2, marks=pytest.mark.slow)]
)
def test_a_killed_process_ends_the_others_and_the_same_command_goes_on(count, victim, tmp_path):
    given = [f"--config.steps={STEPS}", "--config.checkpoint.every=2", "--config.samples.utterances=0"]
    given.append(f"--config.mesh.fsdp={count}")

    def start(name, places):
        return [started("spiritlm_7b", tmp_path / name, tmp_path / "cache", 1, *given, **place) for place in places]

    expect_success(start("still", together(count)), tmp_path)

    places = [place | dict(JAXSLM_HEARTBEAT_TIMEOUT=HEARTBEAT) for place in together(count)]
    processes = start("run", places)
    try:
        metrics = tmp_path / "run" / "metrics.jsonl"
        while all(p.poll() is None for p in processes) and sum("loss" in row for row in read_rows(metrics)) < 5:
            time.sleep(0.02)
        processes[victim].kill()
        codes = [process.wait(60) for process in processes]
    finally:
        for process in processes:
            process.kill()
    said = [(tmp_path / f"run-{index}.txt").read_text(errors="replace") for index in range(count)]
    assert all(codes) and codes[victim] == -9, said
    reached = max(row["step"] for row in read_rows(metrics))
    assert 5 <= reached < STEPS
    # JAX's own words: the coordinator names the process; without the coordinator there is nobody to ask
    lost = rf"heartbeats\):\n(\S*task:)?{victim}\b|Task {victim} heartbeat timeout" if victim else "the leader task was"
    for index in set(range(count)) - {victim}:
        assert re.search(lost, said[index]), said[index][-4000:]

    expect_success(start("run", places), tmp_path)
    assert re.search(r"continuing from step [246] of", (tmp_path / "run-0.txt").read_text())
    assert losses(tmp_path / "run") == losses(tmp_path / "still")
    assert [row["step"] for row in losses(tmp_path / "run") if "loss" in row] == list(range(1, STEPS + 1))


def test_a_process_that_never_comes_is_named(tmp_path):
    place = together(2)[0] | dict(JAXSLM_INIT_TIMEOUT="2", JAXSLM_HOSTS="ash,birch")
    process = started("spiritlm_7b", tmp_path / "run", tmp_path / "cache", 1, **place)
    assert process.wait(60) == 1
    last = (tmp_path / "run-0.txt").read_text().splitlines()[-1]
    assert last.startswith("error: after 2 s still without 1 of 2 processes: 1 (host birch). See whether")
    assert not (tmp_path / "run").exists()
