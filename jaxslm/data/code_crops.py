"""Crops of codes with the unit of each frame, for the masked acoustic stage: a function of (seed, row) as all batches.

Utterances of one speaker stand in a row, in an order that the seed draws, and a crop is a piece of it: it may begin in
one utterance and go on in the next, as speech that is made goes on behind the prompt of a voice.

Legend: T frames of a crop, Q codes of a frame, R runs of equal units.
"""

from collections.abc import Iterator

import numpy as np
from tqdm import tqdm

from jaxslm.acoustic.frames import units_at_frames
from jaxslm.data.crops import Places
from jaxslm.data.draws import draw_bits, draw_order
from jaxslm.data.records import Records
from jaxslm.units.units import deduplicate

CodeCrop = dict[str, np.ndarray]


class CodeCrops:
    """Row i: `units` [T] and `codes` [T, Q] int32 of some place in the speech of some speaker, `frames` [1] int32, how
    many of them are real (zeros follow), and `draw` [2] uint32, a random key of the row's own. For the durations,
    `runs` [R], the deduplicated units of that time, `n_runs` [1] of them, and `durations` [R] int32 in frames of their
    own, 0 of those that the crop cuts. Picklable, as loaders in processes need.

    Every frame is as likely as every other; a speaker of less than a crop comes whole, an utterance without a speaker
    stands alone.

    Args:
      records: with units of `inventory` and codes of `codec` (SHA-256 each); utterances that lack one are left out.
      split: "train" or "heldout".
      n_frames: T.
      n_levels: Q, the first of the stored codes.
    Raises:
      ValueError: no such utterance in the split.
    """

    def __init__(
        self, records: Records, inventory: str, codec: str, split: str, n_frames: int, n_levels: int, seed: int
    ):
        self.records, self.inventory, self.codec = records, inventory, codec
        self.n_frames, self.n_levels, self.seed = n_frames, n_levels, seed
        speakers: dict[str, list[tuple[int, int]]] = {}
        for index, utterance in enumerate(tqdm(records, desc="codes", unit=" utterances", delay=5)):
            n = len(utterance.codes.get(codec, ()))
            if utterance.split == split and n and len(utterance.units.get(inventory, ())):
                per_frame = utterance.units[inventory].frame_rate / utterance.codes[codec].frame_rate
                speakers.setdefault(utterance.speaker or f"\0{index}", []).append((index, n))
        if not speakers:
            raise ValueError(
                f"{records.folder} has no utterance with units and codes in the split '{split}'; give data.sources "
                "with audio, and `heldout` above 0 for held-out clips"
            )
        self._most_runs = int(np.ceil(n_frames * per_frame))  # one a frame of the units
        self.chosen = sorted(index for told in speakers.values() for index, _ in told)
        order = [
            [told[i] for i in draw_order(len(told), seed, number).tolist()]
            for number, told in enumerate(speakers.values())
        ]
        self._indices = [np.array([index for index, _ in told]) for told in order]
        self._ends = [np.cumsum([n for _, n in told]) for told in order]
        self._places = Places([ends[-1] for ends in self._ends], n_frames, seed)

    @property
    def total_frames(self) -> int:
        """Of all utterances of the split."""
        return int(self._places.lengths.sum())

    def __len__(self) -> int:
        return 2**40  # without end, as far as mixing is concerned

    def __getitem__(self, row: int) -> CodeCrop:
        pieces = [self._piece(*where) for where in self._where(*self._places.draw(row))]
        units_T, codes_TxQ, runs, durations = (np.concatenate(parts) for parts in zip(*pieces, strict=True))
        rest = self.n_frames - len(units_T)
        bits = int(draw_bits(self.seed, row, 2))
        return dict(
            units=np.pad(units_T, (0, rest)),
            codes=np.pad(codes_TxQ, ((0, rest), (0, 0))),
            frames=np.array([len(units_T)], np.int32),
            runs=_fitted(runs, self._most_runs),
            durations=_fitted(durations, self._most_runs),
            n_runs=np.array([min(len(runs), self._most_runs)], np.int32),
            draw=np.array([bits >> 32, bits & 0xFFFFFFFF], np.uint32),
        )

    def _where(self, speaker: int, start: int) -> Iterator[tuple[int, int, int]]:
        """(record, first frame, last frame + 1) of the utterances that a crop of a speaker takes from."""
        ends, stop = self._ends[speaker], start + self.n_frames
        which = int(np.searchsorted(ends, start, side="right"))
        while which < len(ends) and start < stop:
            begin = int(ends[which - 1]) if which else 0
            end = min(stop, int(ends[which]))
            yield int(self._indices[speaker][which]), start - begin, end - begin
            start, which = end, which + 1

    def _piece(self, index: int, first: int, stop: int) -> tuple[np.ndarray, ...]:
        """(units, codes, runs, durations) of some frames of an utterance."""
        utterance = self.records[index]
        codes, units = utterance.codes[self.codec], utterance.units[self.inventory]
        units_T = units_at_frames(units, codes.frame_rate, len(codes))[first:stop]
        own = units.expand()
        begin, end = (round(at / codes.frame_rate * units.frame_rate) for at in (first, stop))
        runs = deduplicate(own[begin:end], units.frame_rate)
        durations = runs.durations.copy()
        if first > 0:
            durations[:1] = 0
        if stop < len(codes):
            durations[-1:] = 0
        return units_T, codes.ids[first:stop, : self.n_levels], runs.ids, durations


def _fitted(values_R: np.ndarray, size: int) -> np.ndarray:
    return np.pad(values_R[:size], (0, max(0, size - len(values_R))))
