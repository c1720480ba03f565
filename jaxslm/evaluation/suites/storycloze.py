"""Topic- and Spoken-StoryCloze: which ending goes with a story, its own or another?

Two layouts are read. Whole stories (github.com/slp-rl/SpokenStoryCloze): `<number>_*.wav`, an even number for the right
ending and the next for the wrong one. And stories in pieces, of which slamkit (slamkit/metric/cross_modal_metric.py)
asks across modalities: `<story>_{mutual,correct,incorrect}.{wav,txt}`, mutual being what both endings follow. Either in
one folder, or in folders directly in it.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from jaxslm.data.report import Report
from jaxslm.data.sources.manifest import FieldError
from jaxslm.evaluation.choices import Choice, Part
from jaxslm.evaluation.suites.files import CHOICE, folders_of, natural, numbered_pairs, read_text
from jaxslm.spelling import closest

MODES = ("S", "T", "S->T", "T->S")  # speech, text, a spoken story with a written ending, and the other way round
PIECES = ("mutual", "correct", "incorrect")
_PIECE = re.compile(rf"(.+)_({'|'.join(PIECES)})\.(wav|txt)")


def read(folder: str | Path, report: Report, *, modes: str | Sequence[str] = ("S",)) -> Iterator[Choice]:
    """One choice a story and mode, the modes of a story one after another, with the tag `mode`.

    The story is the first part of either option, so that it is scored too, as everyone does it who uses these sets.
    Of one modality it is one part with the ending: recordings said in one breath, or texts joined by a space.
    """
    folder, modes = Path(folder), (modes,) if isinstance(modes, str) else modes
    for mode in modes:
        if mode not in MODES:
            raise ValueError(f"StoryCloze has no mode {mode!r}: use {', '.join(MODES)}.{closest(str(mode), MODES)}")
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder; {_expected()}")
    if places := folders_of(folder, f"*_{PIECES[1]}.*") or folders_of(folder, f"*_{PIECES[0]}.*"):
        for place in places:
            yield from _of_pieces(place, "" if place == folder else f"{place.name}/", modes, report)
    elif not folders_of(folder, "*.wav"):
        raise ValueError(f"{folder}: no stories there; {_expected()}")
    elif other := [mode for mode in modes if mode != "S"]:
        raise ValueError(f"{folder} has whole stories, which are speech alone: leave {', '.join(other)} out of modes")
    else:
        for id, right, wrong in numbered_pairs(folder, "_", report):
            yield Choice(id, ((Part(audio=(right,)),), (Part(audio=(wrong,)),)), tags={"mode": "S"})


def _expected() -> str:
    return "expected <number>_*.wav in pairs, or <story>_{mutual,correct,incorrect}.{wav,txt}"


def _of_pieces(place: Path, prefix: str, modes: Sequence[str], report: Report) -> Iterator[Choice]:
    stories = set()
    for path in sorted(place.iterdir()):
        if match := _PIECE.fullmatch(path.name):
            stories.add(match[1])
        elif path.suffix in (".wav", ".txt"):
            cure = "call it <story>_{mutual,correct,incorrect}, or move it elsewhere"
            report.left_out(str(path), "no piece of a story by its name", cure, what="file")
    for story in sorted(stories, key=natural):
        for mode in modes:
            try:
                options = tuple(_option(place / story, ending, mode) for ending in PIECES[1:])
            except FieldError as error:
                report.left_out(f"{place / story} ({mode})", *error.args, what=CHOICE)
                continue
            yield Choice(f"{prefix}{story} {mode}", options, tags={"mode": mode})


def _option(story: Path, ending: str, mode: str) -> tuple[Part, ...]:
    """Raises FieldError where a file is missing, or its text cannot be read."""
    start, _, end = mode.partition("->")
    before, after = _part(story, PIECES[0], start), _part(story, ending, end or start)
    if end:
        return before, after
    return (Part(text=f"{before.text} {after.text}" if start == "T" else "", audio=(*before.audio, *after.audio)),)


def _part(story: Path, piece: str, modality: str) -> Part:
    path = story.with_name(f"{story.name}_{piece}.{'wav' if modality == 'S' else 'txt'}")
    if not path.is_file():
        raise FieldError(f"no file '{path.name}'", "restore the file, or leave out the modes that need it")
    return Part(audio=(path,)) if modality == "S" else Part(text=read_text(path))
