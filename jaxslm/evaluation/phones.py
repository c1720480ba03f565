"""What phone each frame of speech belongs to, by forced alignment or from TextGrid files.

Shape letters: T frames.
"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from jaxslm.audio.io import decode_flac
from jaxslm.data.records import Utterance
from jaxslm.units.alignment import AlignmentError, PocketSphinxAligner, Word, read_textgrid

SILENCE = "SIL"
_SILENCES = frozenset(("", "sil", "sp", "spn", "pau", "<sil>", "<eps>", "<p:>", "+spn+", "+nsn+", "noise"))
_STRESS = re.compile(r"(?<=[A-Z])[0-2]$")


def phone_labels(
    intervals: Sequence[Word], n_frames: int, frame_rate: float, frame_centre: float | None = None
) -> np.ndarray:
    """The phone at the centre of each frame, as strings [T].

    frame_centre: of frame 0, in seconds; half a frame by default.

    Stress digits are dropped (AH0 is AH). Pauses, noises and whatever lies in no interval are "SIL".
    """
    ordered = sorted(intervals, key=lambda interval: interval.start)
    starts = np.array([interval.start for interval in ordered])
    ends = np.array([interval.end for interval in ordered])
    names = np.array([*(_plain(interval.text) for interval in ordered), SILENCE])
    first = 0.5 / frame_rate if frame_centre is None else frame_centre
    centres_T = first + np.arange(n_frames) / frame_rate
    which_T = np.searchsorted(starts, centres_T, side="right") - 1
    inside_T = which_T >= 0
    inside_T[inside_T] = centres_T[inside_T] < ends[which_T[inside_T]]
    return names[np.where(inside_T, which_T, len(ordered))]


def _plain(label: str) -> str:
    label = label.strip()
    return SILENCE if label.lower() in _SILENCES else _STRESS.sub("", label)


def load_phones(source: str) -> Callable[[Utterance], tuple[Word, ...]]:
    """What gives the phones of an utterance: "pocketsphinx" (English), or a folder of TextGrid files with a tier
    "phones", named by the id of the utterance ("corpus/a/b": a/b.TextGrid or b.TextGrid).

    The function raises ValueError (AlignmentError) for an utterance without phones.

    Raises:
      ValueError: PocketSphinx is not installed, or no such folder.
    """
    if source == "pocketsphinx":
        try:
            aligner = PocketSphinxAligner()
        except ValueError as error:
            raise ValueError(f"{error}; or name a folder of TextGrid files by --phones=FOLDER") from error
        return lambda utterance: _align(aligner, utterance)
    if not Path(source).is_dir():
        raise ValueError(f"--phones={source}: no such folder; give one of TextGrid files, or 'pocketsphinx'")
    return lambda utterance: _read(Path(source).resolve(), utterance.id)


def _align(aligner: PocketSphinxAligner, utterance: Utterance) -> tuple[Word, ...]:
    if utterance.language not in ("", "en") and not utterance.language.startswith("en-"):
        raise AlignmentError(f"PocketSphinx aligns English, not {utterance.language!r}; give TextGrid files")
    if not utterance.audio:
        raise AlignmentError("the record has no audio to align")
    return aligner.align_phones(decode_flac(utterance.audio), utterance.text)


def _read(folder: Path, utterance_id: str) -> tuple[Word, ...]:
    parts = Path(utterance_id).parts
    for name in ("/".join(parts[1:]), parts[-1]):
        for suffix in (".TextGrid", ".textgrid"):
            path = (folder / f"{name}{suffix}").resolve()
            if path.is_relative_to(folder) and path.is_file():
                return tuple(read_textgrid(path, "phones"))
    raise AlignmentError(f"no TextGrid file of that id in {folder}")
