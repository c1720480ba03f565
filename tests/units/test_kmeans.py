import jax.numpy as jnp
import numpy as np
import pytest

from jaxslm.units.kmeans import assign, fit_kmeans, fit_kmeans_minibatch
from jaxslm.units.kmeans_start import plus_plus
from jaxslm.units.kmeans_sums import add_by_product, add_by_scatter, cluster_sums, make_mesh, place

FITS = (fit_kmeans, fit_kmeans_minibatch)


def blobs(n=3000, k=24, dim=12, seed=0):
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(k, dim))
    return (centres[rng.integers(0, k, n)] + 0.5 * rng.normal(size=(n, dim))).astype(np.float32)


def distances(frames, centroids):
    return ((frames.astype(np.float64)[:, None] - centroids.astype(np.float64)) ** 2).sum(axis=-1)


def inertia(frames, centroids):
    return distances(frames, centroids).min(axis=1).mean()


def lloyd_in_float64(frames, centroids, iterations):
    for _ in range(iterations):
        ids = distances(frames, centroids).argmin(axis=1)
        centroids = np.stack([frames[ids == k].mean(axis=0, dtype=np.float64) for k in range(len(centroids))])
    return centroids


def test_assign_equals_a_float64_search_for_any_number_of_frames():
    rng = np.random.default_rng(0)
    frames, centroids = blobs(2500), rng.normal(size=(37, 12)).astype(np.float32)
    expected = distances(frames, centroids).argmin(axis=1).tolist()
    for n in (0, 1, 511, 512, 513, 2500):
        ids = assign(frames[:n], centroids)
        assert ids.dtype == np.int32 and ids.tolist() == expected[:n]


def test_equally_near_centroids_give_the_first():
    centroids = np.array([[3, 0], [1, 0], [1, 0], [-1, 0], [1, 0]], np.float32)
    assert assign(np.array([[1, 2], [0, 5], [-1, 0]], np.float32), centroids).tolist() == [1, 1, 3]


def test_sums_equal_a_float64_loop_and_padding_counts_for_nothing():
    for n in (1, 9, 5000, 20_011):
        frames = blobs(n) + 3  # a padding frame at zero would pull its centroid away
        centroids = blobs(30, seed=5) + 3
        sums = cluster_sums(place(frames, make_mesh()), centroids, make_mesh())
        ids = distances(frames, centroids).argmin(axis=1)
        expected = np.zeros((30, 12))
        np.add.at(expected, ids, frames.astype(np.float64))
        np.testing.assert_allclose(sums.sums_KxD, expected, rtol=1e-5, atol=1e-4)
        assert np.array_equal(sums.counts_K, np.bincount(ids, minlength=30))
        np.testing.assert_allclose(sums.inertia / n, inertia(frames, centroids), rtol=1e-5)


def test_both_ways_to_add_frames_equal_numpy():
    frames, ids = blobs(512), np.random.default_rng(0).integers(0, 24, 512)
    expected = np.ones((30, 12))
    np.add.at(expected, ids, frames)
    for add in (add_by_product, add_by_scatter):
        np.testing.assert_allclose(add(jnp.ones((30, 12)), ids, frames), expected, rtol=1e-5, atol=1e-5)


def test_lloyd_equals_float64_and_scikit_learn_from_the_same_start():
    cluster = pytest.importorskip("sklearn.cluster")
    frames = blobs()
    start = frames[:24]
    ours = fit_kmeans(frames, 24, seed=0, iterations=7, tolerance=0.0, start_KxD=start)
    np.testing.assert_allclose(ours.centroids, lloyd_in_float64(frames, start, 7), atol=1e-4)
    theirs = cluster.KMeans(24, init=start, n_init=1, max_iter=7, tol=0.0, algorithm="lloyd").fit(frames)
    np.testing.assert_allclose(ours.centroids, theirs.cluster_centers_, atol=1e-4)
    np.testing.assert_allclose(ours.inertia[-1], theirs.inertia_ / len(frames), rtol=1e-5)
    assert len(ours.inertia) == 8 and np.all(np.diff(ours.inertia) < 0)


def test_a_minibatch_equals_scikit_learns_step():
    cluster = pytest.importorskip("sklearn.cluster")
    frames = blobs()
    start = frames[:24]
    ours = fit_kmeans_minibatch(frames, 24, seed=0, batch_size=3000, epochs=1, start_KxD=start)
    drawn = frames[np.sort(np.random.default_rng(0).integers(0, 3000, 3000))]
    theirs = cluster.MiniBatchKMeans(24, init=start, n_init=1, reassignment_ratio=0.0).partial_fit(drawn)
    np.testing.assert_allclose(ours.centroids, theirs.cluster_centers_, atol=1e-4)


