"""The same loss and gradient on every mesh. Eight CPU devices are asked for before JAX starts: a process of its own."""

import json

import pytest

from tests.mesh.devices import run_on

MESHES = [
    dict(data=8),
    dict(data=1, fsdp=8),
    dict(data=2, fsdp=2, tensor=2),
    dict(data=1, fsdp=2, tensor=2, sequence=2),
    dict(data=4, tensor=2, attention="splash"),
    dict(data=2, fsdp=2, sequence=2, attention="blocked", remat="full"),
    dict(data=2, fsdp=4, rules=dict(vocab="fsdp", embed=None)),  # the vocabulary is cut as the batch is
]


@pytest.fixture(scope="module")
def results():
    cases = [dict(data=1, single=True), *MESHES]
    return json.loads(run_on(8, "run_meshes", json.dumps(cases)))


@pytest.mark.parametrize("index", range(len(MESHES)), ids=[str(mesh) for mesh in MESHES])
def test_same_as_one_device(results, index):
    assert results[1 + index] == pytest.approx(results[0], rel=1e-5)
