import math

import numpy as np
import pytest

from jaxslm.evaluation.phone_units import phone_unit_metrics, unit_metrics
from jaxslm.units.units import UnitSequence, deduplicate


def test_a_table_made_by_hand():
    # Phone 0 has 4 frames, all of unit 0; phone 1 has 4 frames, 2 of unit 0 and 2 of unit 1.
    metrics = phone_unit_metrics(np.array([[4, 0, 0], [2, 2, 0]]))
    assert metrics["phone_purity"] == 6 / 8 and metrics["cluster_purity"] == 6 / 8
    # H(phone) = 1 bit, H(phone | unit) = 6/8 h(1/3).
    remaining = 6 / 8 * (math.log2(3) - 2 / 3)
    assert metrics["pnmi"] == pytest.approx(1 - remaining)
    assert (metrics["frames"], metrics["phones"]) == (8, 2)


def test_pnmi_is_scikit_learns_mutual_information_over_the_entropy():
    sklearn = pytest.importorskip("sklearn.metrics")
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(0)
    phones = rng.integers(0, 7, 3000)
    units = np.where(rng.random(3000) < 0.6, 3 * phones + rng.integers(0, 3, 3000), rng.integers(0, 25, 3000))
    counts = np.zeros((8, 30), int)  # a phone and units that do not occur
    np.add.at(counts, (phones, units), 1)
    expected = sklearn.mutual_info_score(phones, units) / stats.entropy(np.bincount(phones))
    metrics = phone_unit_metrics(counts)
    assert metrics["pnmi"] == pytest.approx(expected, abs=1e-12)
    best = sum(np.bincount(phones[units == unit]).max() for unit in np.unique(units))
    assert metrics["phone_purity"] == pytest.approx(best / 3000)
    best = sum(np.bincount(units[phones == phone]).max() for phone in np.unique(phones))
    assert metrics["cluster_purity"] == pytest.approx(best / 3000)


def test_units_that_tell_everything_and_nothing():
    assert phone_unit_metrics(np.diag([3, 2, 1]))["pnmi"] == pytest.approx(1)
    assert phone_unit_metrics(np.outer([3, 2, 1], [4, 4]))["pnmi"] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("counts", [np.zeros((2, 3)), np.array([[5, 1], [0, 0]])])
def test_nothing_to_tell_apart_is_refused(counts):
    with pytest.raises(ValueError, match="nothing can be told apart"):
        phone_unit_metrics(counts)


@pytest.mark.parametrize("joined", [True, False])
def test_usage_and_bitrates_by_hand(joined):
    frames = [np.array([0, 0, 0, 1]), np.array([1, 1, 2, 2])]
    single = [UnitSequence(ids, np.ones(4), 50.0) for ids in frames]
    metrics = unit_metrics([deduplicate(ids, 50.0) for ids in frames] if joined else single, 8)
    frame_bits = 2 * 3 / 8 * math.log2(8 / 3) + 2 / 8 * 2  # of 3, 3 and 2 frames
    run_bits = 1.5  # of 1, 2 and 1 runs
    expected = dict(
        size=8, usage=3 / 8, perplexity=2**frame_bits, bitrate=150, entropy_bitrate=50 * frame_bits,
        deduplicated_bitrate=75, deduplicated_entropy_bitrate=25 * run_bits, dedup_factor=2, units_per_second=25,
        seconds=8 / 50,
    )  # fmt: skip
    assert metrics == pytest.approx(expected)


def test_no_units_are_refused():
    with pytest.raises(ValueError, match="no units to measure"):
        unit_metrics([deduplicate(np.zeros(0, int), 50.0)], 8)
