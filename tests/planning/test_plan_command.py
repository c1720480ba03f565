"""launch/plan.py as a person runs it."""

import importlib.util
import json
import os
import subprocess

import pytest

from tests.end_to_end.commands import ROOT, SMALL, run

TINY = "--config=configs/spiritlm_7b.py:tiny", "--topology=local"


def plan(*arguments, check=True):
    return run("plan.py", *arguments, check=check)


def test_a_plan_of_what_is_here(tmp_path):
    """On a CPU: memory is known, time is not."""
    said = plan(*TINY, *SMALL, f"--config.data.cache={tmp_path}", "--json").stdout
    fields = json.loads(said)
    assert fields["memory"]["parameters"] == 4 * fields["model_parameters"]
    assert fields["step_seconds"] is None and fields["memory"]["fits"]


def test_mistakes_are_named(tmp_path):
    cache = f"--config.data.cache={tmp_path}"
    for arguments, message in (
        ((TINY[0], "--topology=v5e-64"), "--topology=v5e-64 is not CHIP:SHAPE"),
        ((*TINY, "--config.data.batch_size=3", "--config.optimizer.accumulate_steps=2"), "data.batch_size=3 is no"),
        (("--config=configs/spiritlm_7b.py", TINY[1], "--config.data.text_tokens=0"), "data.text_tokens=N"),
    ):
        done = plan(*arguments, cache, check=False)
        assert done.returncode == 1, done.stderr
        assert message in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("chip", ["v5e", "v5p", "v6e"])
def test_flags_are_those_of_a_run(chip, monkeypatch):
    """Character by character: JAX's name of a kept program depends on them."""
    spec = importlib.util.spec_from_file_location("launch_plan", ROOT / "launch/plan.py")
    command = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(command)
    monkeypatch.setenv("LIBTPU_INIT_ARGS", "")  # to be put back as it was
    monkeypatch.delenv("LIBTPU_INIT_ARGS")
    words = ["bash", ROOT / "launch/with_flags.sh", f"tpu_{chip}", "bash", "-c", 'printf %s "$LIBTPU_INIT_ARGS"']
    expected = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    command.take_flags(chip)
    assert os.environ["LIBTPU_INIT_ARGS"] == expected != ""
    monkeypatch.setenv("LIBTPU_INIT_ARGS", "--mine=1")
    command.take_flags(chip)
    assert os.environ["LIBTPU_INIT_ARGS"] == "--mine=1"
