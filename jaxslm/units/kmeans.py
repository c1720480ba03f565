"""k-means on feature frames: full and mini-batch, with a report of what was found.

The same frames and seed give the same centroids, bit for bit, on 1, 2, 4, 8 and 16 devices (`kmeans_sums`).

Shape letters: N frames, B frames in a batch or chunk, D features, K clusters.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxslm.units.kmeans_start import plus_plus, start_frames
from jaxslm.units.kmeans_sums import CHUNK, Frames, Sums, cluster_sums, distances, make_mesh, nearest, place

_STARVED = 0.01  # of the frames that a cluster would have if all had as many
_PART = 65_536  # frames that are on the devices at a time when all are passed over


@dataclass(frozen=True, eq=False)
class KMeans:
    """Centroids and how they came about.

    Attributes:
      centroids: [K, D] float32.
      inertia: mean squared distance of a frame to its centroid before each iteration, and last of all with these
        centroids; of mini-batches, each on frames that it had not seen before, only the last is of all frames.
      counts: [K] int32, frames nearest to each centroid.
      moved: clusters left without frames (mini-batch: with too few) and moved elsewhere, in all iterations.
    """

    centroids: np.ndarray
    inertia: tuple[float, ...]
    counts: np.ndarray
    moved: int

    @property
    def usage(self) -> float:
        """Share of the clusters that have frames."""
        return float(np.mean(self.counts > 0))

    @property
    def perplexity(self) -> float:
        """exp of the entropy of the cluster of a frame: K if all have as many frames."""
        share_K = self.counts[self.counts > 0] / self.counts.sum()
        return float(np.exp(-np.sum(share_K * np.log(share_K))))

    def summary(self) -> str:
        k = len(self.centroids)
        return (
            f"{k} clusters of {self.counts.sum()} frames after {len(self.inertia) - 1} iterations: "
            f"inertia {self.inertia[-1]:.6g} a frame, {self.usage:.1%} used, perplexity {self.perplexity:.1f}, "
            f"{self.moved} moved"
        )


def fit_kmeans(
    frames_NxD: np.ndarray,
    k: int,
    *,
    seed: int,
    iterations: int = 100,
    tolerance: float = 1e-4,
    start_KxD: np.ndarray | None = None,
    devices: Sequence[jax.Device] | None = None,
) -> KMeans:
    """Lloyd's iterations over all frames until one lowers the inertia by less than `tolerance` of it.

    A cluster left empty moves to a frame drawn in proportion to its squared distance from its centroid, as k-means++
    draws: the farthest frames, which scikit-learn takes, often lie side by side.

    Args:
      frames_NxD: features; scale them first, distances are Euclidean. All of them are put on the devices.
      k: number of clusters.
      seed: for the start, greedy k-means++ on a sample of the frames, at least 8,192 and at least 3 K.
      start_KxD: centroids to start from instead.
      devices: a power of two of them is used, at most 16; by default those of this process.
    Raises:
      ValueError: fewer frames than clusters, or frames that are not finite.
    """
    mesh, rng = make_mesh(devices), np.random.default_rng(seed)
    centroids_KxD = _start(frames_NxD, k, rng, start_KxD)
    frames = place(frames_NxD, mesh)
    inertia, moved = [], 0
    while True:
        sums = cluster_sums(frames, centroids_KxD, mesh)
        inertia.append(_mean_inertia(sums, len(frames_NxD)))
        counts_K = np.asarray(sums.counts_K)
        empty = np.flatnonzero(counts_K == 0)
        settled = len(inertia) > 1 and inertia[-2] - inertia[-1] <= tolerance * inertia[-1] and not len(empty)
        if settled or len(inertia) > iterations:
            return KMeans(np.asarray(centroids_KxD), tuple(inertia), counts_K, moved)
        means_KxD = sums.sums_KxD / jnp.maximum(sums.counts_K, 1)[:, None]
        if len(empty):
            picks = _far(_distances(frames, centroids_KxD, mesh), len(empty), rng)
            means_KxD = means_KxD.at[empty].set(frames_NxD[picks])
            moved += len(empty)
        centroids_KxD = means_KxD


def fit_kmeans_minibatch(
    frames_NxD: np.ndarray,
    k: int,
    *,
    seed: int,
    batch_size: int = 8192,
    epochs: int = 100,
    patience: int = 10,
    start_KxD: np.ndarray | None = None,
    devices: Sequence[jax.Device] | None = None,
) -> KMeans:
    """Mini-batch k-means (Sculley 2010): a centroid is the mean of all frames that were ever given to it.

    Batches are drawn at random until their inertia, smoothed over an epoch, has not improved for `patience` of them, as
    scikit-learn has it. A cluster with less than a hundredth of its fair share of frames moves to a frame of the batch.

    Args:
      frames_NxD: features, which may be a memory map: batches of it are read, and at the end all of it once.
      epochs: frames are drawn at most as often, on average.
      The others are as in `fit_kmeans`.
    Raises:
      ValueError: fewer frames than clusters, or frames that are not finite.
    """
    n, mesh, rng = len(frames_NxD), make_mesh(devices), np.random.default_rng(seed)
    centroids_KxD = jnp.asarray(_start(frames_NxD, k, rng, start_KxD))
    counts_K = jnp.zeros(k)
    batch_size = min(batch_size, n)
    weight = min(1.0, 2 * batch_size / (n + 1))
    inertia, moved, since, smooth, best, stale = [], 0, 0, np.inf, np.inf, 0
    for _ in range(max(1, epochs * n // batch_size)):
        batch_BxD = frames_NxD[np.sort(rng.integers(0, n, batch_size))]
        batch = place(batch_BxD, mesh)
        sums = cluster_sums(batch, centroids_KxD, mesh)
        inertia.append(_mean_inertia(sums, batch_size))
        before_KxD, (centroids_KxD, counts_K) = centroids_KxD, _towards(centroids_KxD, counts_K, sums)
        since += batch_size
        if since >= 10 * k:  # enough to tell the starved from the unlucky
            since, starved = 0, np.flatnonzero(counts_K < _STARVED * counts_K.mean())
            if len(starved):
                picks = _far(_distances(batch, before_KxD, mesh), len(starved), rng)
                centroids_KxD = centroids_KxD.at[starved].set(batch_BxD[picks])
                counts_K = counts_K.at[starved].set(_STARVED * counts_K.mean())
                moved += len(starved)
        smooth = inertia[-1] if np.isinf(smooth) else (1 - weight) * smooth + weight * inertia[-1]
        best, stale = (smooth, 0) if smooth < best else (best, stale + 1)
        if stale >= patience:
            break
    total, counts = _statistics(frames_NxD, centroids_KxD, mesh)
    return KMeans(np.asarray(centroids_KxD), (*inertia, total / n), counts, moved)


def assign(frames_NxD: np.ndarray, centroids_KxD: np.ndarray | jax.Array) -> np.ndarray:
    """Nearest centroid of each frame, int32 [N]; the first of equally near ones.

    Give centroids that are on the device already (a `jax.Array`) when there are many calls.
    """
    centroids_KxD = jnp.asarray(centroids_KxD, jnp.float32)
    return label_by_chunks(np.asarray(frames_NxD, np.float32), lambda chunk_BxD: _ids(chunk_BxD, centroids_KxD))


_ids = jax.jit(lambda frames_BxD, centroids_KxD: nearest(frames_BxD, centroids_KxD)[0])


def label_by_chunks(frames_NxD: np.ndarray, label: Callable[[np.ndarray], jax.Array]) -> np.ndarray:
    """int32 [N] from `label`, which is given 512 frames at a time: one compiled program serves clips of any length."""
    ids = []
    for start in range(0, len(frames_NxD), CHUNK):
        part_BxD = frames_NxD[start : start + CHUNK]
        ids.append(label(np.pad(part_BxD, ((0, CHUNK - len(part_BxD)), (0, 0)))))
    return np.concatenate([np.zeros(0, np.int32), *ids])[: len(frames_NxD)]


def in_chunks(label: Callable[[jax.Array], jax.Array], frames_BxTxD: jax.Array) -> jax.Array:
    """int32 [B, T] from `label`, as `label_by_chunks`, of frames that are on the device (traced)."""
    *shape, dim = frames_BxTxD.shape
    n = math.prod(shape)
    frames_NxD = jnp.pad(frames_BxTxD.reshape(n, dim), ((0, -n % CHUNK), (0, 0)))
    return jax.lax.map(label, frames_NxD.reshape(-1, CHUNK, dim)).reshape(-1)[:n].reshape(shape)


def _start(frames_NxD, k: int, rng: np.random.Generator, start_KxD: np.ndarray | None) -> np.ndarray | jax.Array:
    if frames_NxD.ndim != 2 or not 1 <= k <= len(frames_NxD):
        raise ValueError(
            f"{k} clusters cannot be learnt from frames of shape {frames_NxD.shape}: "
            "give more audio or ask for fewer clusters"
        )
    if start_KxD is None:
        return plus_plus(frames_NxD[start_frames(len(frames_NxD), k, rng)], k, rng)
    if start_KxD.shape != (k, frames_NxD.shape[1]):
        raise ValueError(f"a start of shape {start_KxD.shape} is not {k} centroids of {frames_NxD.shape[1]} features")
    return np.asarray(start_KxD, np.float32)


def _mean_inertia(sums: Sums, n: int) -> float:
    inertia = float(sums.inertia) / n
    if not np.isfinite(inertia):
        raise ValueError("some frames are NaN or infinite: check the audio and the encoder they come from")
    return inertia


def _distances(frames: Frames, centroids_KxD, mesh: Mesh) -> np.ndarray:
    """Squared distance of each frame to its centroid, [N]."""
    return np.asarray(distances(frames, centroids_KxD, mesh))[np.asarray(frames.real_SxCxB) > 0]


def _far(distances_N: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """n different frames, drawn in proportion to their squared distances."""
    chance_N = distances_N.astype(np.float64) + 1e-30  # frames all alike: any of them
    return rng.choice(len(chance_N), n, replace=False, p=chance_N / chance_N.sum())


@jax.jit
def _towards(centroids_KxD: jax.Array, counts_K: jax.Array, sums: Sums) -> tuple[jax.Array, jax.Array]:
    """Means of all frames so far, from the means of those before the batch and their numbers."""
    after_K = counts_K + sums.counts_K
    shift_KxD = sums.sums_KxD - sums.counts_K[:, None] * centroids_KxD
    return centroids_KxD + shift_KxD / jnp.maximum(after_K, 1)[:, None], after_K


def _statistics(frames_NxD: np.ndarray, centroids_KxD: jax.Array, mesh: Mesh) -> tuple[float, np.ndarray]:
    """Inertia of all frames, and the number nearest to each centroid, a part of the frames at a time."""
    inertia, counts_K = 0.0, np.zeros(len(centroids_KxD), np.int32)
    for start in range(0, len(frames_NxD), _PART):
        sums = cluster_sums(place(frames_NxD[start : start + _PART], mesh), centroids_KxD, mesh)
        inertia, counts_K = inertia + float(sums.inertia), counts_K + np.asarray(sums.counts_K)
    return inertia, counts_K
