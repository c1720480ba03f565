"""Text documents: `.txt` files with one a line, `.jsonl` files with one `{"text": ...}` a line, or a folder of both."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from jaxslm.data.report import Report
from jaxslm.data.sources import RawUtterance, has_words, split_of
from jaxslm.data.sources.lines import read_json, read_lines


def read(spec: Mapping, report: Report) -> Iterator[RawUtterance]:
    """Reads documents. Keys of the spec: path (file or folder), heldout (0.05: fraction of the documents), language."""
    path = Path(spec["path"])
    if path.is_dir():
        files = sorted(file for pattern in ("*.txt", "*.jsonl") for file in path.rglob(pattern))
    else:
        files = [path] if path.is_file() else []
    if not files:
        raise ValueError(f"{path}: no text there; give a .txt or .jsonl file, or a folder of them")
    for file in files:
        name = file.relative_to(path).as_posix() if path.is_dir() else file.name
        for where, number, line in read_lines(file, report, what="document"):
            text = _field(line, where, report) if file.suffix == ".jsonl" else line
            if text is None:
                continue
            if not has_words(text):
                report.left_out(where, "no words in the text", "remove the line, or give it text", what="document")
                continue
            id = f"{name}:{number}"
            split = split_of(id, spec.get("heldout", 0.05))
            yield RawUtterance(id=id, where=where, text=text, language=spec.get("language") or "", split=split)


def _field(line: str, where: str, report: Report) -> str | None:
    record = read_json(line, where, report, what="document")
    if record is not None and not isinstance(record.get("text"), str):
        report.left_out(where, "no field 'text' that holds a string", 'write {"text": "..."}', what="document")
        return None
    return record["text"] if record is not None else None
