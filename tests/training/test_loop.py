"""The loop on a small real task: what it writes, what it refuses, what it survives."""

import dataclasses
import json
import os
import signal

import jax
import jaxlib
import numpy as np
import pytest

from jaxslm.benchmarks.resume import first_difference
from jaxslm.training import loop, progress
from jaxslm.training.checkpoint import CheckpointError, saved_steps
from jaxslm.training.loop import run
from jaxslm.training.metrics import read_rows
from jaxslm.training.progress import TrainingError
from jaxslm.training.workdir import HARDWARE_FILE, read_hardware
from tests.training import tiny_task
from tests.training.test_checkpoint import files_of_at_most


@pytest.fixture(scope="module")
def task():
    return tiny_task.make(tiny_task.get_config(), jax.devices()[:1])


def config_of(**changes):
    config = tiny_task.get_config()
    config.update_from_flattened_dict({"steps": 12} | changes)
    return config


def with_bad_steps(task, *bad):
    def batches(n):
        while True:
            yield tiny_task.batch_of(0, n, bad)
            n += 1

    return dataclasses.replace(task, batches=batches)


@pytest.fixture(scope="module")
def whole(task, tmp_path_factory):
    """A run of 12 steps without interruption."""
    workdir = tmp_path_factory.mktemp("whole") / "run"
    run(task, config_of(), workdir)
    return workdir


def test_what_lies_in_the_workdir(whole, capsys):
    names = {path.name for path in whole.iterdir()}
    expected = {"config.json", "vocabulary.json", "metrics.jsonl", "loss.png", "checkpoints", "samples"}
    assert expected <= names and any(name.startswith("events.out.tfevents") for name in names)
    assert saved_steps(whole / "checkpoints") == [12, 10]
    assert json.loads((whole / "config.json").read_text())["optimizer"]["peak_lr"] == 0.02
    rows = read_rows(whole / "metrics.jsonl")
    assert [row["step"] for row in rows if "loss" in row] == list(range(1, 13))
    assert [row["step"] for row in rows if "heldout/loss" in row] == [7, 12]
    keys = {"step", "loss", "loss/text", "loss/speech", "tokens_per_s", "mfu", "grad_norm", "learning_rate", "skipped"}
    assert keys <= set(rows[0]) and rows[0]["tokens_per_s"] is None and rows[5]["tokens_per_s"] > 0
    assert rows[0]["loss"] > 2 * rows[-2]["loss"]


def test_finished_run_says_where_everything_lies(task, whole, capsys):
    before = read_rows(whole / "metrics.jsonl")
    run(task, config_of(), whole)
    assert read_rows(whole / "metrics.jsonl") == before
    said = capsys.readouterr().out
    assert "sample: a sample" in said and f"Everything lies in {whole}" in said and "checkpoints/12" in said


def test_more_steps_continue_the_run(task, whole, tmp_path):
    workdir = tmp_path / "run"
    run(task, config_of(steps=7), workdir)
    run(task, config_of(steps=12), workdir)
    assert first_difference(read_rows(workdir / "metrics.jsonl"), read_rows(whole / "metrics.jsonl")) == ""


def test_each_start_notes_what_it_runs_on(task, tmp_path):
    run(task, config_of(steps=7), tmp_path)
    run(task, config_of(steps=12), tmp_path)
    first, second = read_hardware(tmp_path)
    assert (first["step"], second["step"]) == (0, 7) and first["started"] <= second["started"]
    assert first["platform"] == "cpu" and first["device_kind"] == jax.devices()[0].device_kind
    assert first["device_count"] == jax.device_count() and first["process_count"] == 1 and first["host"]
    assert (first["jax"], first["jaxlib"]) == (jax.__version__, jaxlib.__version__)
    (tmp_path / HARDWARE_FILE).write_text('[{"step": 0},')  # is no reason not to train
    assert read_hardware(tmp_path) == []
    run(task, config_of(steps=12), tmp_path)
    assert [start["step"] for start in read_hardware(tmp_path)] == [12]


