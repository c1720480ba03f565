import functools

import numpy as np
import pytest

from jaxslm.evaluation.robustness import CHANGES, edit_distance, faster, noisy, unit_edit_distance
from jaxslm.units.units import deduplicate


def _recursive(a, b) -> int:
    @functools.cache
    def distance(i, j):
        if not i or not j:
            return i + j
        return min(
            distance(i - 1, j) + 1, distance(i, j - 1) + 1, distance(i - 1, j - 1) + (a[i - 1] != b[j - 1])
        )  # fmt: skip

    return distance(len(a), len(b))


def test_edit_distance_is_levenshteins():
    rng = np.random.default_rng(0)
    for _ in range(100):
        a, b = (rng.integers(0, 4, rng.integers(0, 15)) for _ in range(2))
        assert edit_distance(a, b) == _recursive(tuple(a), tuple(b))
    kitten, sitting = (np.frombuffer(word, np.uint8) for word in (b"kitten", b"sitting"))
    assert edit_distance(kitten, sitting) == 3


def test_unit_edit_distance_is_over_all_clean_units():
    clips = [np.array([1, 1, 2, 2, 3], np.float32), np.array([5, 5, 5, 5, 5], np.float32)]

    def encode(clips):
        return [deduplicate(clip.astype(int), 50.0) for clip in clips]

    assert unit_edit_distance(encode, clips, lambda clip, _: clip) == 0
    # Every second frame: the runs stay; then 3 and 1 edits of 3 and 1 units; then one of four.
    assert unit_edit_distance(encode, clips, lambda clip, _: clip[::2]) == 0
    assert unit_edit_distance(encode, clips, lambda clip, _: clip + 10) == 100
    assert unit_edit_distance(encode, clips, lambda clip, _: np.where(clip == 2, 9, clip)) == 25


def test_without_units_there_is_no_distance():
    with pytest.raises(ValueError, match="give no units"):
        unit_edit_distance(lambda clips: [], [], noisy(10))


def test_noise_has_the_power_that_was_asked_for():
    tone = 0.1 * np.sin(np.arange(16_000) * 0.3).astype(np.float32)
    noise = noisy(10)(tone, np.random.default_rng(0)) - tone
    assert 10 * np.log10(np.mean(tone**2) / np.mean(noise**2)) == pytest.approx(10, abs=1e-3)
    assert np.array_equal(noise, noisy(10)(tone, np.random.default_rng(0)) - tone)


def _pitch(samples: np.ndarray) -> float:
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return np.argmax(spectrum) * 16_000 / len(samples)


def test_speed_keeps_the_pitch_and_pitch_keeps_the_speed():
    tone = 0.1 * np.sin(2 * np.pi * 500 * np.arange(16_000) / 16_000).astype(np.float32)
    rng = np.random.default_rng(0)
    fast = faster(1.25)(tone, rng)
    assert len(fast) == pytest.approx(12_800, abs=2) and _pitch(fast) == pytest.approx(500, abs=3)
    high = CHANGES["pitch +2 semitones"](tone, rng)
    assert len(high) == 16_000 and _pitch(high) == pytest.approx(500 * 2 ** (2 / 12), abs=3)
    assert fast.dtype == high.dtype == np.float32
