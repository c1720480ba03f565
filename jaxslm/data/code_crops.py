"""Crops of codes with the unit of each frame, for the masked acoustic stage: a function of (seed, row) as all batches.

Legend: T frames of a crop, Q codes of a frame, R runs of equal units.
"""

import numpy as np
from tqdm import tqdm

from jaxslm.acoustic.frames import units_at_frames
from jaxslm.data.crops import Places
from jaxslm.data.draws import draw_bits
from jaxslm.data.records import Records
from jaxslm.units.units import UnitSequence, deduplicate

CodeCrop = dict[str, np.ndarray]


class CodeCrops:
    """Row i: `units` [T] and `codes` [T, Q] int32 of some place in some utterance, `frames` [1] int32, how many of them
    are real (zeros follow), and `draw` [2] uint32, a random key of the row's own. For the durations, `runs` [R], the
    deduplicated units of that time, `n_runs` [1] of them, and `durations` [R] int32 in frames of their own, 0 of those
    that the crop cuts. Picklable, as loaders in processes need.

    Every frame is as likely as every other; utterances shorter than a crop come whole.

    Args:
      records: with units of `inventory` and codes of `codec` (SHA-256 each); utterances that lack one are left out.
      split: "train" or "heldout".
      n_frames: T.
    Raises:
      ValueError: no such utterance in the split.
    """

    def __init__(self, records: Records, inventory: str, codec: str, split: str, n_frames: int, seed: int):
        self.records, self.inventory, self.codec = records, inventory, codec
        self.n_frames, self.seed = n_frames, seed
        found = [
            (index, len(utterance.codes[codec]))
            for index, utterance in enumerate(tqdm(records, desc="codes", unit=" utterances", delay=5))
            if utterance.split == split
            and len(utterance.codes.get(codec, ()))
            and len(utterance.units.get(inventory, ()))
        ]
        if not found:
            raise ValueError(
                f"{records.folder} has no utterance with units and codes in the split '{split}'; give data.sources "
                "with audio, and `heldout` above 0 for held-out clips"
            )
        self.chosen = [index for index, _ in found]
        self._places = Places([length for _, length in found], n_frames, seed)

    @property
    def total_frames(self) -> int:
        """Of all utterances of the split."""
        return int(self._places.lengths.sum())

    def __len__(self) -> int:
        return 2**40  # without end, as far as mixing is concerned

    def __getitem__(self, row: int) -> CodeCrop:
        return self._crop(*self._places.draw(row), row)

    def firsts(self, n: int) -> list[CodeCrop]:
        """The beginnings of utterances in an order drawn by the seed, n of them, with keys of their own: what held-out
        losses are measured on. Where there are fewer they come again, with other keys.
        """
        order = self._places.order(n)
        return [self._crop(order[row % len(order)], 0, row) for row in range(n)]

    def _crop(self, which: int, start: int, row: int) -> CodeCrop:
        utterance = self.records[self.chosen[which]]
        codes_NxQ, units = utterance.codes[self.codec], utterance.units[self.inventory]
        units_N = units_at_frames(units, codes_NxQ.frame_rate, len(codes_NxQ))
        taken = slice(start, start + self.n_frames)
        units_T, codes_TxQ = units_N[taken], codes_NxQ.ids[taken]
        rest = self.n_frames - len(units_T)
        runs = self._runs(units, start / codes_NxQ.frame_rate, self.n_frames / codes_NxQ.frame_rate)
        bits = int(draw_bits(self.seed, row, 2))
        return dict(
            units=np.pad(units_T, (0, rest)),
            codes=np.pad(codes_TxQ, ((0, rest), (0, 0))),
            frames=np.array([len(units_T)], np.int32),
            **runs,
            draw=np.array([bits >> 32, bits & 0xFFFFFFFF], np.uint32),
        )

    def _runs(self, units: UnitSequence, start: float, seconds: float) -> CodeCrop:
        size = int(np.ceil(seconds * units.frame_rate))
        first = round(start * units.frame_rate)
        ids = units.expand()
        taken = deduplicate(ids[first : first + size], units.frame_rate)
        durations = taken.durations.copy()
        if first > 0:
            durations[:1] = 0
        if first + size < len(ids):
            durations[-1:] = 0
        rest = size - len(taken)
        padded = dict(runs=np.pad(taken.ids, (0, rest)), durations=np.pad(durations, (0, rest)))
        return padded | dict(n_runs=np.array([len(taken)], np.int32))
