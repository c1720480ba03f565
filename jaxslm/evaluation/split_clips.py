"""Recorded clips cut in two, in the layout of cross-modal StoryCloze: which second half goes with the first?

The wrong half is that of another clip by the same speaker, the one whose half is nearest in length. Cuts lie at a word
that begins in the middle, by the clip's word times.
"""

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxslm.audio import SAMPLE_RATE
from jaxslm.audio.io import decode_flac, write_wav
from jaxslm.data.records import Utterance

FEWEST_WORDS = 4


class _Half(NamedTuple):
    text: str
    samples: np.ndarray


def write_split_clips(folder: Path, clips: Iterable[Utterance]) -> int:
    """Writes N_mutual, N_correct and N_incorrect as .wav and .txt of clips with word times and FEWEST_WORDS words or
    more; how many there are. Raises ValueError if there are none, or only one of each speaker."""
    by_speaker: dict[str, list[tuple[_Half, _Half]]] = defaultdict(list)
    for clip in clips:
        if clip.audio and len(clip.words) >= FEWEST_WORDS:
            by_speaker[clip.speaker].append(_halves(clip))
    number = 0
    for halves in by_speaker.values():
        for begin, end in halves:
            others = [other for _, other in halves if other.text.lower() != end.text.lower()]
            if not others:
                continue
            wrong = min(others, key=lambda other: (abs(len(other.samples) - len(end.samples)), other.text))
            folder.mkdir(parents=True, exist_ok=True)
            for name, half in dict(mutual=begin, correct=end, incorrect=wrong).items():
                write_wav(folder / f"{number}_{name}.wav", half.samples, SAMPLE_RATE)
                (folder / f"{number}_{name}.txt").write_text(half.text + "\n", encoding="utf-8")
            number += 1
    if not number:
        raise ValueError(f"no two clips of one speaker have word times and at least {FEWEST_WORDS} words")
    return number


def _halves(clip: Utterance) -> tuple[_Half, _Half]:
    words, samples_N = clip.text.split(), decode_flac(clip.audio)
    middle = len(words) // 2
    at = round(clip.words[middle].start * SAMPLE_RATE)
    return _Half(" ".join(words[:middle]), samples_N[:at]), _Half(" ".join(words[middle:]), samples_N[at:])
