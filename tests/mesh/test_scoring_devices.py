"""A suite has the same scores on every mesh, also where its rows must be cut or taken in blocks."""

import json

import numpy as np

from tests.mesh.devices import run_on


def test_scores_do_not_depend_on_the_mesh():
    alone, *others = json.loads(run_on(8, "run_scoring"))
    assert len(others) == 4 and min(alone) < -1000
    for found in others:
        np.testing.assert_allclose(found, alone, rtol=1e-4)
