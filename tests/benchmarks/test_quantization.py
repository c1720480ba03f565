"""Loss curves of three arms: which commands run, what is compared."""

import json
import subprocess

import pytest

from jaxslm.benchmarks import quantization

pytest.importorskip("qwix", reason="the extra quantize is not installed")


def test_arms_differ_in_quantization_alone(tmp_path, monkeypatch):
    commands = {}
    ends = {"": 1.0, "int8": 1.5, "fp8": 1.25}

    def train(words, check):
        given = dict(word.removeprefix("--").split("=", 1) for word in words if "=" in word)
        arm = given["config.model.quantization"]
        folder = given.pop("workdir")
        commands[arm] = {name: value for name, value in given.items() if name != "config.model.quantization"}
        rows = [dict(step=i, loss=9.0 if i <= 90 else ends[arm], tokens_per_s=10.0, skipped=0.0) for i in range(1, 101)]
        rows.append({"step": 100, "heldout/loss": ends[arm] + 1})
        path = tmp_path / folder / "metrics.jsonl"
        path.parent.mkdir()
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))

    monkeypatch.setattr(subprocess, "run", train)
    found = quantization.run([f"--folder={tmp_path}", "--last=10", "--config=configs/spiritlm_7b.py:tiny"])
    assert commands[""] == commands["int8"] == commands["fp8"]
    assert commands[""] == {"config": "configs/spiritlm_7b.py:tiny", "config.model.dtype": "bfloat16"}
    gaps = {arm: found["details"][arm]["gap"] for arm in quantization.ARMS}
    assert gaps == pytest.approx({"bfloat16": 0.0, "int8": 0.5, "fp8": 0.25})
    assert found["details"]["fp8"]["heldout_loss"] == 2.25
    assert (tmp_path / "curves.png").stat().st_size > 10_000
    json.dumps(found, allow_nan=False)  # as launch/bench.py prints it
