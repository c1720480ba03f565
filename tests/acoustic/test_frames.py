"""Units on the clock of a codec."""

import numpy as np
import pytest

from jaxslm.acoustic.frames import frames_of, units_at_frames
from jaxslm.units.units import UnitSequence, deduplicate


@pytest.mark.parametrize("unit_rate", (12.5, 24.99, 25.0, 50.0, 100.0))
@pytest.mark.parametrize("frame_rate", (12.5, 50.0, 75.0))
def test_a_frame_has_the_unit_that_sounds_in_its_middle(unit_rate, frame_rate):
    units = deduplicate(np.random.default_rng(0).integers(0, 9, 400), unit_rate)
    n_frames = frames_of(units, frame_rate)
    ends = np.cumsum(units.durations) / unit_rate  # in seconds
    at = [min(np.searchsorted(ends, (t + 0.5) / frame_rate, "right"), len(ends) - 1) for t in range(n_frames)]
    wanted = units.ids[at]
    np.testing.assert_array_equal(units_at_frames(units, frame_rate, n_frames), wanted)
    assert abs(n_frames / frame_rate - units.seconds) <= 0.5 / frame_rate + 1e-9


def test_twice_the_rate_is_each_unit_twice_and_the_last_goes_on():
    units = UnitSequence([3, 1, 4], [1, 2, 1], 25.0)
    assert units_at_frames(units, 50.0, 10).tolist() == [3, 3, 1, 1, 1, 1, 4, 4, 4, 4]
    assert frames_of(UnitSequence([3], [1], 100.0), 12.5) == 1


def test_no_units_are_refused():
    with pytest.raises(ValueError, match="no units to speak"):
        units_at_frames(UnitSequence([], [], 50.0), 50.0, 3)
