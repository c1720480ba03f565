"""The codes of a clip. Nothing here needs JAX, which processes that only read records do without.

Legend: T frames, Q codes of a frame.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class CodeSequence:
    """Codes of one clip: `ids` [T, Q] int32, of the first levels; `frame_rate` in frames a second; `n_samples` of the
    clip at the codec's rate, of which the last frame may be filled up with silence.
    """

    ids: np.ndarray
    frame_rate: float
    n_samples: int

    def __post_init__(self):
        object.__setattr__(self, "ids", np.asarray(self.ids, np.int32))
        if self.ids.ndim != 2 or self.ids.min(initial=0) < 0:
            raise ValueError(f"codes of shape {self.ids.shape} from {self.ids.min(initial=0)}: give ids [T, Q] from 0")

    def __len__(self) -> int:
        return len(self.ids)

    def __eq__(self, other) -> bool:
        return (
            isinstance(other, CodeSequence)
            and (self.frame_rate, self.n_samples) == (other.frame_rate, other.n_samples)
            and np.array_equal(self.ids, other.ids)
        )

    __hash__ = None
