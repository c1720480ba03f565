"""Discrete speech units: runs of equal frame labels with their durations, and their division among words.

Shape letters: T frames, U units (after deduplication), W words.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from jaxslm.units.words import Word


@dataclass(frozen=True, eq=False)
class UnitSequence:
    """Units of one utterance: `ids` [U] int32, `durations` [U] int32 in frames (at least 1), `frame_rate` in frames a
    second.
    """

    ids: np.ndarray
    durations: np.ndarray
    frame_rate: float

    def __post_init__(self):
        for field in ("ids", "durations"):
            object.__setattr__(self, field, np.asarray(getattr(self, field), dtype=np.int32))
        if self.ids.ndim != 1 or self.ids.shape != self.durations.shape:
            raise ValueError(
                f"units of shape {self.ids.shape} with durations of shape {self.durations.shape}: give each a duration"
            )
        if np.any(self.durations < 1):
            raise ValueError(
                f"unit {int(np.argmin(self.durations))} lasts {int(self.durations.min())} frames: "
                "durations are whole frames, at least 1"
            )
        if self.ids.size and self.ids.min() < 0:
            raise ValueError(f"unit id {int(self.ids.min())} is negative: ids count from 0")
        if not (np.isfinite(self.frame_rate) and self.frame_rate > 0):
            raise ValueError(f"a frame rate of {self.frame_rate} is not a positive number of frames a second")

    def __len__(self) -> int:
        return len(self.ids)

    def __eq__(self, other) -> bool:
        return (
            isinstance(other, UnitSequence)
            and self.frame_rate == other.frame_rate
            and np.array_equal(self.ids, other.ids)
            and np.array_equal(self.durations, other.durations)
        )

    __hash__ = None

    @property
    def seconds(self) -> float:
        """Length of the utterance as the units tell it."""
        return float(self.durations.sum()) / self.frame_rate

    def expand(self) -> np.ndarray:
        """One id a frame, int32 [T]: what `deduplicate` was given."""
        return np.repeat(self.ids, self.durations)


def deduplicate(ids_T: np.ndarray, frame_rate: float) -> UnitSequence:
    """Joins runs of equal frame labels (GSLM, Lakhotia et al. 2021, section 3.1) and keeps their lengths."""
    ids_T = np.asarray(ids_T, dtype=np.int32)
    starts_U = np.flatnonzero(np.diff(ids_T, prepend=-1) != 0)  # ids are never negative, so frame 0 starts a unit
    return UnitSequence(ids_T[starts_U], np.diff(starts_U, append=len(ids_T)), frame_rate)


def check_speed(speed: float) -> None:
    """Raises ValueError for a speed that is not positive and finite."""
    if not (np.isfinite(speed) and speed > 0):
        raise ValueError(f"speed={speed}: give a positive number, 1 for no change, 2 for twice as fast")


def at_speed(units: UnitSequence, speed: float) -> UnitSequence:
    """The units with their frames drawn together by `speed`, or out below 1; short ones may be left out.

    Raises ValueError as `check_speed`.
    """
    check_speed(speed)
    frames_T = units.expand()
    n_frames = max(min(1, len(frames_T)), round(len(frames_T) / speed))
    chosen_T = np.minimum((np.arange(n_frames) + 0.5) * speed, len(frames_T) - 1).astype(int)
    return deduplicate(frames_T[chosen_T], units.frame_rate)


def unit_word_offsets(units: UnitSequence, words: Sequence[Word]) -> np.ndarray:
    """Divides the units among the words: word w owns `units[offsets[w]:offsets[w + 1]]`.

    The cut between two words lies in the middle of the pause between them, and a unit belongs to the side on which its
    own middle lies (just on the cut: the later word); what precedes the first word or follows the last goes to that
    word. So no unit is lost or doubled, however spans are cut.

    Args:
      units: U units.
      words: W >= 1 words in time order (as `check_words` returns them).
    Returns:
      int32 [W + 1], non-decreasing, from 0 to U. A word may own no unit.
    """
    assert words, "an utterance without word times cannot be divided: use it for the other objectives"
    # In half frames the middles are whole numbers; rounding the cuts keeps ties from hanging on the last bit.
    middles_U = 2 * np.cumsum(units.durations) - units.durations
    cuts = [(before.end + after.start) * units.frame_rate for before, after in itertools.pairwise(words)]
    inner = np.searchsorted(middles_U, np.round(cuts, 6))
    assert np.all(np.diff(inner) >= 0), "word times run backwards: pass them through check_words first"
    return np.concatenate([[0], inner, [len(units)]]).astype(np.int32)


def check_inventory(sha256: str, own: str, *, name: str, who: str) -> None:
    """Raises ValueError for units of the inventory `sha256` given to `who`, trained with those of `own`, `name`."""
    if sha256 != own:
        raise ValueError(
            f"{who} speaks units of {name} ({own[:12]}), these are of {sha256[:12] or 'an unknown inventory'}, to "
            "which the same ids mean other sounds: use a run that was trained with data.units.inventory of these units"
        )
