"""Adversarial training on batches that lie on 8 devices is that of one: losses, norms of the balancer, codebooks, and
all that moves.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]


def run(n_devices: int) -> list:
    flags = f"--xla_force_host_platform_device_count={n_devices}"
    environment = os.environ | dict(XLA_FLAGS=flags, JAX_PLATFORMS="cpu", PYTHONPATH=str(ROOT))
    done = subprocess.run(
        [sys.executable, "-m", "tests.mesh.run_codec", str(n_devices)],
        cwd=ROOT, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_training_does_not_depend_on_the_number_of_devices():
    (metrics, arrays), (other_metrics, other_arrays) = run(1), run(8)
    for row, other in zip(metrics, other_metrics, strict=True):
        assert row.keys() == other.keys() and row["bad/codec"] == row["bad/discriminators"] == 0
        for name in row:
            np.testing.assert_allclose(other[name], row[name], rtol=2e-3, atol=1e-5, err_msg=name)
    assert metrics[0]["loss"] != metrics[2]["loss"]
    for one, eight in zip(arrays, other_arrays, strict=True):
        np.testing.assert_allclose(eight, one, rtol=2e-3, atol=2e-4)
