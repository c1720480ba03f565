"""Where utterances come from: one module a kind of source, each with `read(spec, report) -> Iterator[RawUtterance]`.

A source's module is imported only when its kind is used, because some need extras. A reader leaves out what it cannot
use, says so in the report, and goes on; a source that cannot be opened at all is a `ValueError`.
"""

from __future__ import annotations

import hashlib
import importlib
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jaxslm.data.report import Report
from jaxslm.units.alignment import Word
from jaxslm.units.units import UnitSequence

COMMON = {"kind", "limit", "heldout", "language", "frame_rate"}  # keys of every spec

TFDS = {"name", "splits", "data_dir", "download", "audio", "text", "speaker", "id", "sample_rate"}

# kind -> (module, function, the other keys of its spec)
READERS = {
    "manifest": ("manifest", "read", {"path", "audio_root"}),
    "librispeech": ("librispeech", "read", {"path", "subsets"}),
    "ljspeech": ("ljspeech", "read", {"path", "speaker"}),
    "asterisk": ("asterisk", "read", {"path"}),
    "text": ("text", "read", {"path"}),
    "demo": ("demo", "read", {"utterances", "seed", "grammar", "stories", "voices"}),
    "demo_text": ("demo", "read_text", {"utterances", "seed", "grammar"}),
    "tfds": ("tfds", "read", TFDS),
}

SPLITS = {name: "heldout" for name in ("heldout", "dev", "test", "valid", "validation", "eval")} | {"train": "train"}


@dataclass(frozen=True)
class RawUtterance:
    """One utterance or text document as its source gives it, nothing decoded yet.

    Attributes:
      where: what messages call it ("manifest.jsonl:12").
      audio: a file, an encoded file's bytes, or (samples, rate); None for text alone.
      words: word times given with the record.
      alignment: a file with word times; without either, one beside the audio file is looked for.
      units: precomputed units.
      split: "train" or "heldout".
    """

    id: str
    where: str
    text: str = ""
    audio: Path | bytes | tuple[np.ndarray, int] | None = None
    words: tuple[Word, ...] | None = None
    alignment: Path | None = None
    units: UnitSequence | None = None
    speaker: str = ""
    language: str = ""
    split: str = "train"


def read_source(spec: Mapping, report: Report) -> Iterator[RawUtterance]:
    """The utterances of one source: `spec["kind"]` names the reader, `spec["limit"]` (None: all) how many at most."""
    kind = spec.get("kind")
    if kind not in READERS:
        raise ValueError(f"unknown kind of source {kind!r}: use one of {', '.join(READERS)}")
    module, function, keys = READERS[kind]
    if unknown := set(spec) - COMMON - keys:
        known = ", ".join(sorted(COMMON | keys))
        raise ValueError(f"a source of kind {kind!r} has no {', '.join(sorted(unknown))}: its keys are {known}")
    if "path" in keys and not spec.get("path"):
        raise ValueError(f"a source of kind {kind!r} needs a path")
    read = getattr(importlib.import_module(f"{__name__}.{module}"), function)
    return itertools.islice(read(spec, report), spec.get("limit"))


def count_utterances(spec: Mapping) -> int | None:
    """How many utterances a source has, where that is cheaper than reading it; None if it is not, or cannot be read."""
    limit = spec.get("limit")
    if spec["kind"] in ("demo", "demo_text"):
        count = spec.get("utterances", 400)
        return count if limit is None else min(count, limit)
    if spec["kind"] == "tfds":
        return limit
    try:
        return sum(1 for _ in read_source(spec, Report(log=False)))
    except (ValueError, OSError):
        return None


def split_of(id: str, heldout: float) -> str:
    """Puts a fraction `heldout` of the ids into "heldout", the rest into "train", by hash: a new id moves no other."""
    draw = int.from_bytes(hashlib.sha256(id.encode()).digest()[:8], "big") / 2**64
    return "heldout" if draw < heldout else "train"


def has_words(text: str) -> bool:
    """Whether a text says anything: at least one letter or digit."""
    return any(character.isalnum() for character in text)
