"""Units and codes on one clock. T frames of the codec."""

import numpy as np

from jaxslm.units.units import UnitSequence


def units_at_frames(units: UnitSequence, frame_rate: float, n_frames: int) -> np.ndarray:
    """int32 [T]: the unit that is heard in the middle of each of `n_frames` frames of a codec, `frame_rate` a second;
    the last one for frames behind the end of the units, which encoders that need whole windows leave.

    Raises ValueError where there are no units.
    """
    ids = units.expand()
    if not len(ids):
        raise ValueError("there are no units to speak: give at least one")
    at_T = (np.arange(n_frames) + 0.5) / frame_rate * units.frame_rate
    return ids[np.minimum(np.round(at_T, 6).astype(np.int64), len(ids) - 1)]


def frames_of(units: UnitSequence, frame_rate: float) -> int:
    """Frames of a codec that the units last, at least 1."""
    return max(1, round(units.seconds * frame_rate))
