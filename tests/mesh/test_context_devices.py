"""Attention over a cut length is that over a whole one. Devices are asked for before JAX starts: its own process."""

import json

import pytest

from tests.mesh.devices import run_on

MESHES = [dict(data=1, sequence=2), dict(data=1, sequence=4), dict(data=2, tensor=2, sequence=2)]


@pytest.fixture(scope="module")
def results():
    return json.loads(run_on(8, "run_context", json.dumps(MESHES)))


@pytest.mark.parametrize("index", range(len(MESHES)), ids=[str(mesh) for mesh in MESHES])
def test_same_as_one_device(results, index):
    found = results[index]
    assert found["context"] < 2e-5
    assert found["gradients"] < 1e-4
    assert found["padding"] == 0
    assert found["leak"] == 0
    assert found["seen"] > 0.1
