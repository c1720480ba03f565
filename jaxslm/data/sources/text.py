"""Text documents: `.txt` files with one a line, `.jsonl` files with one `{"text": ...}` a line, or a folder of both.

The split of a JSONL line is its own `split`, else drawn by its `id`, as the manifest source does it: where a speech
corpus serves as text too, what is held out as speech is held out as text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from jaxslm.data.report import Report
from jaxslm.data.sources import RawUtterance, has_words, split_of
from jaxslm.data.sources.lines import SAVE_AS_UTF8, other_encoding_of, read_json, utf8_lines
from jaxslm.data.sources.manifest import FieldError, id_and_split


def read(spec: Mapping, report: Report) -> Iterator[RawUtterance]:
    """Reads documents. Keys of the spec: path (file or folder), heldout (0.05: fraction of the documents), language.

    Files of a folder in another encoding than UTF-8 are left out, and reported. Raises ValueError where there is no
    text, and for a single file in another encoding.
    """
    path, heldout = Path(spec["path"]), spec.get("heldout", 0.05)
    if path.is_dir():
        files = sorted(file for pattern in ("*.txt", "*.jsonl") for file in path.rglob(pattern))
    else:
        files = [path] if path.is_file() else []
    if not files:
        raise ValueError(f"{path}: no text there; give a .txt or .jsonl file, or a folder of them")
    for file in files:
        name = file.relative_to(path).as_posix() if path.is_dir() else file.name
        if path.is_dir() and (found := other_encoding_of(file)):
            report.left_out(str(file), f"{found}, not UTF-8", SAVE_AS_UTF8, what="file")
            continue
        for where, number, line in utf8_lines(file, report, what="document"):
            id = f"{name}:{number}"
            text, split = line, split_of(id, heldout)
            if file.suffix == ".jsonl":
                record = read_json(line, where, report, what="document")
                if record is None:
                    continue
                try:
                    text, split = _text(record), id_and_split(record, f"{file.name}:{number}", heldout)[1]
                except FieldError as error:
                    report.left_out(where, *error.args, what="document")
                    continue
            if not has_words(text):
                report.left_out(where, "no words in the text", "remove the line, or give it text", what="document")
                continue
            yield RawUtterance(id=id, where=where, text=text, language=spec.get("language") or "", split=split)


def _text(record: dict) -> str:
    if not isinstance(record.get("text"), str):
        raise FieldError("no field 'text' that holds a string", 'write {"text": "..."}')
    return record["text"]
