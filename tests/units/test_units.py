import itertools

import numpy as np
import pytest

from jaxslm.units.units import UnitSequence, at_speed, deduplicate, unit_word_offsets
from jaxslm.units.words import Word


def test_deduplicate_golden():
    units = deduplicate(np.array([7, 7, 7, 0, 0, 5, 7]), 50.0)
    assert units.ids.tolist() == [7, 0, 5, 7] and units.durations.tolist() == [3, 2, 1, 1]
    assert units.ids.dtype == units.durations.dtype == np.int32
    assert units.seconds == 7 / 50 and len(units) == 4
    assert len(deduplicate(np.zeros(0, np.int32), 50.0)) == 0


def test_deduplicate_equals_groupby_and_expand_undoes_it():
    rng = np.random.default_rng(0)
    for _ in range(50):
        ids = rng.integers(0, 3, rng.integers(1, 40))
        units = deduplicate(ids, 25.0)
        runs = [(key, len(list(run))) for key, run in itertools.groupby(ids)]
        assert list(zip(units.ids, units.durations, strict=True)) == runs
        assert np.array_equal(units.expand(), ids)


@pytest.mark.parametrize(
    "ids, durations, rate, message",
    [
        ([1, 2], [1], 50.0, "give each a duration"),
        ([1, 2], [1, 0], 50.0, "unit 1 lasts 0 frames: durations are whole frames, at least 1"),
        ([1, -2], [1, 1], 50.0, "unit id -2 is negative"),
        ([1], [1], 0.0, "not a positive number of frames a second"),
    ],
)
def test_impossible_units_are_refused(ids, durations, rate, message):
    with pytest.raises(ValueError, match=message):
        UnitSequence(ids, durations, rate)


def test_equality_is_by_value():
    assert deduplicate([1, 1, 2], 50.0) == deduplicate([1, 1, 2], 50.0)
    assert deduplicate([1, 1, 2], 50.0) != deduplicate([1, 2, 2], 50.0)
    assert deduplicate([1, 1, 2], 50.0) != deduplicate([1, 1, 2], 25.0)


def test_word_offsets_golden():
    # Units in seconds: 0-.04, .04-.10, .10-.12, .12-.20. The pause .08-.14 is cut at .11, the middle of the third unit,
    # which therefore goes to the right.
    units = UnitSequence([4, 9, 4, 2], [2, 3, 1, 4], 50.0)
    words = (Word("a", 0.02, 0.08), Word("b", 0.14, 0.18))
    assert unit_word_offsets(units, words).tolist() == [0, 2, 4]
    assert unit_word_offsets(units, words[:1]).tolist() == [0, 4]
    # A word of no length, and one that ends before the first unit's middle, own nothing.
    words = (Word("a", 0.0, 0.0), Word("-", 0.0, 0.0), Word("b", 0.0, 0.2))
    assert unit_word_offsets(units, words).tolist() == [0, 0, 0, 4]


def test_word_offsets_divide_the_units_by_their_middles():
    rng = np.random.default_rng(1)
    for _ in range(100):
        units = UnitSequence(rng.integers(0, 9, 30), rng.integers(1, 6, 30), 50.0)
        times = np.sort(rng.uniform(0, units.seconds, 2 * int(rng.integers(1, 12))))
        words = [Word("w", *pair) for pair in times.reshape(-1, 2)]
        offsets = unit_word_offsets(units, words)
        assert offsets.dtype == np.int32 and len(offsets) == len(words) + 1
        assert offsets[0] == 0 and offsets[-1] == 30 and np.all(np.diff(offsets) >= 0)
        owner = np.repeat(np.arange(len(words)), np.diff(offsets))  # one word for each unit: none lost, none doubled
        start = 0.0
        for unit, frames in enumerate(units.durations):
            middle, start = start + frames / 100, start + frames / 50
            before = sum((a.end + b.start) / 2 <= middle for a, b in itertools.pairwise(words))
            assert owner[unit] == before


@pytest.mark.parametrize(
    ("speed", "frames"),
    [
        (2.0, [5, 5, 1]),
        (0.5, [5] * 8 + [7] * 2 + [1] * 2),
        (1.0, [5, 5, 5, 5, 7, 1]),
        (100.0, [1]),
        (1.5, [5, 5, 5, 1]),
    ],
)
def test_at_another_speed_frames_are_drawn_together_or_out(speed, frames):
    units = UnitSequence([5, 7, 1], [4, 1, 1], 50.0)
    assert at_speed(units, speed).expand().tolist() == frames and at_speed(units, speed).frame_rate == 50.0
    assert not len(at_speed(UnitSequence([], [], 50.0), speed))


def test_a_speed_is_positive_and_finite():
    for speed in (0.0, -1.0, np.inf, np.nan):
        with pytest.raises(ValueError, match="speed=.*give a positive number"):
            at_speed(UnitSequence([5], [4], 50.0), speed)
