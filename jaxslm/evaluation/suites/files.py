"""What the readers of suites share: text that is UTF-8 or named, and recordings that are paired by number."""

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from jaxslm.data.report import Report
from jaxslm.data.sources.lines import SAVE_AS_UTF8, other_encoding
from jaxslm.data.sources.manifest import FieldError

CHOICE = "choice"  # what a report calls a question that is left out


def read_text(path: Path) -> str:
    """The text of a file without the white space around it; FieldError where there is none, or none in UTF-8."""
    data = path.read_bytes()
    if found := other_encoding(data[:1024]):
        raise FieldError(f"'{path.name}' is {found}, not UTF-8", SAVE_AS_UTF8)
    try:
        text = data.decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        cause = f"'{path.name}' is not UTF-8 ({error.reason} at byte {error.start})"
        raise FieldError(cause, SAVE_AS_UTF8) from error
    if not text:
        raise FieldError(f"'{path.name}' holds no text", "write the text into it")
    return text


def natural(name: str) -> list[str | int]:
    """Sorts "9_a" before "10_a"."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]


def folders_of(folder: Path, pattern: str) -> list[Path]:
    """The folder and those directly in it that hold files of a pattern, in natural order."""
    below = sorted((path for path in folder.iterdir() if path.is_dir()), key=lambda path: natural(path.name))
    return [place for place in [folder, *below] if any(place.glob(pattern))]


def numbered_pairs(folder: Path, separator: str, report: Report) -> Iterator[tuple[str, Path, Path]]:
    """(id, right, wrong) of pairs of `<number><separator>*.wav`, in the folder or in folders directly in it.

    slamkit (slamkit/metric/modelling_metric.py, ModellingMetricDataset) sorts by number, and takes the first, third,
    ... file for right. Here numbers are paired, not places: a lost file costs one pair, and turns round no other.
    """
    for place in folders_of(folder, "*.wav"):
        files: dict[int, list[Path]] = defaultdict(list)
        for path in sorted(place.glob("*.wav")):
            number, found, _ = path.name.partition(separator)
            if found and number.isascii() and number.isdigit():
                files[int(number)].append(path)
            else:
                cure = f"call it <number>{separator}....wav, or move it elsewhere"
                report.left_out(str(path), f"no number before a '{separator}' in its name", cure, what="recording")
        parity = _parity(set(files))
        if files and parity is None:
            cure = "number the pairs 0 and 1, 2 and 3, ... with the right one first"
            report.left_out(str(place), "numbers with gaps, which may be paired in two ways", cure, what="folder")
            continue
        if parity == 1:
            report.note(str(place), "numbers begin with an odd one: 1 and 2, 3 and 4, ... are pairs, the odd one right")
        for first in sorted({number - (number + (parity or 0)) % 2 for number in files}):
            id = str(first) if place == folder else f"{place.name}/{first}"
            if pair := _pair(files, first, place, report):
                yield id, *pair


def _pair(files: dict[int, list[Path]], first: int, place: Path, report: Report) -> tuple[Path, Path] | None:
    for number in (first, first + 1):
        if len(found := files.get(number, [])) != 1:
            cause = f"{len(found)} recordings have the number {number}" if found else f"no recording {number}"
            where = f"{place}/{first}, {first + 1}"
            report.left_out(where, cause, "give each pair two recordings, an even and an odd number", what=CHOICE)
            return None
    return files[first][0], files[first + 1][0]


def _parity(numbers: set[int]) -> int | None:
    """Of the first of a pair: that by which every number has its partner, else even if the numbers start at 0."""
    for parity in (0, 1):
        if all((number + 1 if number % 2 == parity else number - 1) in numbers for number in numbers):
            return parity
    return 0 if 0 in numbers else None
