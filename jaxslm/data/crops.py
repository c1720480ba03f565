"""Clips of equal length out of prepared audio, for models of waveforms: a function of (seed, row), like all batches.

N samples of a crop.
"""

from collections.abc import Sequence

import numpy as np
from tqdm import tqdm

from jaxslm.audio import SAMPLE_RATE
from jaxslm.audio.io import decode_clip
from jaxslm.data.draws import draw_bits, draw_uniform
from jaxslm.data.records import Records

Crop = dict[str, np.ndarray]
Found = dict[str, list[tuple[int, float]]]


def find_audio(records: Records) -> Found:
    """Split -> (number, seconds) of each utterance with audio. Reads all records; shows how far it is if it lasts."""
    found: Found = {"train": [], "heldout": []}
    for index in tqdm(range(len(records)), desc="clips", unit=" utterances", delay=5):
        utterance = records[index]
        if utterance.audio:
            found[utterance.split].append((index, utterance.duration))
    return found


class Places:
    """Where crops of `size` begin in clips of `lengths`, a function of (seed, row): every place is as likely as every
    other, and clips shorter than a crop come whole.
    """

    def __init__(self, lengths: Sequence[int], size: int, seed: int):
        self.lengths, self.size, self.seed = np.asarray(lengths, np.int64), size, seed
        self._ends = np.cumsum(np.maximum(self.lengths, size))

    def draw(self, row: int) -> tuple[int, int]:
        """(which clip, where the crop begins)."""
        place = int(draw_bits(self.seed, row, 0) % np.uint64(self._ends[-1]))
        which = int(np.searchsorted(self._ends, place, side="right"))
        spare = max(0, int(self.lengths[which]) - self.size)
        return which, int(draw_uniform(self.seed, row, 1) * (spare + 1))

    def order(self, n: int) -> list[int]:
        """At most n clips in an order drawn by the seed."""
        return np.argsort(draw_bits(self.seed, np.arange(len(self.lengths))), kind="stable")[:n].tolist()


class AudioCrops:
    """Row i: `samples` [N] float32 of some place in some training utterance, and `length` [1] int32, how many of them
    are sound; zeros follow.

    Every second of the audio is as likely as every other; utterances shorter than a crop come whole. Picklable, as
    loaders in processes need.

    Args:
      records: prepared audio; those without audio are left out.
      split: "train" or "heldout".
      n_samples: N, at the rate of the records, `sample_rate`.
      found: what `find_audio` finds, for which all records are read, where it is not given.
    Raises:
      ValueError: no audio in the split; when a row is read, audio of another rate.
    """

    def __init__(
        self,
        records: Records,
        split: str,
        n_samples: int,
        seed: int,
        *,
        sample_rate: int = SAMPLE_RATE,
        found: Found | None = None,
    ):
        self.records, self.n_samples, self.seed, self.sample_rate = records, n_samples, seed, sample_rate
        clips = (find_audio(records) if found is None else found)[split]
        if not clips:
            raise ValueError(
                f"{records.folder} has no audio in the split '{split}'; give data.sources with audio, and `heldout` "
                "above 0 for held-out clips"
            )
        self._chosen = np.array([index for index, _ in clips])
        self._places = Places([round(seconds * sample_rate) for _, seconds in clips], n_samples, seed)

    @property
    def seconds(self) -> float:
        """Of audio in the split."""
        return float(self._places.lengths.sum()) / self.sample_rate

    @property
    def n_utterances(self) -> int:
        return len(self._chosen)

    def __len__(self) -> int:
        return 2**40  # without end, as far as mixing is concerned

    def __getitem__(self, row: int) -> Crop:
        return self._crop(*self._places.draw(row))

    def firsts(self, n: int) -> list[Crop]:
        """The beginnings of at most n utterances, drawn by the seed: what held-out losses are measured on."""
        return [self._crop(which, 0) for which in self._places.order(n)]

    def _crop(self, which: int, start: int) -> Crop:
        audio = self.records[int(self._chosen[which])].audio
        clip = decode_clip(audio, start, self.n_samples)
        if clip.rate != self.sample_rate:
            raise ValueError(
                f"{self.records.folder} holds audio at {clip.rate} Hz where {self.sample_rate} Hz are asked for: "
                "prepare it with data.sample_rate set to that"
            )
        samples_N = clip.samples
        padded_N = np.zeros(self.n_samples, np.float32)
        padded_N[: len(samples_N)] = samples_N
        return dict(samples=padded_N, length=np.array([len(samples_N)], np.int32))
