"""launch/bench.py acoustic at a size of seconds: both sides make all codes, and the steps are counted as they are."""

from jaxslm.benchmarks import acoustic


def test_both_sides_make_the_codes():
    small = "--seconds 0.2 --batch 2 --rounds 1 --d_model 16 --layers 1 --heads 2 --d_ff 32"
    result = acoustic.run(small.split())
    assert result["ours"] > 0 and result["peer"] > 0
    assert result["details"]["sequential_steps"] == dict(masked=16 + 7, autoregressive=10 * 8)
    assert result["ratio"] == result["ours"] / result["peer"]
