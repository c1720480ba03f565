"""launch/bench.py chain at a size of seconds: every stage is timed, and a stream gives sound before it ends."""

import pytest

from jaxslm.benchmarks import chain


def test_each_stage_has_its_share():
    small = "--units 80 --rounds 1 --d_model 16 --layers 1 --d_ff 32 --codec_filters 2 --passes 2,1,1,1,1,1,1,1"
    result = chain.run(small.split())
    details = result["details"]
    stages = details["real_time_factor_of_stages"]
    assert set(stages) == {"language model", "durations", "prompts", "codes", "waveform"}
    assert sum(stages.values()) == pytest.approx(details["real_time_factor"]) == pytest.approx(1 / result["ours"])
    assert details["streamed_seconds"] > 2  # about two frames a unit
    assert 0 < details["first_sound_after_s"] < details["streamed_real_time_factor"] * details["streamed_seconds"]
