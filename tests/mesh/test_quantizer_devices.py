"""Codebooks learnt from a batch that lies on 8 devices are those of one device: k-means, running means, restarts."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]


def run(n_devices: int) -> dict:
    flags = f"--xla_force_host_platform_device_count={n_devices}"
    environment = os.environ | dict(XLA_FLAGS=flags, JAX_PLATFORMS="cpu", PYTHONPATH=str(ROOT))
    done = subprocess.run(
        [sys.executable, "-m", "tests.mesh.run_quantizers", str(n_devices)],
        cwd=ROOT, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def found():
    return run(1), run(8)


@pytest.mark.parametrize("case", ("ratio", "absolute", "split"))
def test_statistics_are_those_of_the_whole_batch_on_any_number_of_devices(found, case):
    (codes, arrays), (other_codes, other_arrays) = (side[case] for side in found)
    assert codes == other_codes
    for one, eight in zip(arrays, other_arrays, strict=True):
        np.testing.assert_allclose(eight, one, rtol=1e-4, atol=1e-5)
        assert np.max(np.abs(one)) < 500  # no padding frame, which are 1000, is in anything
