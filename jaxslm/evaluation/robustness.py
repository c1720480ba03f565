"""Unit edit distance: how much the units change when noise, speed or pitch do and the words do not.

Shape letters: N samples, U units, V units of the other sequence.
"""

from collections.abc import Callable, Iterable, Sequence

import librosa
import numpy as np

from jaxslm.audio import SAMPLE_RATE
from jaxslm.units.units import UnitSequence, deduplicate

Change = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def noisy(snr_db: float) -> Change:
    """White noise at this ratio of the powers of clip and noise, in decibels."""

    def change(samples_N: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        noise_N = rng.standard_normal(len(samples_N))
        power = np.mean(np.square(samples_N, dtype=np.float64)) / np.mean(noise_N**2)
        return (samples_N + noise_N * np.sqrt(power / 10 ** (snr_db / 10))).astype(np.float32)

    return change


def faster(rate: float) -> Change:
    """`rate` times as fast at the same pitch (phase vocoder)."""
    return lambda samples_N, _: librosa.effects.time_stretch(samples_N, rate=rate)


def higher(semitones: float) -> Change:
    """Pitch, and formants with it, shifted at the same speed."""
    return lambda samples_N, _: librosa.effects.pitch_shift(samples_N, sr=SAMPLE_RATE, n_steps=semitones)


CHANGES: dict[str, Change] = {
    "noise 20 dB": noisy(20),
    "noise 10 dB": noisy(10),
    "speed 0.8": faster(0.8),
    "speed 1.2": faster(1.2),
    "pitch -2 semitones": higher(-2),
    "pitch +2 semitones": higher(2),
}


def unit_edit_distance(
    encode: Callable[[Sequence[np.ndarray]], Sequence[UnitSequence]],
    clips: Iterable[np.ndarray],
    change: Change,
    seed: int = 0,
) -> float:
    """Percent of the deduplicated units of clean speech that must be edited to give those of changed speech, over all
    clips (NAST, Messica and Adi 2024, eval/ued_calculator.py).

    Args:
      encode: units of clips, such as `UnitInventory.encode_batch`.
      clips: float32 samples [N] at 16 kHz.
    Raises:
      ValueError: the clips give no units.
    """
    clips = list(clips)
    changed = [change(clip_N, np.random.default_rng((seed, i))) for i, clip_N in enumerate(clips)]
    pairs = zip(map(_runs, encode(clips)), map(_runs, encode(changed)), strict=True)
    edits = units = 0
    for clean_U, other_V in pairs:
        edits += edit_distance(clean_U, other_V)
        units += len(clean_U)
    if not units:
        raise ValueError("the clips give no units: nothing can change")
    return 100 * edits / units


def _runs(units: UnitSequence) -> np.ndarray:
    return deduplicate(units.expand(), units.frame_rate).ids


def edit_distance(a_U: np.ndarray, b_V: np.ndarray) -> int:
    """Fewest insertions, deletions and substitutions (Levenshtein) between two sequences of ids."""
    columns = np.arange(len(b_V) + 1)
    row = columns.copy()
    for i, id_ in enumerate(a_U):
        row[1:] = np.minimum(row[1:] + 1, row[:-1] + (b_V != id_))
        row[0] = i + 1
        row = np.minimum.accumulate(row - columns) + columns  # insertions along the row
    return int(row[-1])
