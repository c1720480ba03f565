"""Random numbers that are a function of their key: no generator state, so any draw can be made anywhere, alone or by
the million.

Everything random about the data (orders, spans) is drawn here from (seed, objective, epoch, index), which is what makes
a global batch a function of (seed, step).
"""

import numpy as np

_STEP = 0x9E3779B97F4A7C15


def draw_bits(*key) -> np.ndarray:
    """64 random bits for each key: integers or integer arrays (broadcast against each other) -> uint64 array.

    The finaliser is splitmix64's (Steele, Lea, Flood 2014), applied once for each part of the key.
    """
    bits = np.uint64(0)
    with np.errstate(over="ignore"):
        for part in key:
            bits = (bits ^ np.asarray(part).astype(np.uint64)) + np.uint64(_STEP)
            bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            bits = bits ^ (bits >> np.uint64(31))
    return bits


def draw_uniform(*key) -> np.ndarray:
    """Uniform in [0, 1) with 53 random bits for each key."""
    return (draw_bits(*key) >> np.uint64(11)) * 2.0**-53


def draw_integers(low: int, high: int, *key) -> np.ndarray:
    """Uniform integers in low..high, both included, for each key: int64 array."""
    return low + (draw_uniform(*key) * (high - low + 1)).astype(np.int64)


def draw_order(n: int, *key) -> np.ndarray:
    """A permutation of 0..n-1 for the scalar key: int64 [n]."""
    return np.argsort(draw_bits(*key, np.arange(n)), kind="stable")
