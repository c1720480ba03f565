"""k-means on feature frames: k-means++ with greedy trials, then Lloyd's iterations in chunks.

Shape letters: N frames, P frames padded to whole chunks, B frames in a chunk, D features, K clusters, L trials.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

_CHUNK = 1024  # frames a step: keeps distances at [1024, K], and one compiled program serves clips of any length


def fit_kmeans(
    frames_NxD: np.ndarray, k: int, *, seed: int, iterations: int = 100, tolerance: float = 1e-4
) -> np.ndarray:
    """Learns K centroids, float32 [K, D].

    Starts from greedy k-means++ (Arthur & Vassilvitskii 2007, section 5) and runs Lloyd's iterations until one of them
    lowers the inertia by less than `tolerance` of it. A cluster left empty moves to one of the frames that lie farthest
    from their centroid.

    Args:
      frames_NxD: features; scale them first, distances are Euclidean.
      k: number of clusters.
      seed: the result is a function of the frames and this.
    Raises:
      ValueError: fewer frames than clusters, or frames that are not finite.
    """
    frames_NxD = np.asarray(frames_NxD, np.float32)
    if frames_NxD.ndim != 2 or not 1 <= k <= len(frames_NxD):
        raise ValueError(
            f"{k} clusters cannot be learnt from frames of shape {frames_NxD.shape}: "
            "give more audio or ask for fewer clusters"
        )
    if not np.all(np.isfinite(frames_NxD)):
        raise ValueError("some frames are NaN or infinite: check the audio and the encoder they come from")
    real_P = np.arange(_padded(len(frames_NxD))) < len(frames_NxD)
    frames_PxD = np.pad(frames_NxD, ((0, len(real_P) - len(frames_NxD)), (0, 0)))
    draws_KxL = np.random.default_rng(seed).random((k, 2 + int(math.log(k))), np.float32)
    start_KxD = _plus_plus(frames_PxD, real_P, draws_KxL)
    return np.asarray(_lloyd(frames_PxD, real_P, start_KxD, iterations, tolerance))


def assign(frames_NxD: np.ndarray, centroids_KxD: np.ndarray) -> np.ndarray:
    """Nearest centroid of each frame, int32 [N]; the first of equally near ones."""
    frames_PxD = np.pad(np.asarray(frames_NxD, np.float32), ((0, _padded(len(frames_NxD)) - len(frames_NxD)), (0, 0)))
    ids = [_nearest(chunk_BxD, centroids_KxD)[0] for chunk_BxD in frames_PxD.reshape(-1, _CHUNK, frames_PxD.shape[1])]
    return np.concatenate([np.zeros(0, np.int32), *ids])[: len(frames_NxD)]


def _padded(n: int) -> int:
    return math.ceil(n / _CHUNK) * _CHUNK


def _squared_distances(frames_BxD: jax.Array, centroids_KxD: jax.Array) -> jax.Array:
    """[B, K] in full float32: with bfloat16 products the nearest centroid would change."""
    products_BxK = jnp.matmul(frames_BxD, centroids_KxD.T, precision="highest")
    squares_Bx1 = jnp.sum(jnp.square(frames_BxD), axis=1, keepdims=True)
    return jnp.maximum(squares_Bx1 - 2 * products_BxK + jnp.sum(jnp.square(centroids_KxD), axis=1), 0)


@jax.jit
def _nearest(frames_BxD: jax.Array, centroids_KxD: jax.Array) -> tuple[jax.Array, jax.Array]:
    distances_BxK = _squared_distances(frames_BxD, centroids_KxD)
    return jnp.argmin(distances_BxK, axis=1).astype(jnp.int32), jnp.min(distances_BxK, axis=1)


@jax.jit
def _plus_plus(frames_PxD: jax.Array, real_P: jax.Array, draws_KxL: jax.Array) -> jax.Array:
    """Draws each centroid among the frames in proportion to the squared distance from those drawn, the best of a few
    trials.
    """

    def draw(nearest_P, draws_L):
        totals_P = jnp.cumsum(nearest_P)
        picks_L = jnp.searchsorted(totals_P, draws_L * totals_P[-1])
        candidates_LxD = frames_PxD[jnp.minimum(picks_L, real_P.sum() - 1)]
        after_PxL = jnp.minimum(nearest_P[:, None], _squared_distances(frames_PxD, candidates_LxD))
        best = jnp.argmin(after_PxL.sum(axis=0))
        return after_PxL[:, best], candidates_LxD[best]

    _, centroids_KxD = jax.lax.scan(draw, jnp.where(real_P, 1e30, 0.0), draws_KxL)
    return centroids_KxD


@jax.jit
def _lloyd(
    frames_PxD: jax.Array, real_P: jax.Array, start_KxD: jax.Array, iterations: jax.Array, tolerance: jax.Array
) -> jax.Array:
    k, dim = start_KxD.shape
    chunks = (frames_PxD.reshape(-1, _CHUNK, dim), real_P.astype(jnp.float32).reshape(-1, _CHUNK))

    def move(centroids_KxD):
        def add(carry, chunk):
            sums_KxD, counts_K = carry
            frames_BxD, real_B = chunk
            ids_B, distances_B = _nearest(frames_BxD, centroids_KxD)
            carry = sums_KxD.at[ids_B].add(frames_BxD), counts_K.at[ids_B].add(real_B)  # padding frames are zero
            return carry, distances_B * real_B

        (sums_KxD, counts_K), distances = jax.lax.scan(add, (jnp.zeros((k, dim)), jnp.zeros(k)), chunks)
        empty_K = counts_K == 0
        farthest_K = jax.lax.top_k(distances.reshape(-1), k)[1]
        moved_KxD = jnp.where(
            empty_K[:, None],
            frames_PxD[farthest_K[jnp.cumsum(empty_K) - 1]],
            sums_KxD / jnp.maximum(counts_K, 1)[:, None],
        )
        return moved_KxD, distances.sum(), empty_K.any()

    def unfinished(state):
        step, _, inertia, before, emptied = state
        return (step < iterations) & (emptied | (before - inertia > tolerance * inertia))

    def iterate(state):
        step, centroids_KxD, before, _, _ = state
        centroids_KxD, inertia, emptied = move(centroids_KxD)
        return step + 1, centroids_KxD, inertia, before, emptied

    infinite = jnp.float32(jnp.inf)
    return jax.lax.while_loop(unfinished, iterate, (0, start_KxD, infinite, infinite, True))[1]
