"""How units and codes of one clip lie beside each other: both from its first sample on, each at a rate of its own.

T frames of the codec.
"""

from dataclasses import dataclass

import numpy as np

from jaxslm.units.units import UnitSequence

_SLACK, _MORE_SLACK = 1e-6, 1e-4  # of a frame: what rounding may take


@dataclass(frozen=True)
class FrameRates:
    """Frames a second of the units, one for each frame of the encoder (not deduplicated), and of the codes."""

    units: float
    codes: float

    def n_codes(self, n_units):
        """Whole frames of codes that so many frames of units cover: int64, a number or an array as `n_units` is."""
        return np.floor(np.asarray(n_units) * (self.codes / self.units) + _SLACK).astype(np.int64)

    def units_of(self, first, stop):
        """(first, stop) of the frames of units that touch the frames of codes `first` to `stop`: int64, as they are."""
        ratio = self.units / self.codes
        begin = np.floor(np.asarray(first) * ratio + _MORE_SLACK).astype(np.int64)
        return begin, np.ceil(np.asarray(stop) * ratio - _MORE_SLACK).astype(np.int64)


@dataclass(frozen=True)
class AcousticCrops:
    """What a coarse or a fine stage sees of an utterance (AudioLM, Borsos et al. 2022, sections III and IV).

    Attributes:
      coarse_levels: Q', codes of a frame that the coarse stage makes; the fine one makes the others.
      seconds: the most of an utterance that is seen at once.
      prompt_seconds: of sound whose voice is to be taken on, where samples of the run are made.
    """

    coarse_levels: int = 4
    seconds: float = 10.0
    prompt_seconds: float = 3.0

    def __post_init__(self):
        if self.coarse_levels < 1:
            raise ValueError(f"data.acoustic.coarse_levels={self.coarse_levels}: set it to 1 or more")
        for name in ("seconds", "prompt_seconds"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"data.acoustic.{name}={getattr(self, name)}: set it to a positive number")

    def frames(self, rates: FrameRates) -> int:
        """The most frames of codes in a crop, at least 1."""
        return max(1, int(self.seconds * rates.codes + _SLACK))

    def check_levels(self, n_levels: int) -> None:
        """Raises ValueError unless codes of `n_levels` a frame leave each of the two stages something to make."""
        if self.coarse_levels >= n_levels:
            cure = f"set it to 1 to {n_levels - 1}" if n_levels > 1 else "use a codec of two levels or more"
            raise ValueError(
                f"data.acoustic.coarse_levels={self.coarse_levels}, and the codec has {n_levels} codes a frame, which "
                f"leaves the fine stage none to make: {cure}"
            )


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
