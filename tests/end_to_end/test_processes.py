"""launch/train.py on two processes of two devices each gives the losses of one process with one device."""

import pytest

from tests.end_to_end.commands import together
from tests.end_to_end.processes import expect_success, losses, started

pytest.importorskip("espeakng_loader", reason="the demo extra is not installed")
STEPS = 4


@pytest.mark.parametrize("recipe", ["spiritlm_7b", pytest.param("encodec_24k", marks=pytest.mark.slow)])
def test_two_processes_train_as_one(recipe, tmp_path):
    cache, one, two = (tmp_path / name for name in ("cache", "one", "two"))
    mesh = ("--config.mesh.data=-1", "--config.mesh.fsdp=1"), ("--config.mesh.data=2", "--config.mesh.fsdp=2")
    steps = [f"--config.steps={STEPS}"]
    expect_success([started(recipe, one, cache, 1, *steps, *mesh[0])], tmp_path)
    expect_success([started(recipe, two, cache, 2, *steps, *mesh[1], **place) for place in together(2)], tmp_path)
    assert [row["step"] for row in losses(one) if "loss" in row] == list(range(1, STEPS + 1))
    assert [row.keys() for row in losses(one)] == [row.keys() for row in losses(two)]
    relative = dict(rel=1e-4) if recipe == "encodec_24k" else {}  # its losses are tens
    for ours, theirs in zip(losses(one), losses(two), strict=True):
        assert ours == pytest.approx(theirs, abs=1e-5, **relative)
