"""Utterance records: what every source becomes, stored as ArrayRecord shards with a JSON manifest.

A record is a msgpack map whose arrays are raw little-endian bytes, so a reader in any language needs nothing of ours.
The manifest is written
last: a folder that has one is complete.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import msgpack
import numpy as np
from array_record.python.array_record_data_source import ArrayRecordDataSource
from array_record.python.array_record_module import ArrayRecordWriter

from jaxslm.units.alignment import Word
from jaxslm.units.units import UnitSequence

if TYPE_CHECKING:  # the inventory imports JAX, which the processes that only read audio do without
    from jaxslm.units.inventory import UnitInventory

SCHEMA = 1
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Utterance:
    """One utterance, or one text document (no audio, no units).

    Attributes:
      audio: FLAC bytes, 16 kHz mono.
      duration: seconds; 0 for text.
      words: one for each item of `text.split()`, or () where the times are unknown.
      words_from: what gave their times: "record", "file" or the aligner's name; "" without times.
      units: by the SHA-256 of the inventory they belong to.
      split: "train" or "heldout".
    """

    id: str
    text: str = ""
    audio: bytes | None = None
    duration: float = 0.0
    words: tuple[Word, ...] = ()
    words_from: str = ""
    units: Mapping[str, UnitSequence] = field(default_factory=dict)
    speaker: str = ""
    language: str = ""
    split: str = "train"


def to_bytes(utterance: Utterance) -> bytes:
    """The utterance as a msgpack map; equal utterances give equal bytes."""
    u = utterance
    return msgpack.packb(
        dict(
            schema=SCHEMA,
            id=u.id,
            text=u.text,
            audio=u.audio,
            duration=float(u.duration),
            words=[word.text for word in u.words],
            word_times=_raw([(word.start, word.end) for word in u.words], "<f8"),
            words_from=u.words_from,
            units={
                sha256: dict(ids=_raw(s.ids, "<i4"), durations=_raw(s.durations, "<i4"), frame_rate=float(s.frame_rate))
                for sha256, s in sorted(u.units.items())
            },
            speaker=u.speaker,
            language=u.language,
            split=u.split,
        )
    )


def from_bytes(data: bytes) -> Utterance:
    """The inverse of `to_bytes`. A record of another schema is a ValueError."""
    fields = msgpack.unpackb(data)
    if (schema := fields.pop("schema", None)) != SCHEMA:
        raise ValueError(f"a record of schema {schema}, where this version reads {SCHEMA}: prepare the data again")
    times = np.frombuffer(fields.pop("word_times"), "<f8").reshape(-1, 2).tolist()
    words = tuple(Word(text, start, end) for text, (start, end) in zip(fields.pop("words"), times, strict=True))
    units = {
        sha256: UnitSequence(
            np.frombuffer(s["ids"], "<i4").astype(np.int32),
            np.frombuffer(s["durations"], "<i4").astype(np.int32),
            s["frame_rate"],
        )
        for sha256, s in fields.pop("units").items()
    }
    return Utterance(words=words, units=units, **fields)


def _raw(values, dtype: str) -> bytes:
    return np.ascontiguousarray(values, dtype).tobytes()


def write_records(
    folder: str | Path,
    utterances: Iterable[Utterance],
    *,
    inventories: Sequence[UnitInventory] = (),
    records_per_shard: int = 4096,
    source: Mapping | None = None,
) -> None:
    """Writes utterances in their order as `records-NNNNN.array_record`, then the manifest.

    Shards of an earlier attempt that did not finish are removed. On an error no manifest is written, so that the folder
    never looks complete.

    Raises:
      ValueError: the folder is complete already, or there is nothing to write.
      OSError: the disk is full.
    """
    folder = Path(folder)
    if (folder / MANIFEST).exists():
        raise ValueError(f"{folder} already holds records: remove it, or write to another folder")
    folder.mkdir(parents=True, exist_ok=True)
    for stale in folder.glob("records-*.array_record"):
        stale.unlink()
    utterances, tally, shards = iter(utterances), Tally(), []
    for first in utterances:
        shard = itertools.chain([first], itertools.islice(utterances, records_per_shard - 1))
        shards.append(_write_shard(folder / f"records-{len(shards):05d}.array_record", shard, tally))
    if not shards:
        raise ValueError(f"no utterance to write to {folder}")
    manifest = dict(
        schema=SCHEMA,
        **tally.to_json(),
        inventories=[
            dict(name=i.name, sha256=i.sha256, encoder=i.encoder, layer=i.layer, frame_rate=i.frame_rate, size=i.size)
            for i in inventories
        ],
        shards=shards,
        source=dict(source or {}),
    )
    temporary = folder / (MANIFEST + ".partial")
    temporary.write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(temporary, folder / MANIFEST)


class Tally:
    """Counts by split, as the manifest gives them."""

    def __init__(self):
        self.utterances, self.speech, self.aligned, self.seconds = Counter(), Counter(), Counter(), Counter()

    def add(self, utterance: Utterance) -> None:
        split = utterance.split
        self.utterances[split] += 1
        self.speech[split] += bool(utterance.audio or utterance.units)
        self.aligned[split] += bool(utterance.words)
        self.seconds[split] += utterance.duration

    def to_json(self) -> dict:
        hours = {split: round(seconds / 3600, 4) for split, seconds in self.seconds.items()}
        return dict(utterances=dict(self.utterances), speech=dict(self.speech), aligned=dict(self.aligned), hours=hours)


def _write_shard(path: Path, utterances: Iterable[Utterance], tally: Tally) -> dict:
    """Writes one shard and returns what the manifest says of it."""
    writer = ArrayRecordWriter(str(path), "group_size:1")  # one record a group: random access reads no neighbour
    records = 0
    for utterance in utterances:
        with _disk_errors(path):
            writer.write(to_bytes(utterance))
        tally.add(utterance)
        records += 1
    with _disk_errors(path):
        writer.close()
    return dict(file=path.name, records=records, bytes=path.stat().st_size, sha256=file_sha256(path))


@contextlib.contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    """ArrayRecord reports a full disk as RuntimeError: say what to do instead."""
    try:
        yield
    except RuntimeError as error:
        cure = "free space there or choose another folder, and run again; no complete folder was changed"
        raise OSError(f"{path} could not be written ({error}): {cure}") from error


def file_sha256(path: Path) -> str:
    """Hex digest of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Records(Sequence):
    """Random access to the utterances of a folder. Picklable: a worker process opens the shards anew.

    Raises ValueError if the folder is incomplete, of another schema, names a shard outside it, or a shard is missing or
    has another size than the manifest says.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        path = self.folder / MANIFEST
        if not path.is_file():
            raise ValueError(f"{self.folder} holds no complete records (no {MANIFEST}): prepare the data again")
        self.manifest = json.loads(path.read_text(encoding="utf-8"))
        if self.manifest["schema"] != SCHEMA:
            schema = self.manifest["schema"]
            raise ValueError(f"{path} has schema {schema}, where this version reads {SCHEMA}: prepare the data again")
        for shard in self.manifest["shards"]:
            name = str(shard["file"])
            # A folder that came from elsewhere must not have files outside it read.
            if Path(name).name != name or "\\" in name or ".." in name:
                raise ValueError(f"{path} names a shard {name!r} that is no file in its folder: prepare the data again")
            file = self.folder / name
            if not file.is_file() or file.stat().st_size != shard["bytes"]:
                size = f"has {file.stat().st_size} bytes" if file.is_file() else "is missing"
                raise ValueError(
                    f"{file} {size} where {path} says {shard['bytes']} bytes: restore it or prepare the data again"
                )
        self._source = ArrayRecordDataSource([str(self.folder / shard["file"]) for shard in self.manifest["shards"]])

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Utterance:
        if not -len(self) <= index < len(self):
            raise IndexError(f"record {index} of {len(self)} in {self.folder}")
        return from_bytes(self._source[int(index) % len(self)])

    def check(self) -> None:
        """Reads every shard and compares its SHA-256 with the manifest's; ValueError names the first that differs."""
        for shard in self.manifest["shards"]:
            if file_sha256(self.folder / shard["file"]) != shard["sha256"]:
                raise ValueError(
                    f"{self.folder / shard['file']} changed since it was written (SHA-256 differs from {MANIFEST}): "
                    "restore it or prepare the data again"
                )
