"""Activations without aliasing: between twice the frames and back, so that the harmonics they make are cut, not folded.

Legend: B batch, T frames, C channels.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxslm.codec.shifts import weighted_shifts
from jaxslm.masking import mask_time

TAPS = 12
REACH = TAPS // 4  # frames at the lower rate that either filter sees ahead


class AliasFree(nnx.Module):
    """`function`, of single frames, at twice the frame rate; for Snake and SnakeBeta, whose sines double frequencies.

    Both resamplings are by the Kaiser-windowed sinc of alias_free_torch, whose input goes on as its outermost frame
    (BigVGAN, alias_free_torch/act.py; BigCodec). Frames in between are kept apart from those at whole places: nothing
    is interleaved and no filter meets the zeros between frames. It looks 2 * REACH frames ahead and cannot be causal.
    """

    def __init__(self, function: nnx.Module):
        self.function = function

    def length(self, lengths):
        """Frames out of `lengths` frames in (an int or an array)."""
        return lengths

    def __call__(self, x_BxTxC: jax.Array, lengths_B: jax.Array | None = None) -> jax.Array:
        length, taps_Kx1 = x_BxTxC.shape[1], jnp.asarray(kaiser_sinc(TAPS)[:, None], x_BxTxC.dtype)

        def held(x_BxTxC, first_Bx1xC, last_Bx1xC, left, right):
            """`x` going on as `first` before it and as `last` from each row's end on."""
            if lengths_B is not None:
                x_BxTxC = jnp.where(mask_time(length, lengths_B, 3), x_BxTxC, last_Bx1xC)
            before, after = jnp.repeat(first_Bx1xC, left, axis=1), jnp.repeat(last_Bx1xC, right, axis=1)
            return jnp.concatenate([before, x_BxTxC, after], axis=1)

        x = held(x_BxTxC, x_BxTxC[:, :1], _last(x_BxTxC, lengths_B), REACH, REACH)
        # The filter is its own mirror image; the factor is for the zeros between frames, which take half of its sum.
        whole = self.function(2 * weighted_shifts(x[:, :-1], taps_Kx1[::2]))
        half = self.function(2 * weighted_shifts(x[:, 1:], taps_Kx1[1::2]))
        first, last = whole[:, :1], _last(half, lengths_B)
        whole = held(whole, first, last, REACH - 1, REACH)
        half = held(half, first, last, REACH, REACH - 1)
        return weighted_shifts(whole, taps_Kx1[1::2]) + weighted_shifts(half, taps_Kx1[::2])

    def start(self, batch: int, dtype=jnp.float32):
        """Raises ValueError: it looks ahead."""
        raise ValueError("an alias-free activation looks ahead and cannot run on chunks: set alias_free=False")

    stream = start


def _last(x_BxTxC: jax.Array, lengths_B: jax.Array | None) -> jax.Array:
    """[B, 1, C]: the last frame of each row."""
    if lengths_B is None:
        return x_BxTxC[:, -1:]
    return jnp.take_along_axis(x_BxTxC, jnp.maximum(lengths_B - 1, 0)[:, None, None], axis=1)


@functools.cache
def kaiser_sinc(taps: int) -> np.ndarray:
    """float64 [taps], of sum 1: a low pass at a quarter of the sampling rate, its band of transition 0.6 of that wide.

    Kaiser's rules for the window (alias_free_torch/filter.py, for a ratio of 2); an even number of taps.
    """
    attenuation = 2.285 * (taps / 2 - 1) * np.pi * 4 * 0.3 + 7.95
    beta = (
        0.1102 * (attenuation - 8.7)
        if attenuation > 50
        else 0.5842 * (attenuation - 21) ** 0.4 + 0.07886 * (attenuation - 21)
    )
    window = np.kaiser(taps, beta)
    kernel = window * np.sinc((np.arange(taps) - (taps - 1) / 2) / 2)
    return kernel / kernel.sum()
