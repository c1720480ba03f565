"""Codebooks on frames whose best codes all get used: with the remedies they are, without them they collapse."""

import functools

import pytest

from jaxslm.benchmarks.codebooks import DIM, ROWS, Mixture, fit, judge
from jaxslm.codec.quantizer_config import QuantizerConfig

CODES = 512


@functools.cache
def found(row: str, steps: int = 400, batch: int = 2048) -> dict[str, float]:
    mixture = Mixture.make()
    config = QuantizerConfig(**dict(dim=DIM, n_levels=1, codebook_size=CODES) | ROWS[row])
    return judge(fit(config, mixture, steps=steps, batch=batch), mixture, 2048)


@pytest.mark.parametrize("restart", ("ratio", "absolute", "interval"))
def test_with_kmeans_and_restarts_nearly_all_codes_are_used_alike(restart):
    row = found(f"EMA, k-means, {restart} restart")
    assert row["usage"] >= 0.98 and row["perplexity"] >= 0.75 * CODES and row["error"] < 0.35


def test_without_either_the_codebook_collapses_and_either_alone_saves_it():
    alone = found("EMA")
    assert alone["usage"] < 0.1 and alone["error"] > 0.6
    for remedy in ("k-means", "absolute restart"):
        row = found(f"EMA, {remedy}")
        assert row["usage"] > 0.95 and row["perplexity"] > 0.7 * CODES


def test_gradient_codes_need_few_features_and_lookups_by_angle():
    whole, low, by_angle = (
        found(row, steps=600, batch=512) for row in ("gradient", "gradient, 8-d", "gradient, 8-d, l2")
    )
    assert by_angle["usage"] > 0.6 and by_angle["perplexity"] > 2 * low["perplexity"]
    assert low["perplexity"] > 2 * whole["perplexity"]
