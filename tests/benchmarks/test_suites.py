"""The two sides of the benchmark score the same stories with the same weights."""

import numpy as np
import pytest

from jaxslm.benchmarks import suites


def test_both_sides_give_the_same_scores():
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    small = dict(d_model=16, n_layers=2, n_heads=2, n_kv_heads=2, d_ff=32, pairs=3, batch=2, context=384, threads=1)
    flags = suites._parse([f"--{name}={value}" for name, value in small.items()])
    stories = suites._stories(flags)
    ours, peer = (side(flags, stories)[0]() for side in (suites._ours, suites._peer))
    assert len(ours) == 6 and len(set(ours)) == 6
    np.testing.assert_allclose(ours, peer, rtol=1e-4)
