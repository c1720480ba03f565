"""Where long audio may be cut: in the quietest place, or between words.

Shape letters: N samples.
"""

from collections.abc import Sequence

import numpy as np

from jaxslm.audio import SAMPLE_RATE

SHARE = 1 / 3  # of a piece: a cut is sought in the last part of what a piece may last
_HOP = SAMPLE_RATE // 100
_STRETCH = 20  # hops over which quiet is measured


def quietest(samples_N: np.ndarray, first: int, last: int) -> int:
    """The middle, in samples, of the stretch of 3,200 (0.2 s) that has the least energy between `first` and `last`."""
    blocks = (last - first) // _HOP
    if blocks < 1:
        return last
    energy = np.square(samples_N[first : first + blocks * _HOP], dtype=np.float64).reshape(blocks, _HOP).sum(axis=1)
    width = min(_STRETCH, blocks)
    sums = np.convolve(energy, np.ones(width), mode="valid")
    return first + int(np.argmin(sums)) * _HOP + width * _HOP // 2


def cuts_at_quiet(samples_N: np.ndarray, most: int, least: int) -> list[int]:
    """Where to cut samples into pieces of at most `most` and at least `least`: each cut lies in the quietest place of
    the last third of what the piece may last.
    """
    cuts, start = [], 0
    while len(samples_N) - start > most:
        last = min(start + most, len(samples_N) - least)
        first = min(start + most - int(SHARE * most), last)
        start = quietest(samples_N, first, last)
        cuts.append(start)
    return cuts


def cuts_between_words(words: Sequence[tuple[float, float]], duration: float, most: float, least: float) -> list[float]:
    """As `cuts_at_quiet`, in seconds, but in the middle of the longest pause between words, given as (start, end).

    Where the last third of a piece has no end of a word the whole piece is searched.

    Raises:
      ValueError: a word that is longer than a piece may be.
    """
    pauses = list(zip([0.0, *(end for _, end in words)], [*(start for start, _ in words), duration], strict=True))
    cuts, start = [], 0.0
    while duration - start > most:
        last = min(start + most, duration - least)
        for first in (start + most * (1 - SHARE), start + least):
            inside = [(max(a, first), min(b, last)) for a, b in pauses if max(a, first) <= min(b, last)]
            if inside:
                break
        else:
            raise ValueError(f"no pause between words from {start:.2f} to {last:.2f} s")
        a, b = max(inside, key=lambda pause: (pause[1] - pause[0], pause[0]))
        start = (a + b) / 2
        cuts.append(start)
    return cuts