def test_damaged_newest_checkpoint_leads_to_the_same_run(task, whole, tmp_path, caplog):
    workdir = tmp_path / "run"
    run(task, config_of(steps=11), workdir)
    largest = max((workdir / "checkpoints/11").rglob("*"), key=lambda path: path.is_file() and path.stat().st_size)
    os.truncate(largest, largest.stat().st_size // 2)
    caplog.set_level("INFO")
    run(task, config_of(), workdir)
    assert "checkpoint 11 is damaged" in caplog.text and "continuing from step 10" in caplog.text
    assert first_difference(_without_end(workdir, 11), _without_end(whole, 11)) == ""


def _without_end(workdir, step):
    return [row for row in read_rows(workdir / "metrics.jsonl") if not ("heldout/loss" in row and row["step"] == step)]


def test_changed_vocabulary_is_refused_by_name(task, whole, tmp_path):
    other = dataclasses.replace(task, artifacts={"vocabulary.json": {"units": "other"}})
    with pytest.raises(ValueError, match="vocabulary.json differs"):
        run(other, config_of(steps=20), whole)
    assert json.loads((whole / "vocabulary.json").read_text()) == {"units": "a"}
    with pytest.raises(ValueError, match="vocabulary.json differs"):
        run(other, config_of(init_from=str(whole)), tmp_path / "new")
    more = dataclasses.replace(task, artifacts={"units.json": {}})
    with pytest.raises(ValueError, match="units.json is missing"):
        run(more, config_of(steps=20), whole)


def test_changes_of_the_config_are_reported(task, tmp_path, caplog):
    run(task, config_of(steps=1), tmp_path)
    changes = {"optimizer.peak_lr": 0.5, "checkpoint.every": 4, "log_every": 3, "steps": 2}
    run(task, config_of(**changes), tmp_path)
    changed = [record.message for record in caplog.records if "when this run was last started" in record.message]
    assert changed == ["config.optimizer.peak_lr was 0.02 when this run was last started and is 0.5 now"]


def test_init_from_takes_the_parameters_only(task, whole, tmp_path, monkeypatch):
    begun = []
    monkeypatch.setattr(loop, "_train", lambda *a: begun.append(jax.tree.map(np.array, a[-2])) or (a[-2], 12))
    run(task, config_of(init_from=str(whole)), tmp_path / "new")
    run(task, config_of(), whole)
    (fresh, trained) = begun
    for a, b in zip(jax.tree.leaves(fresh.model), jax.tree.leaves(trained.model), strict=True):
        np.testing.assert_array_equal(a, b)
    assert fresh.step == 0 and fresh.opt_state["count"] == 0 and trained.step == 12


def test_bad_steps_are_left_out_and_counted(task, tmp_path, caplog):
    run(with_bad_steps(task, 3, 4, 6), config_of(), tmp_path)
    rows = [row for row in read_rows(tmp_path / "metrics.jsonl") if "loss" in row]
    assert [row["skipped"] for row in rows] == [0, 0, 1, 2, 2, 3, 3, 3, 3, 3, 3, 3]
    assert [row["skipped_in_a_row"] for row in rows[2:7]] == [1, 2, 0, 1, 0]
    assert rows[2]["loss"] is None and rows[2]["grad_norm"] is None and rows[11]["loss"] < rows[0]["loss"]
    assert "step 4 left out: a loss or gradient is not finite or diverges (2 in a row, 2 in all)" in caplog.text


def test_too_many_bad_steps_in_a_row_end_the_run(task, tmp_path):
    with pytest.raises(
        TrainingError, match="3 steps in a row, up to step 9, .*Lower its peak_lr or clip_norm in optimizer"
    ):
        run(with_bad_steps(task, 7, 8, 9, 10, 11), config_of(), tmp_path)
    assert saved_steps(tmp_path / "checkpoints") == [5]


def test_metrics_are_read_one_step_late(task, tmp_path, monkeypatch):
    order = []
    get = jax.device_get
    monkeypatch.setattr(progress.jax, "device_get", lambda x: order.append("read") or get(x))
    step = lambda *a: order.append("step") or task.step(*a)  # noqa: E731
    changes = {"steps": 5, "checkpoint.every": 0, "eval.every": 0}
    run(dataclasses.replace(task, step=step), config_of(**changes), tmp_path)
    assert order == ["step", "step", "read", "step", "read", "step", "read", "step", "read", "read"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_saves_even_if_it_ends_the_data_workers_too(task, whole, tmp_path, number):
    def batches(n):
        for _ in range(3):
            yield tiny_task.batch_of(0, n)
            n += 1
        os.kill(os.getpid(), number)
        raise RuntimeError("a worker died")

    before = signal.getsignal(number)
    assert run(dataclasses.replace(task, batches=batches), config_of(), tmp_path) == 3
    assert saved_steps(tmp_path / "checkpoints") == [3] and signal.getsignal(number) == before
    assert run(task, config_of(), tmp_path) == 12
    assert first_difference(read_rows(tmp_path / "metrics.jsonl"), read_rows(whole / "metrics.jsonl")) == ""


def test_data_that_ends_is_an_error(task, tmp_path):
    short = dataclasses.replace(task, batches=lambda n: iter([tiny_task.batch_of(0, 0)]))
    with pytest.raises(TrainingError, match="the data ended after step 1"):
        run(short, config_of(), tmp_path)


def test_full_disk_is_reported_and_the_run_goes_on(task, whole, tmp_path, caplog):
    def batches(n):
        while True:
            with files_of_at_most(500) if n in (4, 5, 6) else files_of_at_most(2**40):
                yield tiny_task.batch_of(0, n)
            n += 1

    run(
        dataclasses.replace(task, batches=batches), config_of(), tmp_path
    )  # the save of step 5 and the rows of 5 to 7 fail
    assert "checkpoint 5 could not be written" in caplog.text
    assert saved_steps(tmp_path / "checkpoints") == [12, 10]
    assert first_difference(read_rows(tmp_path / "metrics.jsonl"), read_rows(whole / "metrics.jsonl")) == ""


def test_failed_last_save_is_an_error_and_nothing_older_is_lost(task, tmp_path):
    run(task, config_of(steps=5), tmp_path)
    with files_of_at_most(2000), pytest.raises((CheckpointError, OSError)):
        run(task, config_of(steps=6), tmp_path)
    run(task, config_of(steps=6), tmp_path)
    assert saved_steps(tmp_path / "checkpoints") == [6, 5]


@pytest.mark.parametrize("key", loop.LIMITS)
def test_values_below_their_limits_are_named(task, tmp_path, key):
    least, _ = loop.LIMITS[key]
    with pytest.raises(ValueError, match=f"{key} is {least - 1}; set it to {least} or more"):
        run(task, config_of(**{key: least - 1}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_workdir_that_is_no_folder(task, tmp_path):
    with pytest.raises(ValueError, match="Mount the bucket"):
        run(task, config_of(), "gs://bucket/run")
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="is a file; name a folder"):
        run(task, config_of(), tmp_path / "file")
