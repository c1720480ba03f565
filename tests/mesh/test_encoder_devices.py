"""Devices of one process share the batches of a speech encoder: the features are those of one device."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_devices_share_a_batch(tmp_path):
    pytest.importorskip("transformers")
    from tests.models.speech_models import make_model, save_model

    save_model(make_model("hubert-base"), tmp_path)
    flags = "--xla_force_host_platform_device_count=4"
    done = subprocess.run(
        [sys.executable, "-m", "tests.mesh.run_encoder", str(tmp_path)],
        cwd=ROOT, env=os.environ | dict(XLA_FLAGS=flags, JAX_PLATFORMS="cpu", PYTHONPATH=str(ROOT)),
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-1] == "equal"
