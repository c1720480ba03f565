"""The folder layout of LJSpeech: wavs/ID.wav and metadata.csv with "ID|transcript|normalised transcript" lines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from jaxslm.data.report import Report
from jaxslm.data.sources import RawUtterance, split_of
from jaxslm.data.sources.lines import read_lines


def read(spec: Mapping, report: Report) -> Iterator[RawUtterance]:
    """Reads a folder; the normalised transcript (numbers written out, as spoken) is used where a line has one.

    Keys of the spec: path (the folder with metadata.csv), heldout (0.05), language ("en"), speaker ("LJ").
    """
    path = Path(spec["path"])
    metadata = path / "metadata.csv"
    if not metadata.is_file():
        raise ValueError(f"{path}: no metadata.csv there; give the folder that holds it and wavs/")
    for where, _, line in read_lines(metadata, report):
        id, *texts = (part.strip() for part in line.split("|"))
        audio = path / "wavs" / f"{id}.wav"
        if not any(texts):
            report.left_out(where, "no transcript after the id", 'write "ID|transcript|normalised transcript"')
        elif audio.name != f"{id}.wav" or not audio.is_file():  # an id with a slash would leave the folder
            report.left_out(where, f"no file 'wavs/{id}.wav'", "restore the file, or remove the line")
        else:
            yield RawUtterance(
                id=id,
                where=where,
                text=next(text for text in reversed(texts[:2]) if text),
                audio=audio,
                speaker=spec.get("speaker") or "LJ",
                language=spec.get("language") or "en",
                split=split_of(id, spec.get("heldout", 0.05)),
            )
