import numpy as np
import pytest

from jaxslm.units.kmeans import assign, fit_kmeans


def blobs(n=3000, k=24, dim=12, seed=0):
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(k, dim))
    return (centres[rng.integers(0, k, n)] + 0.5 * rng.normal(size=(n, dim))).astype(np.float32)


def inertia(frames, centroids):
    return ((frames.astype(np.float64)[:, None] - centroids) ** 2).sum(axis=-1).min(axis=1).sum()


def test_assign_equals_a_float64_search_for_any_number_of_frames():
    rng = np.random.default_rng(0)
    frames, centroids = blobs(2500), rng.normal(size=(37, 12)).astype(np.float32)
    expected = [
        ((frame - centroids.astype(np.float64)) ** 2).sum(axis=1).argmin() for frame in frames.astype(np.float64)
    ]
    for n in (0, 1, 1023, 1024, 1025, 2500):
        ids = assign(frames[:n], centroids)
        assert ids.dtype == np.int32 and ids.tolist() == expected[:n]


def test_inertia_is_as_low_as_scikit_learns():
    cluster = pytest.importorskip("sklearn.cluster")
    frames = blobs()
    theirs = min(cluster.KMeans(24, n_init=1, random_state=seed).fit(frames).inertia_ for seed in range(3))
    ours = min(inertia(frames, fit_kmeans(frames, 24, seed=seed)) for seed in range(3))
    assert ours < 1.01 * theirs


def test_lloyd_reaches_a_fixed_point():
    frames = blobs(3000, k=8, dim=3)
    centroids = fit_kmeans(frames, 8, seed=0, iterations=500, tolerance=0.0)
    ids = assign(frames, centroids)
    means = np.stack([frames[ids == k].mean(axis=0, dtype=np.float64) for k in range(8)])
    np.testing.assert_allclose(centroids, means, atol=1e-4)


def test_the_seed_decides_and_no_cluster_is_left_empty():
    frames = blobs(2000)
    first = fit_kmeans(frames, 50, seed=3)
    assert np.array_equal(first, fit_kmeans(frames, 50, seed=3))
    assert not np.array_equal(first, fit_kmeans(frames, 50, seed=4))
    assert set(assign(frames, first)) == set(range(50))


def test_as_many_clusters_as_frames_and_frames_all_alike():
    frames = blobs(40)
    assert inertia(frames, fit_kmeans(frames, 40, seed=0)) < 1e-6
    alike = np.ones((40, 12), np.float32)
    centroids = fit_kmeans(alike, 40, seed=0)
    assert np.array_equal(centroids[assign(alike, centroids)], alike)


def test_impossible_requests_are_refused():
    with pytest.raises(ValueError, match="11 clusters cannot be learnt .* give more audio or ask for fewer"):
        fit_kmeans(blobs(10), 11, seed=0)
    frames = blobs(10)
    frames[3, 2] = np.nan
    with pytest.raises(ValueError, match="NaN or infinite: check the audio"):
        fit_kmeans(frames, 2, seed=0)
