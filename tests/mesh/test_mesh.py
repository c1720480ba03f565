"""The same loss and gradient on every mesh. Eight CPU devices are asked for before JAX starts: a process of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MESHES = [
    dict(data=8),
    dict(data=1, fsdp=8),
    dict(data=2, fsdp=2, tensor=2),
    dict(data=1, fsdp=2, tensor=2, sequence=2),
    dict(data=4, tensor=2, attention="splash"),
    dict(data=2, fsdp=2, sequence=2, attention="blocked", remat="full"),
]


@pytest.fixture(scope="module")
def results():
    flags = "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"  # compiling is the cost here
    environment = os.environ | dict(XLA_FLAGS=flags, JAX_PLATFORMS="cpu", PYTHONPATH=str(ROOT))
    cases = [dict(data=1, single=True), *MESHES]
    run = subprocess.run(
        [sys.executable, "-m", "tests.mesh.run_meshes", json.dumps(cases)],
        cwd=ROOT, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-3000:]
    return json.loads(run.stdout.splitlines()[-1])


@pytest.mark.parametrize("index", range(len(MESHES)), ids=[str(mesh) for mesh in MESHES])
def test_same_as_one_device(results, index):
    assert results[1 + index] == pytest.approx(results[0], rel=1e-5)
