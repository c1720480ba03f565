"""k-means on 2 and 8 devices, and in a process that has one only: the same bits."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(n_devices: int, counts: list[int]) -> dict:
    flags = f"--xla_force_host_platform_device_count={n_devices}"
    environment = os.environ | dict(XLA_FLAGS=flags, JAX_PLATFORMS="cpu", PYTHONPATH=str(ROOT))
    done = subprocess.run(
        [sys.executable, "-m", "tests.mesh.run_kmeans", json.dumps(counts)],
        cwd=ROOT, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def digests():
    one, several = run(1, [1]), run(8, [2, 8])
    return {case: one[case] + several[case] for case in one}


@pytest.mark.parametrize("case", ("lloyd", "emptied", "minibatch"))
def test_the_same_bits_on_any_number_of_devices(digests, case):
    one, two, eight = digests[case]
    assert one == two == eight


def test_clusters_are_moved_in_the_case_of_that_name(digests):
    assert digests["emptied"][0][1] >= 63
