"""Weight norm (Salimans & Kingma 2016) taken out of kernels, to the same last bit on every machine: the hashes by which
codes find their codec are made of what comes out.
"""

import numpy as np


def kernel_length(direction: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """float32, with ones for `axes`, over which it is summed; in float64, where the order of a sum no longer shows."""
    return np.sqrt(np.square(direction, dtype=np.float64).sum(axis=axes, keepdims=True)).astype(np.float32)


def fold(size: np.ndarray, direction: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """float32 kernel of a direction and a size that broadcast; of the direction's own size, the direction itself.

    NaN or infinite where the direction is 0.
    """
    return direction * (size / kernel_length(direction, axes))
