import numpy as np
import pytest

from jaxslm.audio.pauses import cuts_at_quiet, cuts_between_words, quietest

RATE = 16_000


def noise(seconds: float) -> np.ndarray:
    return np.random.default_rng(0).uniform(-0.5, 0.5, int(seconds * RATE)).astype(np.float32)


def test_the_quietest_place_equals_a_search_over_all_stretches():
    samples_N = noise(3) * np.abs(np.sin(np.arange(3 * RATE) / 9_000)).astype(np.float32)
    stretches = range(RATE, 3 * RATE - 3_200 + 1, 160)
    energy = [float(np.sum(np.square(samples_N[a : a + 3_200].astype(np.float64)))) for a in stretches]
    assert quietest(samples_N, RATE, 3 * RATE) == stretches[int(np.argmin(energy))] + 1_600
    assert quietest(samples_N, 100, 200) == 200


def test_pieces_are_cut_in_pauses_and_none_is_too_long():
    samples_N = noise(30)
    for second in (3, 9, 17, 25):
        samples_N[second * RATE : second * RATE + 4_800] = 0.0
    cuts = cuts_at_quiet(samples_N, 10 * RATE, 1_600)
    # Inside the pauses, and 3 s is no late place of a 10 s piece.
    np.testing.assert_allclose(np.array(cuts) / RATE, [9.15, 17.15, 25.15], atol=0.06)
    cuts = cuts_at_quiet(noise(10.05), 10 * RATE, 1_600)
    assert len(cuts) == 1 and cuts[0] <= 10.05 * RATE - 1_600  # what remains is long enough to be used
    assert cuts_at_quiet(noise(10), 10 * RATE, 1_600) == []


def test_cuts_between_words_lie_in_the_longest_pause_of_the_last_third():
    words = [(0.0, 2.0), (2.9, 7.0), (7.2, 8.0), (8.5, 9.5), (9.5, 12.0), (12.0, 14.0)]
    assert cuts_between_words(words, 14.0, 10.0, 0.1) == [8.25]
    assert cuts_between_words([(0, 4.0), (4.0, 8.0), (8.0, 12.0)], 12.0, 9.0, 0.1) == [8.0]
    assert cuts_between_words([(0, 4.0), (4.5, 12.0)], 12.0, 9.0, 0.1) == [4.25]  # nothing in the last third
    assert cuts_between_words([(0, 1.0), (30.0, 31.0)], 31.0, 10.0, 0.1) == pytest.approx([8 + 1 / 3, 16 + 2 / 3, 25])
    with pytest.raises(ValueError, match="no pause between words from 0.00 to 10.95 s"):
        cuts_between_words([(0.05, 12.0)], 12.0, 10.95, 1.0)
