"""What the suites asr and tts share: held-out clips of a run, their sound, what a judge hears, tables."""

import argparse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from jaxslm.audio.io import decode_clip, write_wav
from jaxslm.data.records import Records, Utterance
from jaxslm.data.sources import has_words
from jaxslm.evaluation.judges import TEXT, ask
from jaxslm.evaluation.normalizers import NORMALIZERS
from jaxslm.evaluation.results import write_result
from jaxslm.evaluation.word_errors import WordErrors
from jaxslm.suites.runs import records_of_run

GROUP = 16  # clips that are answered at once
Sound = tuple[np.ndarray, int]  # samples [N], their rate


def add_clips(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--workdir", type=Path, required=True, help="of a language model's run")
    parser.add_argument("--step", type=int, help="checkpoint; default: the newest")
    parser.add_argument("--records", type=Path, help="folder of prepared records; default: those of the run")
    parser.add_argument("--split", default="heldout", choices=("train", "heldout"), help="default: heldout")
    parser.add_argument("--prefix", default="", help="that ids begin with, such as a source's name")
    parser.add_argument("--clips", type=_count, default=100, help="the first so many; default: 100")
    parser.add_argument("--normalizer", default=NORMALIZERS[0], choices=NORMALIZERS, help="default: whisper-english")
    parser.add_argument("--out", type=Path, help="folder for tables, rows and sound; default: WORKDIR/evaluations")
    parser.add_argument("--seed", type=int, default=0)


def _count(text: str) -> int:
    if not (text.isdecimal() and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 up")
    return int(text)


def clips_of(
    flags: argparse.Namespace, sha256: str, keep: Callable[[Utterance], bool] | None = None
) -> list[Utterance]:
    """Clips with a transcript and units of the run's inventory, of those that `keep` takes; [] where it takes none.

    Raises ValueError if there are none to keep.
    """
    folder, found, others = flags.records or records_of_run(flags.workdir), [], False
    for utterance in Records(folder, sha256):
        units = utterance.units.get(sha256)
        wanted = utterance.split == flags.split and utterance.id.startswith(flags.prefix)
        if wanted and has_words(utterance.text) and units is not None and len(units.ids):
            if keep is None or keep(utterance):
                found.append(utterance)
            else:
                others = True
        if len(found) == flags.clips:
            break
    if not (found or others):
        raise ValueError(
            f"{folder} has no {flags.split} clip with text and units of this run whose id begins with "
            f"'{flags.prefix}': name other records by --records, or another --split"
        )
    return found


def groups(clips: Sequence[Utterance], what: str) -> Iterator[tuple[int, Sequence[Utterance]]]:
    """(place of the first, clips) of groups, with a bar."""
    with tqdm(total=len(clips), desc=what, unit=" clips") as bar:
        for first in range(0, len(clips), GROUP):
            yield first, clips[first : first + GROUP]
            bar.update(len(clips[first : first + GROUP]))


def recordings_of(clips: Sequence[Utterance]) -> list[Sound] | None:
    """What was recorded; None where a clip came as units alone."""
    if not all(clip.audio for clip in clips):
        return None
    found = [decode_clip(clip.audio) for clip in clips]
    return [(clip.samples, clip.rate) for clip in found]


def write_sounds(folder: Path, sounds: Sequence[Sound | None]) -> dict[int, Path]:
    """FOLDER/0000.wav ... by place, without what is None; files of an earlier evaluation are removed."""
    folder.mkdir(parents=True, exist_ok=True)
    for stale in folder.glob("[0-9][0-9][0-9][0-9].wav"):
        stale.unlink()
    files = {i: (folder / f"{i:04d}.wav").resolve() for i, sound in enumerate(sounds) if sound is not None}
    for i, path in files.items():
        write_wav(path, *sounds[i])
    return files


def texts_of(command: str, files: dict[int, Path], n: int) -> list[str]:
    """What a judge hears at each of n places; "" where there is no file, of which it is not asked: Whisper hears words
    in silence."""
    heard = dict(zip(files, ask(command, list(files.values()), TEXT), strict=True)) if files else {}
    return [heard.get(i, "") for i in range(n)]


def write(out: Path, suite: str, whole: dict, errors: dict[str, WordErrors]) -> None:
    """OUT/<suite>.json, and OUT/<suite>.jsonl with the rows of each condition."""
    whole = dict(suite=suite, **whole, **{name: each.figures() for name, each in errors.items()})
    rows = (dict(condition=name, **row) for name, each in errors.items() for row in each.rows)
    write_result(out, suite, whole, rows)


def table(errors: dict[str, WordErrors]) -> str:
    lines = [f"{'':<24} {'WER':>6} {'CER':>6} {'subst.':>7} {'delet.':>7} {'insert.':>7} {'words':>6} {'clips':>6}"]
    for name, e in errors.items():
        rates = " ".join("  none" if rate is None else f"{rate:6.3f}" for rate in (e.wer, e.cer))
        counts = f"{e.substitutions:7d} {e.deletions:7d} {e.insertions:7d} {e.words:6d} {len(e.rows):6d}"
        lines.append(f"{name:<24} {rates} {counts}")
        if e.empty:
            lines.append(f"  {len(e.empty)} left out whose text has no words once normalized, such as {e.empty[0]}")
    return "\n".join(lines)
