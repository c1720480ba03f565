"""Stretches of speech with their units, for vocoders: a function of (seed, row), like all batches.

Frame t of the units stands for samples t hop to (t + 1) hop.

Legend: T frames of a crop, N = T hop samples, U runs of equal units.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from jaxslm.audio import SAMPLE_RATE
from jaxslm.audio.io import decode_clip
from jaxslm.data.crops import Places
from jaxslm.data.records import Records
from jaxslm.units.units import UnitSequence, deduplicate

Crop = dict[str, np.ndarray]


class Spoken(NamedTuple):
    """An utterance with audio and units: its number, its frames of both, its speaker."""

    index: int
    frames: int
    speaker: str


def find_spoken(records: Records, sha256: str, hop: int, sample_rate: int) -> dict[str, list[Spoken]]:
    """Split -> utterances with audio and at least one frame of units of that inventory. Reads all records."""
    found: dict[str, list[Spoken]] = {"train": [], "heldout": []}
    for index in tqdm(range(len(records)), desc="clips", unit=" utterances", delay=5):
        utterance = records[index]
        units = utterance.units.get(sha256)
        if utterance.audio and units is not None and len(units):
            frames = min(round(utterance.duration * sample_rate) // hop, int(units.durations.sum()))
            if frames:
                found[utterance.split].append(Spoken(index, frames, utterance.speaker))
    return found


def runs_of(units_T: np.ndarray, n_frames: int, width: int) -> Crop:
    """The runs of the first `n_frames` units, padded to `width`: `run_ids`, `run_frames` int32 [width], `n_runs` [1],
    and `measured` int32 [width], 0 for the first and the last run, which a crop may have cut, and for padding.
    """
    runs = deduplicate(units_T[:n_frames], 1.0)
    row = {name: np.zeros(width, np.int32) for name in ("run_ids", "run_frames", "measured")}
    row["run_ids"][: len(runs)], row["run_frames"][: len(runs)] = runs.ids, runs.durations
    row["measured"][1 : max(len(runs) - 1, 1)] = 1
    return row | {"n_runs": np.array([len(runs)], np.int32)}


class UnitCrops:
    """Row i: `units` [T] int32 and `samples` [N] float32 of some place in some utterance, `length` [1] int32, how many
    of the samples count (whole frames; zeros follow), `speaker` [1] int32, and the runs of the crop (see `runs_of`).

    Every frame is as likely as every other; utterances shorter than a crop come whole. Picklable.

    Args:
      records: with the units of the inventory `sha256`.
      spoken: utterances to draw from, of `find_spoken`; those of speakers outside `speakers` are left out.
      n_frames: T. hop: samples of a frame, at `sample_rate` Hz.
      speakers: name -> id; {} where the vocoder has no speakers, and all rows have 0.
    Raises:
      ValueError: no utterance to draw from; when a row is read, audio of another rate.
    """

    def __init__(
        self,
        records: Records,
        sha256: str,
        spoken: Sequence[Spoken],
        n_frames: int,
        hop: int,
        seed: int,
        *,
        speakers: Mapping[str, int],
        sample_rate: int = SAMPLE_RATE,
    ):
        self.records, self.sha256, self.n_frames, self.hop = records, sha256, n_frames, hop
        self.speakers, self.sample_rate = dict(speakers), sample_rate
        self.spoken = [each for each in spoken if not speakers or each.speaker in speakers]
        if not self.spoken:
            raise ValueError(
                f"{records.folder} has no utterance with audio, units and a known speaker in a split that is needed: "
                "give data.sources with audio, and `heldout` above 0 for held-out clips"
            )
        self._places = Places([each.frames for each in self.spoken], n_frames, seed)

    @property
    def seconds(self) -> float:
        """Of audio to draw from."""
        return float(self._places.lengths.sum()) * self.hop / self.sample_rate

    def __len__(self) -> int:
        return 2**40  # without end, as far as mixing is concerned

    def __getitem__(self, row: int) -> Crop:
        return self._crop(*self._places.draw(row))

    def firsts(self, n: int) -> list[Crop]:
        """The beginnings of at most n utterances, drawn by the seed: what held-out losses are measured on."""
        return [self._crop(which, 0) for which in self._places.order(n)]

    def whole(self, n: int, most_frames: int) -> list[tuple[str, str, str, np.ndarray, UnitSequence]]:
        """(id, text, speaker, samples, units) of at most n utterances, cut to `most_frames`, drawn by the seed."""
        found = []
        for which in self._places.order(n):
            spoken = self.spoken[which]
            utterance, frames = self.records[spoken.index], min(spoken.frames, most_frames)
            units = utterance.units[self.sha256]
            samples_N = self._samples(utterance.audio, 0, frames)
            units = deduplicate(units.expand()[:frames], units.frame_rate)
            found.append((utterance.id, utterance.text, spoken.speaker, samples_N, units))
        return found

    def _crop(self, which: int, start: int) -> Crop:
        spoken = self.spoken[which]
        utterance, n = self.records[spoken.index], min(self.n_frames, spoken.frames - start)
        units_T, samples_N = np.zeros(self.n_frames, np.int32), np.zeros(self.n_frames * self.hop, np.float32)
        units_T[:n] = utterance.units[self.sha256].expand()[start : start + n]
        samples_N[: n * self.hop] = self._samples(utterance.audio, start, n)
        facts = dict(length=n * self.hop, speaker=self.speakers.get(spoken.speaker, 0))
        row = dict(units=units_T, samples=samples_N) | runs_of(units_T, n, self.n_frames)
        return row | {name: np.array([value], np.int32) for name, value in facts.items()}

    def _samples(self, audio: bytes, start: int, n_frames: int) -> np.ndarray:
        clip = decode_clip(audio, start * self.hop, n_frames * self.hop)
        if clip.rate != self.sample_rate:
            raise ValueError(
                f"{self.records.folder} holds audio at {clip.rate} Hz where {self.sample_rate} Hz are asked for: "
                "prepare it with data.sample_rate set to that"
            )
        return np.pad(clip.samples, (0, n_frames * self.hop - len(clip.samples)))
