"""LibriSpeech's layout: SUBSET/SPEAKER/CHAPTER/*.flac beside SPEAKER-CHAPTER.trans.txt with "ID TRANSCRIPT" lines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from jaxslm.data.report import Report
from jaxslm.data.sources import RawUtterance, split_of
from jaxslm.data.sources.lines import read_lines

AUDIO = (".flac", ".wav", ".opus", ".ogg", ".mp3")


def read(spec: Mapping, report: Report) -> Iterator[RawUtterance]:
    """Reads chapters. dev-* and test-* are held out; where there are none, a `heldout` fraction of the utterances is.

    Keys of the spec: path (a folder above the chapters: the root, a subset), subsets (names; all), heldout (0.05),
    language ("en").
    """
    path = Path(spec["path"])
    transcripts = [(_subset(file), file) for file in sorted(path.resolve().rglob("*.trans.txt"))]
    wanted = spec.get("subsets")
    transcripts = [(subset, file) for subset, file in transcripts if not wanted or subset in wanted]
    if not transcripts:
        raise ValueError(f"{path}: no *.trans.txt below it; give the folder that holds train-clean-100, dev-clean, ...")
    heldout = 0.0 if any(_is_heldout(subset) for subset, _ in transcripts) else spec.get("heldout", 0.05)
    for subset, file in transcripts:
        yield from _chapter(subset, file, heldout, spec, report)


def _subset(transcript: Path) -> str:
    return transcript.parents[2].name


def _is_heldout(subset: str) -> bool:
    return subset.startswith(("dev", "test"))


def _chapter(subset: str, transcript: Path, heldout: float, spec: Mapping, report: Report) -> Iterator[RawUtterance]:
    audio = {file.stem: file for file in sorted(transcript.parent.iterdir()) if file.suffix.lower() in AUDIO}
    for where, _, line in read_lines(transcript, report):
        id, _, text = line.partition(" ")
        if id not in audio:
            report.left_out(
                where, f"no audio file '{id}' beside the transcript", "restore the file, or remove the line"
            )
            continue
        yield RawUtterance(
            id=id,
            where=where,
            text=text.strip(),
            audio=audio.pop(id),
            speaker=transcript.parent.parent.name,
            language=spec.get("language") or "en",
            split="heldout" if _is_heldout(subset) else split_of(id, heldout),
        )
    for file in audio.values():
        report.left_out(str(file), f"no line for it in '{transcript.name}'", "add its transcript, or remove the file")
