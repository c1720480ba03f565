"""Scales and sums of 8-bit products are of all devices: the same numbers as on one."""

from importlib.util import find_spec

import pytest

from tests.mesh.devices import run_on


@pytest.mark.skipif(not find_spec("qwix"), reason="qwix (the quantize extra) is not installed")
def test_int8_products_of_eight_devices_are_those_of_one():
    assert float(run_on(8, "run_quantized")) < 1e-6
