"""Clips through a codec at several numbers of levels: sound files, scores, counts of codes, and examples to show."""

import re
from collections.abc import Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxslm.audio.io import write_wav
from jaxslm.codec.identity import codebook_sizes
from jaxslm.codec.model import Codec
from jaxslm.codec.runner import CodecRunner
from jaxslm.data.code_files import check_inside
from jaxslm.evaluation.codec_metrics import CodeCounts, measure_clip
from jaxslm.evaluation.listening_page import Clip
from jaxslm.evaluation.perceptual import BY_PACKAGES, Scores, measure_by_packages

ORIGINAL = "original"


class Recording(NamedTuple):
    """samples: [N] at the codec's rate."""

    id: str
    samples: np.ndarray
    text: str = ""


class Reconstructions:
    """What is gathered of the clips that were added so far.

    Attributes:
      scores: {levels: {clip id: Scores}}.
      counts: of the codes of the most levels asked for.
      shown: the first `n_shown` clips, for the listening page.
      seconds: of all clips. heard: the samples of the first minute of them.
    """

    def __init__(self, codec: Codec, levels: Sequence[int], metrics: Sequence[str], folder: Path, n_shown: int):
        self.runners = {n: CodecRunner(codec, n) for n in sorted(set(levels))}
        self.most, self.rate = max(self.runners), codec.config.sample_rate
        self.scores: dict[int, dict[str, Scores]] = {n: {} for n in self.runners}
        self.counts = CodeCounts(codebook_sizes(codec)[: len(self.runners[self.most].sizes)])
        self.shown: list[Clip] = []
        self.seconds, self.heard = 0.0, np.zeros(0, np.float32)
        self._metrics, self._folder, self._n_shown = metrics, folder, n_shown
        self._lists: dict[str, list[str]] = {}
        self._keys: set[str] = set()

    def add(self, group: Sequence[Recording], pool: Executor | None = None) -> None:
        """Encodes and decodes the clips, measures and writes them. Raises ValueError for two clips of one name."""
        for clip in group:
            if _key(clip.id) in self._keys:
                raise ValueError(f"two clips are called '{clip.id}': rename one")
            self._keys.add(_key(clip.id))
            check_inside(self._folder / ORIGINAL, clip.id)
        originals = [clip.samples for clip in group]
        codes = self.runners[self.most].encode(originals)
        for each in codes:
            self.counts.add(each.ids)
        self._write(ORIGINAL, group, originals)
        made = {n: runner.decode(codes) for n, runner in self.runners.items()}
        for n, sounds in made.items():
            self._write(f"reconstruction_{n}", group, sounds)
            found = _measured(originals, sounds, self.rate, self._metrics, pool)
            self.scores[n].update(zip([clip.id for clip in group], found, strict=True))
        for i, clip in enumerate(group[: max(0, self._n_shown - len(self.shown))]):
            sounds = {column(n): made[n][i] for n in made}
            scores = {column(n): self.scores[n][clip.id] for n in made}
            self.shown.append(Clip(clip.id, clip.samples, sounds, self.rate, scores, clip.text))
        self.seconds += sum(map(len, originals)) / self.rate
        if len(self.heard) < 60 * self.rate:
            self.heard = np.concatenate([self.heard, *originals])[: 60 * self.rate]

    def write_lists(self) -> None:
        """original.scp, reconstruction_N.scp: "ID PATH" a line, blanks in ids as "_", as Kaldi and VERSA read them."""
        for name, lines in self._lists.items():
            (self._folder / f"{name}.scp").write_text("".join(lines), encoding="utf-8")

    def _write(self, name: str, group: Sequence[Recording], sounds: Sequence[np.ndarray]) -> None:
        for clip, samples_N in zip(group, sounds, strict=True):
            path = (self._folder / name / f"{clip.id}.wav").absolute()
            write_wav(path, np.where(np.isfinite(samples_N), samples_N, 0.0), self.rate)
            self._lists.setdefault(name, []).append(f"{_key(clip.id)} {path}\n")


def _key(id: str) -> str:
    return re.sub(r"\s", "_", id)


def column(n_levels: int) -> str:
    """What a reconstruction is called on the page."""
    return f"{n_levels} level{'s' if n_levels > 1 else ''}"


def _measured(
    originals: Sequence[np.ndarray],
    sounds: Sequence[np.ndarray],
    rate: int,
    metrics: Sequence[str],
    pool: Executor | None,
) -> list[Scores]:
    """Scores of each; what packages measure, by the pool if there is one."""
    if pool is None:
        return [measure_clip(*pair, rate, metrics) for pair in zip(originals, sounds, strict=True)]
    theirs = [name for name in metrics if name in BY_PACKAGES]
    ours = [name for name in metrics if name not in BY_PACKAGES]
    pairs = list(zip(originals, sounds, strict=True))
    waiting = [pool.submit(measure_by_packages, theirs, *pair, rate) for pair in pairs]
    here = [measure_clip(*pair, rate, ours) for pair in pairs]
    return [scores | later.result() for scores, later in zip(here, waiting, strict=True)]