@pytest.mark.parametrize("fit", FITS)
def test_inertia_is_as_low_as_scikit_learns(fit):
    cluster = pytest.importorskip("sklearn.cluster")
    peer = {fit_kmeans: cluster.KMeans, fit_kmeans_minibatch: cluster.MiniBatchKMeans}[fit]
    frames = blobs()
    theirs = min(peer(24, n_init=1, random_state=seed).fit(frames).inertia_ for seed in range(3)) / len(frames)
    ours = min(inertia(frames, fit(frames, 24, seed=seed).centroids) for seed in range(3))
    assert ours < 1.01 * theirs


def test_lloyd_reaches_a_fixed_point():
    frames = blobs(3000, k=8, dim=3)
    centroids = fit_kmeans(frames, 8, seed=0, iterations=500, tolerance=0.0).centroids
    np.testing.assert_allclose(centroids, lloyd_in_float64(frames, centroids, 1), atol=1e-4)


@pytest.mark.parametrize("fit", FITS)
def test_the_report_is_that_of_the_centroids(fit):
    frames = blobs()
    found = fit(frames, 24, seed=3)
    counts = np.bincount(distances(frames, found.centroids).argmin(axis=1), minlength=24)
    assert np.array_equal(found.counts, counts) and found.usage == np.mean(counts > 0)
    assert found.inertia[-1] == pytest.approx(inertia(frames, found.centroids), rel=1e-5)
    share = counts[counts > 0] / 3000
    assert found.perplexity == pytest.approx(2 ** -(share * np.log2(share)).sum())
    assert found.summary().startswith("24 clusters of 3000 frames after ")


@pytest.mark.parametrize("fit", FITS)
def test_the_seed_decides(fit):
    frames = blobs()
    first = fit(frames, 24, seed=3).centroids
    assert np.array_equal(first, fit(frames, 24, seed=3).centroids)
    assert not np.array_equal(first, fit(frames, 24, seed=4).centroids)


@pytest.mark.parametrize("fit", FITS)
def test_no_cluster_is_left_empty(fit):
    frames = blobs()
    start = np.concatenate([np.full((14, 12), 100), frames[:10]])  # fourteen that no frame is near
    found = fit(frames, 24, seed=0, start_KxD=start)
    assert found.moved >= 14 and found.usage == 1
    assert found.inertia[-1] < 1.2 * fit(frames, 24, seed=0).inertia[-1]


def test_as_many_clusters_as_frames_and_frames_all_alike():
    frames = blobs(40)
    assert inertia(frames, fit_kmeans(frames, 40, seed=0).centroids) < 1e-6
    for fit in FITS:
        alike = np.ones((40, 12), np.float32)
        centroids = fit(alike, 40, seed=0).centroids
        assert np.array_equal(centroids[assign(alike, centroids)], alike)


def test_the_start_favours_frames_far_from_those_drawn():
    far = np.zeros((5000, 4), np.float32)
    far[[17, 4321]] = [[50, 0, 0, 0], [0, 50, 0, 0]]
    start = np.asarray(plus_plus(far, 3, np.random.default_rng(0)))
    assert sorted(map(tuple, start)) == [(0, 0, 0, 0), (0, 50, 0, 0), (50, 0, 0, 0)]
    rng = np.random.default_rng(0)
    first = [float(plus_plus(np.arange(1000.0)[:, None], 1, rng)[0, 0]) for _ in range(300)]
    assert abs(np.mean(first) - 499.5) < 50 and min(first) < 100 and max(first) > 900  # any frame


def test_many_clusters():
    frames = blobs(6000, k=3000, dim=8)
    found = fit_kmeans(frames, 4096, seed=0, iterations=3)
    assert found.centroids.shape == (4096, 8) and found.usage > 0.99
    assert found.inertia[-1] < found.inertia[0]


def test_a_memory_map_is_read_in_batches(tmp_path):
    frames = blobs(3000)
    np.save(tmp_path / "frames.npy", frames)
    mapped = np.load(tmp_path / "frames.npy", mmap_mode="r")
    options = dict(seed=0, batch_size=256, epochs=2)
    found = fit_kmeans_minibatch(mapped, 24, **options)
    assert np.array_equal(found.centroids, fit_kmeans_minibatch(frames, 24, **options).centroids)


@pytest.mark.parametrize("fit", FITS)
def test_impossible_requests_are_refused(fit):
    with pytest.raises(ValueError, match="11 clusters cannot be learnt .* give more audio or ask for fewer"):
        fit(blobs(10), 11, seed=0)
    with pytest.raises(ValueError, match=r"a start of shape \(3, 2\) is not 2 centroids of 12 features"):
        fit(blobs(10), 2, seed=0, start_KxD=np.zeros((3, 2)))
    frames = blobs(10)
    frames[3, 2] = np.nan
    with pytest.raises(ValueError, match="NaN or infinite: check the audio"):
        fit(frames, 2, seed=0)
