"""A profile holds the steps it was asked for, whole, and nothing goes wrong for it."""

import dataclasses

import jax
import pytest

from jaxslm.training import loop
from jaxslm.training.metrics import read_rows
from jaxslm.training.profile import parse_steps
from tests.training import tiny_task
from tests.training.test_loop import config_of
from tests.training.traces import runs_of, scopes_of, steps_of


@pytest.fixture(scope="module")
def task():
    return tiny_task.make(tiny_task.get_config(), jax.devices()[:1])


def session_of(workdir, steps):
    return workdir / "profile/plugins/profile" / steps


def test_trace_of_some_steps(task, tmp_path, caplog):
    caplog.set_level("INFO")
    loop.run(task, config_of(profile_steps="4:6", steps=8), tmp_path)
    assert f"profile of steps 4 to 6: look at it by `xprof {tmp_path}/profile`" in caplog.text
    session = session_of(tmp_path, "steps-4-6")
    assert [path.name for path in (tmp_path / "profile").iterdir()] == ["plugins"]
    assert {path.name for path in session.iterdir()} == {"process0.xplane.pb", "process0.trace.json.gz"}
    trace = session / "process0.trace.json.gz"
    assert steps_of(trace) == [4, 5, 6]
    assert runs_of(trace, "jit_step") == 3  # the devices' work of the steps before and after is outside
    assert any("/optimizer/" in name for name in scopes_of(session / "process0.xplane.pb", "jit_step"))
    assert [row["step"] for row in read_rows(tmp_path / "metrics.jsonl") if "loss" in row] == list(range(1, 9))


def test_steps_that_are_made_already_are_named(task, tmp_path, caplog):
    loop.run(task, config_of(steps=3), tmp_path)
    loop.run(task, config_of(steps=6, profile_steps="3:5"), tmp_path)
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == [
        "profile_steps=3:5: this run goes on from step 3, so step 3 is not made again and nothing is profiled; name "
        "later steps"
    ]
    assert not (tmp_path / "profile").exists()


def test_a_run_that_ends_within_leaves_what_there_is(task, tmp_path):
    def batches(n):
        yield tiny_task.batch_of(0, 0)
        yield tiny_task.batch_of(0, 1)
        raise OSError("a disk is gone")

    with pytest.raises(OSError, match="a disk is gone"):
        loop.run(dataclasses.replace(task, batches=batches), config_of(profile_steps="2:5"), tmp_path)
    assert steps_of(session_of(tmp_path, "steps-2-5") / "process0.trace.json.gz") == [2, 3]  # 3 waited for its batch


def test_a_profile_that_cannot_be_written_does_not_end_the_run(task, tmp_path, caplog):
    (tmp_path / "profile").write_text("")
    loop.run(task, config_of(profile_steps="2:3", steps=4), tmp_path)
    assert "the profile of steps 2 to 3 could not be written" in caplog.text
    assert read_rows(tmp_path / "metrics.jsonl")[-1]["step"] == 4


@pytest.mark.parametrize("text", ["7", "3-5", "a:b", "5:", "-1:4", "1:2:3"])
def test_other_forms_are_refused(text):
    with pytest.raises(ValueError, match='give the first and the last step as A:B, such as "20:25"'):
        parse_steps(text, 100)


@pytest.mark.parametrize("text", ["0:5", "6:5", "99:101"])
def test_steps_that_are_not_of_the_run_are_refused(task, tmp_path, text):
    with pytest.raises(ValueError, match=f"profile_steps={text}: name steps of this run, 1 to 100"):
        loop.run(task, config_of(profile_steps=text, steps=100), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    assert parse_steps("", 100) is None and parse_steps("5:5", 100) == (5, 5)
