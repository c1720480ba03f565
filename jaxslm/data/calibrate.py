"""Measures how late and how narrow the peaks of a CTC model are, on prepared speech with exact word times:

    python -m jaxslm.data.calibrate ctc:FOLDER RECORDS

What it finds is written into FOLDER, where the aligner `data.alignment="ctc:FOLDER"` takes it from. RECORDS is a folder
of `launch/prepare.py`; that of the embedded corpus will do for English (configs/spiritlm_7b.py:tiny).
"""

import dataclasses
import json
import sys

import numpy as np

from jaxslm.audio.io import decode_flac
from jaxslm.data.records import Records, Utterance
from jaxslm.units.alignment import AlignmentError, Word, calibration_file, load_aligner
from jaxslm.units.ctc_aligner import CtcAligner, calibrate

CLIPS = 200  # 10 minutes of speech: the medians do not move by a millisecond beyond that


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Seconds, for `CtcAligner`, and how far the starts of words lie from the known ones (median) before and after."""

    delay: float
    spread: float
    clips: int
    error_before: float
    error_after: float


def calibrate_on(records: Records, aligner: CtcAligner, clips: int = CLIPS) -> Calibration:
    """From at most so many utterances, drawn at random, whose word times came with them.

    Raises:
      ValueError: there are none, or none that the model can align.
    """
    chosen: list[Utterance] = []
    for i in np.random.default_rng(0).permutation(len(records)).tolist():
        utterance = records[i]
        if utterance.audio and utterance.words and utterance.words_from in ("record", "file"):
            chosen.append(utterance)
        if len(chosen) == clips:
            break
    if not chosen:
        raise ValueError(f"{records.folder} has no utterance whose word times came with it; prepare some that have")
    speech = [decode_flac(utterance.audio) for utterance in chosen], [utterance.text for utterance in chosen]
    truth = [utterance.words for utterance in chosen]
    delay, spread = calibrate(aligner, *speech, truth)
    after = CtcAligner(aligner.model, delay=delay, spread=spread)
    errors = [_start_error(each.align_batch(*speech), truth) for each in (CtcAligner(aligner.model), after)]
    return Calibration(delay, spread, len(chosen), *errors)


def _start_error(found: list[tuple[Word, ...] | AlignmentError], truth: list[tuple[Word, ...]]) -> float:
    pairs = [zip(f, t, strict=True) for f, t in zip(found, truth, strict=True) if not isinstance(f, AlignmentError)]
    return float(np.median([abs(ours.start - known.start) for pair in pairs for ours, known in pair]))


def main(name: str, folder: str) -> None:
    aligner = load_aligner(name)
    if not isinstance(aligner, CtcAligner):
        raise ValueError(f"{name} needs no calibration; name a CTC model by ctc:FOLDER")
    found = calibrate_on(Records(folder, inventory=""), aligner)
    path = calibration_file(name)
    path.write_text(json.dumps(dataclasses.asdict(found), indent=1) + "\n", encoding="utf-8")
    before, after = 1000 * found.error_before, 1000 * found.error_after
    print(f"{path}: starts of words off by {before:.1f} ms before, {after:.1f} ms after ({found.clips} clips, median)")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit("python -m jaxslm.data.calibrate ctc:FOLDER RECORDS")
    try:
        main(*sys.argv[1:])
    except (ValueError, OSError) as error:
        raise SystemExit(f"error: {error}") from error
