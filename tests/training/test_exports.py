"""Exports beside the training: nothing waits for them, and no checkpoint they read is deleted."""

import dataclasses
import os
import shutil
import signal
import threading
import time

import jax
import pytest

from jaxslm.training.checkpoint import saved_steps
from jaxslm.training.loop import run
from tests.training import tiny_task

PATIENCE = 60  # seconds, of what would otherwise hang


@pytest.fixture(scope="module")
def task():
    return tiny_task.make(tiny_task.get_config(), jax.devices()[:1])


def config_of(**changes):
    config = tiny_task.get_config()
    settings = {"steps": 8, "checkpoint.every": 2, "checkpoint.keep": 1, "export.every": 2, "eval.every": 0}
    config.update_from_flattened_dict(settings | changes)
    return config


def batches_with(at_batch):
    """Calls `at_batch[n]()` when the batch after n others is asked for."""

    def batches(n):
        while True:
            at_batch.get(n, lambda: None)()
            yield tiny_task.batch_of(0, n)
            n += 1

    return batches


def test_training_and_checkpoints_go_on_while_an_export_is_under_way(task, tmp_path, caplog):
    released, seen, exported = threading.Event(), [], []

    def export(step, folder):
        assert step != 2 or released.wait(PATIENCE)
        assert (tmp_path / "checkpoints" / str(step) / "manifest.json").exists()
        exported.append(step)
        folder.mkdir()

    def look():
        seen.extend(saved_steps(tmp_path / "checkpoints"))
        released.set()

    run(dataclasses.replace(task, export=export, batches=batches_with({7: look})), config_of(), tmp_path)
    assert seen == [6, 2]  # the one that is read outlives what is newer
    assert exported == [2, 8] and saved_steps(tmp_path / "checkpoints") == [8]
    assert "step 4 is not exported: the export before it is not done yet" in caplog.text


def test_sigterm_saves_first_and_then_finishes_the_export(task, tmp_path):
    def export(step, folder):
        ends = time.monotonic() + PATIENCE
        while step == 2 and saved_steps(tmp_path / "checkpoints")[0] == step:
            assert time.monotonic() < ends, "the checkpoint waits for the export"
            time.sleep(0.01)
        folder.mkdir()

    stop = {3: lambda: os.kill(os.getpid(), signal.SIGTERM)}
    run(dataclasses.replace(task, export=export, batches=batches_with(stop)), config_of(), tmp_path)
    (last,) = saved_steps(tmp_path / "checkpoints")
    assert last in (3, 4)  # as soon as the signal is noticed
    assert {path.name for path in (tmp_path / "exports").iterdir()} == ({"2"} if last == 3 else {"2", "4"})


def test_a_failed_export_keeps_nothing(task, tmp_path, caplog):
    def export(step, folder):
        folder.with_name(f"{step}.incomplete").mkdir()
        raise OSError("no room")

    run(dataclasses.replace(task, export=export), config_of(steps=4), tmp_path)
    assert "could not be exported" in caplog.text and "no room" in caplog.text
    assert saved_steps(tmp_path / "checkpoints") == [4] and not list((tmp_path / "exports").iterdir())


def test_an_export_that_was_cut_off_is_made_again(task, tmp_path):
    made = []

    def export(step, folder):
        made.append(step)
        folder.mkdir()

    exporting = dataclasses.replace(task, export=export)
    run(exporting, config_of(steps=4), tmp_path)
    shutil.rmtree(tmp_path / "exports")
    for step in (2, 4):  # of 2 there is no checkpoint any more
        (tmp_path / "exports" / f"{step}.incomplete").mkdir(parents=True)
    made.clear()
    run(exporting, config_of(steps=4), tmp_path)
    assert made == [4] and [path.name for path in (tmp_path / "exports").iterdir()] == ["4"]
