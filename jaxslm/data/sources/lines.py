"""Line-by-line reading of text and JSONL files, where one bad line costs only itself."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from pathlib import Path

from jaxslm.data.report import Report

SAVE_AS_UTF8 = "save the file as UTF-8"
_BOMS = {  # the mark of UTF-32 begins with that of UTF-16
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}


def read_lines(path: Path, report: Report, *, what: str = "utterance") -> Iterator[tuple[str, int, str]]:
    """("file:line", number, line) of every line that is not blank; one that is not UTF-8 is reported and skipped."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            where = f"{path}:{number}"
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
            except UnicodeDecodeError as error:
                report.left_out(where, f"not UTF-8 ({error.reason})", SAVE_AS_UTF8, what=what)
                continue
            if text:
                yield where, number, text


def utf8_lines(path: Path, report: Report, *, what: str = "utterance") -> Iterator[tuple[str, int, str]]:
    """`read_lines` of a file that is not wholly in another encoding: that is a ValueError, one bad line is left out."""
    if found := other_encoding_of(path):
        raise ValueError(f"{path} is {found}, not UTF-8; {SAVE_AS_UTF8}")
    yield from read_lines(path, report, what=what)


def other_encoding_of(path: Path) -> str:
    """`other_encoding` of a file."""
    with path.open("rb") as file:
        return other_encoding(file.read(1024))


def other_encoding(head: bytes) -> str:
    """What a file that begins with `head` is in, if plainly not in UTF-8; else ""."""
    marked = next((name for mark, name in _BOMS.items() if head.startswith(mark)), "")
    return marked or ("UTF-16 or no text at all" if b"\0" in head else "")


def read_json(line: str, where: str, report: Report, *, what: str = "utterance") -> dict | None:
    """The JSON object on a line; None, reported, if there is none."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        report.left_out(where, f"not JSON ({str(error).splitlines()[0]})", "write one JSON object a line", what=what)
        return None
    if not isinstance(record, dict):
        report.left_out(
            where, f"a JSON {type(record).__name__}, not an object", "write one JSON object a line", what=what
        )
        return None
    if "\\ud" in line.lower() and not _encodable(record):
        report.left_out(
            where, "half a UTF-16 surrogate pair, which is no character", "write the character itself", what=what
        )
        return None
    return record


def _encodable(record: dict) -> bool:
    try:
        return bool(json.dumps(record, ensure_ascii=False).encode())
    except UnicodeEncodeError:
        return False
