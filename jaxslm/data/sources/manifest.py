"""JSONL manifests in NeMo's style: one utterance a line, audio paths relative to the manifest.

    {"audio_filepath": "audio/a.flac", "text": "hello there",
     "id": "a", "speaker": "s1", "lang": "en", "split": "train", "words": [["hello", 0.1, 0.4], ["there", 0.45, 0.8]],
     "units": [7, 12, 7], "durations": [1, 2, 1], "frame_rate": 25}

Only `audio_filepath` (or `units`) and `text` are required; an empty text means untranscribed speech. Instead of `words`
an `alignment_filepath` may name a TextGrid, CTM or JSON file. `units` without `durations` are one a frame. A line
without `id` is called by its audio path, or else by file name and line.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from jaxslm.data.report import Report
from jaxslm.data.sources import SPLITS, RawUtterance, split_of
from jaxslm.data.sources.lines import read_json, read_lines
from jaxslm.units.alignment import ALIGNMENT_FILES, Word
from jaxslm.units.units import UnitSequence, deduplicate


class FieldError(ValueError):
    """A field that cannot be used: (cause, cure)."""


def file_inside(root: Path, name: str, cure: str = "move it inside") -> Path:
    """The file `name`, which is relative to `root` and inside it after links are followed.

    root: resolved. cure: of one that lies outside. Raises FieldError where there is none, whatever the name.
    """
    try:
        path = (root / name).resolve()
        inside = path.is_relative_to(root)
        found = inside and path.is_file()
    except (OSError, RuntimeError, ValueError) as error:  # too long, a circle of links, a NUL
        raise FieldError(f"'{name[:80]}' cannot be a file ({str(error)[:40]})", "correct the path") from error
    if not inside:
        raise FieldError(f"'{name}' lies outside '{root}'", cure)
    if not found:
        raise FieldError(f"no file '{name}' in '{root}'", "correct the path, which is relative to that folder")
    return path


def read(spec: Mapping, report: Report) -> Iterator[RawUtterance]:
    """Reads a manifest. Keys of the spec:

    path: the file, or a folder with manifest.jsonl. audio_root: where paths start and must stay, if not the
    manifest's own folder. heldout (0.05): fraction of the lines without `split`. language: of lines without `lang`.
    frame_rate: of units without one.
    """
    path = Path(spec["path"])
    path = path / "manifest.jsonl" if path.is_dir() else path
    if not path.is_file():
        raise ValueError(f"{path}: no such manifest; give a JSONL file, or a folder that holds manifest.jsonl")
    root = Path(spec.get("audio_root") or path.parent).resolve()
    for where, number, line in read_lines(path, report):
        record = read_json(line, where, report)
        if record is None:
            continue
        try:
            yield _utterance(record, f"{path.name}:{number}", where, root, path.parent, spec, report)
        except FieldError as error:
            report.left_out(where, *error.args)


def id_and_split(record: dict, line: str, heldout: float) -> tuple[str, str]:
    """The id and the split of a line, `line` ("manifest.jsonl:3") being what it is called if nothing in it names it.

    Neither depends on where the corpus lies, so that moving it does not draw the split anew; and text sources ask here
    too, so that a transcript is held out wherever its speech is. Raises FieldError.
    """
    audio = Path(_text_field(record, "audio_filepath") or "/")
    id = _text_field(record, "id") or (line if audio.is_absolute() else str(audio.parent / audio.stem))
    split = _text_field(record, "split")
    if split and split not in SPLITS:
        raise FieldError(f"an unknown split {split!r}", "use 'train' or 'heldout'")
    return id, SPLITS[split] if split else split_of(id, heldout)


def _utterance(
    record: dict, line: str, where: str, root: Path, folder: Path, spec: Mapping, report: Report
) -> RawUtterance:
    text = _text_field(record, "text")
    if text is None:
        raise FieldError("no field 'text'", "add the transcript (an empty one for untranscribed speech)")
    if record.get("offset"):
        raise FieldError("'offset' marks a segment of a longer file", "cut the audio into one file an utterance")
    audio = _file(record, "audio_filepath", root, folder)
    units = _part(_units, record, spec, where, report, what="units")
    if audio is None and units is None:
        raise FieldError("no field 'audio_filepath'", "name the audio file, relative to the manifest")
    id, split = id_and_split(record, line, spec.get("heldout", 0.05))
    return RawUtterance(
        id=id,
        where=where,
        text=text,
        audio=audio,
        words=_part(_words, record, spec, where, report, what="word times"),
        alignment=_part(
            lambda record, _: _alignment(record, root, folder), record, spec, where, report, what="word times"
        ),
        units=units,
        speaker=_text_field(record, "speaker") or "",
        language=_text_field(record, "lang") or _text_field(record, "language") or spec.get("language") or "",
        split=split,
    )


def _part(parse, record: dict, spec: Mapping, where: str, report: Report, *, what: str):
    """`parse(record, spec)`, or None, reported, where that part alone cannot be used."""
    try:
        return parse(record, spec)
    except FieldError as error:
        report.left_out(where, *error.args, what=what)
        return None


def _text_field(record: dict, name: str) -> str | None:
    value = record.get(name)
    if (
        isinstance(value, int | float) and not isinstance(value, bool) and name != "text"
    ):  # ids and speakers are often numbers
        return str(value)
    if value is not None and not isinstance(value, str):
        raise FieldError(f"'{name}' holds a {type(value).__name__}", f"make '{name}' a string")
    return value


def _file(record: dict, field: str, root: Path, folder: Path) -> Path | None:
    name = _text_field(record, field)
    cure = f"move it inside, or set audio_root to a folder that holds it ({folder} is the manifest's)"
    return file_inside(root, name, cure) if name else None


def _alignment(record: dict, root: Path, folder: Path) -> Path | None:
    path = _file(record, "alignment_filepath", root, folder)
    if path is not None and path.suffix not in ALIGNMENT_FILES:
        raise FieldError(f"'{path.name}' holds no word times", f"name one of {', '.join(ALIGNMENT_FILES)}")
    return path


def _words(record: dict, spec: Mapping) -> tuple[Word, ...] | None:
    """Word times from [[word, start, end], ...] or [{"word", "start", "end"}, ...]; their sense is checked against the
    text later.
    """
    items = record.get("words")
    if items is None:
        return None
    cure = 'write "words": [["word", start, end], ...] with times in seconds'
    if not isinstance(items, list):
        raise FieldError(f"'words' holds a {type(items).__name__}", cure)
    words = []
    for number, item in enumerate(items, 1):
        if isinstance(item, dict):
            item = [item.get("word", item.get("text")), item.get("start"), item.get("end")]
        if not (
            isinstance(item, list) and len(item) == 3 and isinstance(item[0], str) and all(map(_is_time, item[1:]))
        ):
            raise FieldError(f"item {number} of 'words' is not a word with a start and an end", cure)
        words.append(Word(item[0], float(item[1]), float(item[2])))
    return tuple(words)


def _is_time(value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e9 and math.isfinite(value)


def _units(record: dict, spec: Mapping) -> UnitSequence | None:
    if record.get("units") is None:
        return None
    frame_rate = record.get("frame_rate") or spec.get("frame_rate")
    if not (frame_rate and _is_time(frame_rate)):
        raise FieldError(
            "units without a frame rate", "give 'frame_rate', in units a second, in the line or in the source"
        )
    ids = _integers(record, "units", least=0)
    if record.get("durations") is None:
        return deduplicate(ids, float(frame_rate))
    durations = _integers(record, "durations", least=1)
    if len(ids) != len(durations):
        raise FieldError(f"{len(ids)} units but {len(durations)} durations", "give one duration a unit")
    return UnitSequence(ids, durations, float(frame_rate))


def _integers(record: dict, name: str, *, least: int) -> np.ndarray:
    values = record[name]
    if isinstance(values, str):  # "7 7 12", as unit dumps are often written
        values = [int(item) if item.isascii() and item.isdigit() else item for item in values.split()]
    if not (
        isinstance(values, list) and values and all(type(value) is int and least <= value < 2**31 for value in values)
    ):
        raise FieldError(f"'{name}' is not a list of whole numbers from {least} up", f'write "{name}": [7, 12, ...]')
    return np.asarray(values, np.int32)
