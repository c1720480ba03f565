"""The masked stage's training on batches that lie on 8 devices is that of one: masks, losses, all that moves."""

import json

import numpy as np

from tests.mesh.devices import run_on


def test_training_does_not_depend_on_the_number_of_devices():
    (metrics, arrays), (other_metrics, other_arrays) = (json.loads(run_on(n, "run_acoustic", n)) for n in (1, 8))
    for row, other in zip(metrics, other_metrics, strict=True):
        assert row.keys() == other.keys() and row["skipped"] == 0
        for name in row:
            np.testing.assert_allclose(other[name], row[name], rtol=1e-4, atol=1e-5, err_msg=name)
    assert metrics[0]["loss"] != metrics[2]["loss"]
    for one, eight in zip(arrays, other_arrays, strict=True):
        np.testing.assert_allclose(eight, one, rtol=1e-3, atol=1e-4)
