"""Greedy k-means++ (Arthur & Vassilvitskii 2007, section 5): where k-means starts.

Shape letters: M frames drawn from, D features, K clusters, L trials, R rows and W columns of the M frames.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

_FRAMES_A_CLUSTER = 3  # as in scikit-learn's MiniBatchKMeans: the time does not grow with the number of frames
_LEAST_FRAMES = 8192
_ROWS = 128


def start_frames(n: int, k: int, rng: np.random.Generator) -> np.ndarray:
    """Indices, ascending, of the frames that k-means++ looks at."""
    return np.sort(rng.permutation(n)[: max(_FRAMES_A_CLUSTER * k, _LEAST_FRAMES)])


def plus_plus(frames_MxD: np.ndarray, k: int, rng: np.random.Generator) -> jax.Array:
    """K of the frames, each drawn in proportion to its squared distance from those drawn before, the best of a few
    trials. On one device.
    """
    n = len(frames_MxD)
    padded_MxD = np.pad(np.asarray(frames_MxD, np.float32), ((0, -n % _ROWS), (0, 0)))
    draws_KxL = rng.random((k, 2 + int(math.log(k))), np.float32)
    return _plus_plus(padded_MxD, np.arange(len(padded_MxD)) < n, draws_KxL)


@jax.jit
def _plus_plus(frames_MxD: jax.Array, real_M: jax.Array, draws_KxL: jax.Array) -> jax.Array:
    squares_M = jnp.sum(jnp.square(frames_MxD), axis=1)

    def draw(nearest_M, draws_L):
        # Where nothing is left to draw, as with frames all alike, no padding either.
        candidates_LxD = frames_MxD[jnp.minimum(_pick(nearest_M, draws_L), real_M.sum() - 1)]
        products_LxM = jnp.matmul(candidates_LxD, frames_MxD.T, precision="highest")
        squares_Lx1 = jnp.sum(jnp.square(candidates_LxD), axis=1, keepdims=True)
        after_LxM = jnp.minimum(nearest_M, jnp.maximum(squares_Lx1 - 2 * products_LxM + squares_M, 0))
        best = jnp.argmin(after_LxM.sum(axis=1))
        return after_LxM[best], candidates_LxD[best]

    # All frames are as likely to be the first.
    return jax.lax.scan(draw, jnp.where(real_M, 1e30, 0.0), draws_KxL)[1]


def _pick(weights_M: jax.Array, draws_L: jax.Array) -> jax.Array:
    """Indices, each with the probability of its weight: first a row of frames, then one in it."""
    weights_RxW = weights_M.reshape(_ROWS, -1)
    width = weights_RxW.shape[1]
    ends_R = jnp.cumsum(weights_RxW.sum(axis=1))
    targets_L = jnp.minimum(draws_L * ends_R[-1], jnp.nextafter(ends_R[-1], 0.0))
    rows_L = jnp.minimum(jnp.searchsorted(ends_R, targets_L, side="right"), _ROWS - 1)
    before_L = jnp.where(rows_L > 0, ends_R[rows_L - 1], 0)
    ends_LxW = jnp.cumsum(weights_RxW[rows_L], axis=1)
    columns_L = jnp.sum(ends_LxW <= (targets_L - before_L)[:, None], axis=1)
    return rows_L * width + jnp.minimum(columns_L, width - 1)
