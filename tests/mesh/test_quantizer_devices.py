"""Codebooks learnt from a batch that lies on 8 devices are those of one device: k-means, running means, restarts."""

import json

import numpy as np
import pytest

from tests.mesh.devices import run_on


@pytest.fixture(scope="module")
def found():
    return [json.loads(run_on(n, "run_quantizers", n)) for n in (1, 8)]


@pytest.mark.parametrize("case", ("ratio", "absolute", "split"))
def test_statistics_are_those_of_the_whole_batch_on_any_number_of_devices(found, case):
    (codes, arrays), (other_codes, other_arrays) = (side[case] for side in found)
    assert codes == other_codes
    for one, eight in zip(arrays, other_arrays, strict=True):
        np.testing.assert_allclose(eight, one, rtol=1e-4, atol=1e-5)
        assert np.max(np.abs(one)) < 500  # no padding frame, which are 1000, is in anything
