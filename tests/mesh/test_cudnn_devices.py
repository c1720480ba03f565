"""Packed attention by cuDNN runs on each device's rows and heads: the same to the last bit as on one device."""

import json

from tests.mesh.devices import run_on


def test_same_as_one_device():
    assert json.loads(run_on(8, "run_cudnn")) == [True] * 4
