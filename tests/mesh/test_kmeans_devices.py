"""k-means on 2 and 8 devices, and in a process that has one only: the same bits."""

import json

import pytest

from tests.mesh.devices import run_on


@pytest.fixture(scope="module")
def digests():
    one, several = (json.loads(run_on(n, "run_kmeans", counts)) for n, counts in ((1, [1]), (8, [2, 8])))
    return {case: one[case] + several[case] for case in one}


@pytest.mark.parametrize("case", ("lloyd", "emptied", "minibatch"))
def test_the_same_bits_on_any_number_of_devices(digests, case):
    one, two, eight = digests[case]
    assert one == two == eight


def test_clusters_are_moved_in_the_case_of_that_name(digests):
    assert digests["emptied"][0][1] >= 63
