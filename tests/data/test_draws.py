"""Draws: published splitmix64 values, uniformity, and one by one equal to all at once."""

import numpy as np
import scipy.stats

from jaxslm.data.draws import draw_bits, draw_integers, draw_order, draw_uniform


def test_splitmix64_first_output():
    # The reference implementation's first output for seed 1234567.
    assert int(draw_bits(1234567)) == 6457827717110365317


def test_alone_as_together():
    together = draw_bits(3, np.arange(50)[:, None], np.arange(7))
    alone = [[int(draw_bits(3, i, j)) for j in range(7)] for i in range(50)]
    assert together.tolist() == alone
    assert len(set(together.ravel().tolist())) == 350
    assert int(draw_bits(1, 2)) != int(draw_bits(2, 1))


def test_uniform_and_integers():
    assert scipy.stats.kstest(draw_uniform(5, np.arange(20_000)), "uniform").pvalue > 0.01
    drawn = draw_integers(5, 15, 9, np.arange(22_000))
    counts = np.bincount(drawn, minlength=16)
    assert counts[:5].sum() == 0 and len(counts) == 16
    assert scipy.stats.chisquare(counts[5:]).pvalue > 0.01


def test_order_is_a_permutation():
    first, second = draw_order(1000, 0, 1), draw_order(1000, 0, 2)
    assert sorted(first) == list(range(1000)) and not np.array_equal(first, second)
    assert abs(scipy.stats.spearmanr(first, second).statistic) < 0.1
