"""Line-by-line reading of text and JSONL files, where one bad line costs only itself."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from jaxslm.data.report import Report


def read_lines(path: Path, report: Report, *, what: str = "utterance") -> Iterator[tuple[str, int, str]]:
    """("file:line", number, line) of every line that is not blank; one that is not UTF-8 is reported and skipped."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            where = f"{path}:{number}"
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
            except UnicodeDecodeError as error:
                report.left_out(where, f"not UTF-8 ({error.reason})", "save the file as UTF-8", what=what)
                continue
            if text:
                yield where, number, text


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
