"""A recipe that is trained, profiled and started again: the trace names steps and blocks, nothing is compiled twice."""

import json
import os
import re
import subprocess
import sys

import pytest

from jaxslm.training.goodput import KINDS
from tests.end_to_end.commands import ROOT
from tests.end_to_end.processes import RECIPES
from tests.training.traces import scopes_of, steps_of

pytest.importorskip("espeakng_loader", reason="the demo extra is not installed")
# Programs of a small model compile in less than the second from which they are kept.
ENVIRONMENT = dict(JAX_PLATFORMS="cpu", JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0")


def train(folder, *arguments: str) -> str:
    command = [
        sys.executable, "launch/train.py", "--config=configs/spiritlm_7b.py:tiny", *RECIPES["spiritlm_7b"],
        f"--workdir={folder}/run", f"--config.data.cache={folder}/cache", "--config.eval.every=2",
        "--config.eval.batches=1", "--config.log_every=1", "--config.samples.utterances=1", *arguments,
    ]  # fmt: skip
    environment = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    done = subprocess.run(command, cwd=ROOT, env=environment | ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    assert not re.search("[Ww]arning|machine features", done.stderr), done.stderr  # the cache is silent
    return done.stdout


def rows_of(folder) -> list[dict]:
    lines = (folder / "run/metrics.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if "loss" in row]


def test_profile_goodput_suites_and_compiled_programs(tmp_path):
    (tmp_path / "q.jsonl").write_text('{"options": ["She waits.", "She."], "answer": 0}\n{"options": []}\n')
    suite = json.dumps(dict(kind="jsonl", path=str(tmp_path / "q.jsonl")))
    said = train(tmp_path, "--config.steps=3", "--config.profile_steps=2:3", f"--config.eval.suites.mine={suite}")
    held = [row for row in map(json.loads, open(tmp_path / "run/metrics.jsonl")) if "heldout/loss" in row]
    assert [row["step"] for row in held] == [2, 3]
    assert all(row["heldout/suite/mine/all/sum"] == 0.0 for row in held)  # the longer one is always less likely
    assert held[0]["heldout/suite/mine/choices"] == held[0]["heldout/suite/mine/left_out"] == 1.0
    session = tmp_path / "run/profile/plugins/profile/steps-2-3"
    assert steps_of(session / "process0.trace.json.gz") == [2, 3]
    found = scopes_of(session / "process0.xplane.pb", "jit_step")
    for scope in (
        "embedding", "attention/projections", "attention/rope", "attention/attend", "feed_forward", "norm", "loss",
        "optimizer",
    ):  # fmt: skip
        assert any(re.search(rf"[/(]{scope}[/)]", name) for name in found), scope
    assert any("transpose(jvp" in name and "/feed_forward/" in name for name in found)  # the backward pass, too

    assert re.search(r"\n  time  \d+ % of [\d.]+ s in steps; compile [\d.]+ s, data ", said)
    rows = rows_of(tmp_path)
    for before, row in zip([dict.fromkeys(rows[0], 0.0), *rows], rows, strict=False):
        assert all(row[f"seconds/{kind}"] >= before[f"seconds/{kind}"] for kind in KINDS)
        wall = sum(row[f"seconds/{kind}"] for kind in KINDS)
        assert row["goodput"] == pytest.approx(row["seconds/step"] / wall, abs=1e-3)
    assert rows[2]["seconds/evaluation"] > 0 == rows[1]["seconds/evaluation"]
    assert rows[0]["seconds/compile"] > 0

    programs = {path.name for path in (tmp_path / "cache/compiled").iterdir()}
    assert any(name.startswith("jit_step-") for name in programs)
    train(tmp_path, "--config.steps=5")
    again = {path.name for path in (tmp_path / "cache/compiled").iterdir()} - programs
    assert not {name.split("-")[0] for name in again} & {name.split("-")[0] for name in programs}
    assert rows_of(tmp_path)[:3] == rows
