"""One level's codebook: lookups, running means, k-means, restarts, metrics."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxslm.codec import codebooks
from jaxslm.codec.codebooks import Codebooks
from jaxslm.codec.quantizer_config import QuantizerConfig

K, C, N = 16, 6, 300


def frames(seed: int, n: int = N, k: int = K) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(k, C))[rng.integers(0, k, n)] * 3 + rng.normal(size=(n, C)) + 5).astype(np.float32)


def book(seed: int = 3, k: int = K) -> Codebooks:
    rng = np.random.default_rng(seed)
    usage_K = rng.uniform(1, 20, k).astype(np.float32)
    sums_KxC = (rng.normal(size=(k, C)) * 3 + 5).astype(np.float32) * usage_K[:, None]
    return Codebooks(jnp.asarray(usage_K), jnp.asarray(sums_KxC), jnp.int32(1))


def config(**options) -> QuantizerConfig:
    return QuantizerConfig(dim=C, codebook_size=K, n_levels=1, **options)


def nearest_in_float64(x_NxC, codes_KxC, l2=False):
    x, codes = np.asarray(x_NxC, np.float64), np.asarray(codes_KxC, np.float64)
    if l2:
        x, codes = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (x, codes))
    return np.argmin(((x[:, None] - codes) ** 2).sum(-1), axis=1)


@pytest.mark.parametrize("l2", (False, True))
def test_the_nearest_code_is_that_of_a_float64_loop(l2):
    x, codes = frames(0), frames(1, K)
    found = codebooks.nearest(x, codes, l2)
    assert found.dtype == jnp.int32
    np.testing.assert_array_equal(found, nearest_in_float64(x, codes, l2))


def test_lookups_by_angle_differ_from_lookups_by_distance():
    assert np.any(codebooks.nearest(frames(0), frames(1, K)) != codebooks.nearest(frames(0), frames(1, K), True))


def test_large_codebooks_are_looked_through_in_blocks(monkeypatch):
    monkeypatch.setattr(codebooks, "BLOCK", 7)  # 16 codes: three blocks, the last padded
    x, codes = frames(0), frames(1, K)
    np.testing.assert_array_equal(codebooks.nearest(x, codes), nearest_in_float64(x, codes))


def test_of_equally_near_codes_the_first_is_taken_across_blocks_too(monkeypatch):
    codes = np.repeat(frames(1, 1), K, axis=0)
    assert not np.any(codebooks.nearest(frames(0), codes))
    monkeypatch.setattr(codebooks, "BLOCK", 5)
    assert not np.any(codebooks.nearest(frames(0), codes))


def test_members_are_added_alike_by_scatter_and_by_product(monkeypatch):
    ids, x, real = np.random.default_rng(0).integers(0, K, N), frames(0), np.arange(N) % 3 > 0
    expected = np.zeros((K, C))
    np.add.at(expected, ids[real], x[real].astype(np.float64))
    np.testing.assert_allclose(codebooks.add_up(ids, x, real, K), expected, rtol=1e-5)
    monkeypatch.setattr(
        jax.lax, "platform_dependent", lambda *args, default, **others: default(*(jnp.asarray(a) for a in args))
    )
    np.testing.assert_allclose(codebooks.add_up(ids, x, real, K), expected, rtol=1e-5)


def test_running_means_are_those_of_a_float64_loop_without_padding():
    now, options = book(), config(restart="none", decay=0.9)
    usage, sums = np.asarray(now.usage_QxK, np.float64), np.asarray(now.sums_QxKxC, np.float64)
    for step in range(5):
        x, real = frames(step), np.random.default_rng(step).random(N) < 0.7
        ids = np.asarray(codebooks.nearest(x, now.codes_QxKxC))
        np.testing.assert_array_equal(ids, nearest_in_float64(x, sums / usage[:, None]))
        now = codebooks.learn(now, ids, jnp.where(real[:, None], x, 1e6), real, options, jax.random.key(0))
        usage, sums = 0.9 * usage, 0.9 * sums
        for i, frame in zip(ids[real], x[real], strict=True):
            usage[i] += 0.1
            sums[i] += 0.1 * frame
    np.testing.assert_allclose(now.usage_QxK, usage, rtol=1e-5)
    np.testing.assert_allclose(now.codes_QxKxC, sums / usage[:, None], rtol=1e-5)
    assert now.batches_Q == 6


def test_a_code_that_no_frame_takes_stays_where_it_is_for_ever():
    now, options = book()._replace(usage_QxK=jnp.ones(K)), config(restart="none", decay=0.1)
    before = now.codes_QxKxC[1]
    for step in range(60):
        now = codebooks.learn(now, jnp.zeros(N, int), frames(0), jnp.ones(N, bool), options, jax.random.key(step))
    np.testing.assert_allclose(now.codes_QxKxC[1], before, rtol=1e-5)


def test_kmeans_finds_clusters_and_the_first_running_mean_moves_their_codes_by_less_than_5_percent():
    x, real = frames(0, 2000), jnp.arange(2000) < 1500
    spoilt = jnp.where(real[:, None], x, 100.0)
    options = config(restart="none", decay=0.99)
    found = codebooks.kmeans(spoilt, real, options, jax.random.key(0))
    codes = np.asarray(found.codes_QxKxC)
    ids = nearest_in_float64(x[:1500], codes)
    for i in range(K):
        np.testing.assert_allclose(codes[i], x[:1500][ids == i].mean(axis=0), rtol=1e-3)  # k-means has converged
    assert found.usage_QxK.sum() == 1500 and found.batches_Q == 1
    after = codebooks.learn(found, jnp.asarray(ids), x[:1500], real[:1500], options, jax.random.key(1))
    norms, moved = (np.linalg.norm(c, axis=1) for c in (codes, np.asarray(after.codes_QxKxC)))
    assert np.max(np.abs(moved / norms - 1)) < 0.05
    other = frames(9, 2000)  # of other frames than those of k-means, too
    after = codebooks.learn(found, codebooks.nearest(other, codes), other, real, options, jax.random.key(1))
    moved = np.linalg.norm(np.asarray(after.codes_QxKxC), axis=1)
    assert np.max(np.abs(moved / norms - 1)) < 0.05


def test_kmeans_of_fewer_frames_than_codes_is_finite_and_holds_only_them():
    x = jnp.asarray(frames(0, 5))
    codes = codebooks.kmeans(x, jnp.array([True] * 4 + [False]), config(), jax.random.key(0)).codes_QxKxC
    distances = np.linalg.norm(np.asarray(codes)[:, None] - np.asarray(x[:4]), axis=-1)
    assert np.all(np.min(distances, axis=1) < 1e-5)
    assert set(np.argmin(distances, axis=1)) == {0, 1, 2, 3}


def test_drawn_frames_are_real_and_differ_while_they_last():
    x, real = jnp.asarray(frames(0)), np.arange(N) % 10 == 0  # 30 real frames for 16 codes
    drawn = np.asarray(codebooks.draw(x, real, jnp.ones(K, bool), jax.random.key(0)))
    rows = {int(np.flatnonzero((x == frame).all(axis=1))[0]) for frame in drawn}
    assert len(rows) == K and all(real[row] for row in rows)


@pytest.mark.parametrize("rule", ("ratio", "absolute", "interval"))
def test_a_restarted_code_is_a_frame_of_the_batch_after_the_step(rule):
    options, fresh = {
        "ratio": (config(restart_every=1), None),
        "absolute": (config(restart="absolute"), 2.0),
        "interval": (config(restart="interval", restart_every=4), 1.0),
    }[rule]
    far = np.array([2, 5, 11])  # of this usage, and far from all frames
    now = book()
    now = now._replace(usage_QxK=jnp.full(K, 18.0).at[far].set(0.5), sums_QxKxC=now.codes_QxKxC.at[far].set(1e4) * 18.0)
    now = now._replace(sums_QxKxC=now.sums_QxKxC.at[far].multiply(0.5 / 18), batches_Q=jnp.int32(3))
    x, real = jnp.asarray(frames(0)), jnp.arange(N) < 200
    ids = codebooks.nearest(x, now.codes_QxKxC)
    after = codebooks.learn(now, ids, x, real, options, jax.random.key(0))
    calm = codebooks.learn(now, ids, x, real, config(restart="none"), jax.random.key(0))
    codes = np.asarray(after.codes_QxKxC)
    for i in far:
        assert np.min(np.abs(x[:200] - codes[i]).max(axis=1)) < 1e-5
    others = np.setdiff1d(np.arange(K), far)
    np.testing.assert_array_equal(after.usage_QxK[others], calm.usage_QxK[others])
    np.testing.assert_array_equal(codes[others], calm.codes_QxKxC[others])
    expected = float(calm.usage_QxK.mean()) if fresh is None else fresh
    np.testing.assert_allclose(after.usage_QxK[far], expected, rtol=1e-6)
    # and it lives: the next batch takes it, and does not replace it
    ids = codebooks.nearest(x, after.codes_QxKxC)
    assert set(far) <= set(np.asarray(ids).tolist())
    later = codebooks.learn(after, ids, x, jnp.ones(N, bool), options, jax.random.key(1))
    assert np.max(np.abs(np.asarray(later.codes_QxKxC)[far] - codes[far])) < 0.5


@pytest.mark.parametrize(("restart", "every"), (("ratio", 5), ("absolute", 1), ("interval", 100)))
def test_restarts_come_as_often_as_their_authors_have_them(restart, every):
    options, x = config(restart=restart), jnp.asarray(frames(0))
    dead = book()._replace(usage_QxK=jnp.full(K, 9.0).at[3].set(0.01))
    for batches, due in ((every - 1, True), (every, every == 1)):  # learnt from before this batch
        now = dead._replace(batches_Q=jnp.int32(batches))
        after = codebooks.learn(now, jnp.full(N, 4), x, jnp.ones(N, bool), options, jax.random.key(0))
        assert (float(after.usage_QxK[3]) > 0.5) == due


def test_the_ratio_rule_does_not_depend_on_the_size_of_the_batch_and_the_absolute_one_does():
    def dead(restart: str, size: float) -> int:
        usage = size * jnp.linspace(0.05, 2, K)
        now = book()._replace(usage_QxK=usage)
        options = config(restart=restart)
        after = codebooks.restart(now, jnp.asarray(frames(0)), jnp.ones(N, bool), options, jax.random.key(0))
        return int(np.sum(np.asarray(after.usage_QxK) != np.asarray(usage)))

    assert dead("ratio", 1.0) == dead("ratio", 100.0) == 1
    assert dead("absolute", 1.0) > dead("absolute", 100.0)


def test_the_interval_rule_spares_a_code_that_one_frame_took():
    options = config(restart="interval", restart_every=10)
    now = book()._replace(usage_QxK=jnp.ones(K), batches_Q=jnp.int32(10))
    x = jnp.asarray(frames(0, 20))
    for step in range(10):
        ids = jnp.zeros(20, int).at[0].set(1 if step == 0 else 0)  # code 1 in the first batch only, 2 and on in none
        now = codebooks.learn(now, ids, x, jnp.ones(20, bool), options, jax.random.key(step))
    assert float(now.usage_QxK[1]) < 1 and np.all(now.usage_QxK[2:] == 1)


def test_metrics_count_real_frames():
    ids = jnp.array([0, 0, 1, 1, 2, 3])
    real = jnp.array([True] * 4 + [False] * 2)
    now = book()._replace(usage_QxK=jnp.array([10.0] * 12 + [0.5] * 4))
    found = codebooks.measure(ids, real, now)
    assert float(found["usage"]) == 2 / K and float(found["dead"]) == 4
    np.testing.assert_allclose(found["perplexity"], 2.0, rtol=1e-6)
    nothing = codebooks.measure(ids, jnp.zeros(6, bool), now)
    assert float(nothing["usage"]) == 0 and np.isfinite(nothing["perplexity"])
