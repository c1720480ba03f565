"""Shards: ArrayRecord files that are whole or not there, each with a JSON file beside it that says what it holds.

That file gets its name last, so a preparation that was killed goes on at the first shard without one.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from array_record.python.array_record_module import ArrayRecordWriter

if TYPE_CHECKING:
    from jaxslm.data.records import Utterance

SUFFIX = ".array_record"
_FACTS = ("file", "records", "bytes", "sha256")


class ShardWriter:
    """Writes the records of one shard; equal records give equal bytes."""

    def __init__(self, path: Path):
        self.path, self.records = path, 0
        with disk_errors(path):
            self._writer = ArrayRecordWriter(str(path), "group_size:1")  # one record a group: no neighbour is read

    def write(self, record: bytes) -> None:
        with disk_errors(self.path):
            self._writer.write(record)
        self.records += 1

    def close(self) -> dict:
        """What a manifest says of the shard."""
        with disk_errors(self.path):
            self._writer.close()
            size = self.path.stat().st_size
        return dict(zip(_FACTS, (self.path.name, self.records, size, file_sha256(self.path)), strict=True))

    def close_into(self, folder: Path, said: Mapping) -> None:
        """Moves the shard into `folder` (of the same disk), then `said` and the facts of `close` beside it.

        An empty shard leaves only the latter.
        """
        facts = self.close()
        if not self.records:
            self.path.unlink()
            facts = dict(zip(_FACTS, ("", 0, 0, ""), strict=True))
        else:
            with disk_errors(self.path):
                _to_disk(self.path)
                os.replace(self.path, folder / self.path.name)
        write_json(beside(folder / self.path.name), facts | said, self.path.parent)


def beside(shard: Path) -> Path:
    """The JSON file of a shard."""
    return shard.with_suffix(".json")


def whole(shard: Path, *, check: bool = False) -> dict | None:
    """What the file beside a shard says, if that and the shard are whole; None if it is to be made (again).

    check: compares the SHA-256 as well as the size.
    """
    try:
        said = json.loads(beside(shard).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(said, dict) or not set(_FACTS) <= set(said):
        return None
    if said["file"] and not is_whole(shard.parent, said, check=check):
        return None
    return said


def is_whole(folder: Path, facts: Mapping, *, check: bool = False) -> bool:
    """Whether a shard is there as its facts say."""
    path = folder / facts["file"]
    if not path.is_file() or path.stat().st_size != facts["bytes"]:
        return False
    return not check or file_sha256(path) == facts["sha256"]


def facts_of(said: Mapping) -> dict:
    """The part that goes into the manifest."""
    return {name: said[name] for name in _FACTS}


def write_json(path: Path, content: Mapping, scratch: Path) -> None:
    """Writes a file that is whole or not there, by way of a folder on the same disk."""
    new = scratch / path.name
    with disk_errors(path):
        new.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        _to_disk(new)
        os.replace(new, path)


def holds(path: Path, content: Mapping) -> bool:
    """Whether a file of `write_json` is there and says this."""
    try:
        return json.loads(path.read_text(encoding="utf-8")) == json.loads(json.dumps(content))
    except (OSError, ValueError):
        return False


def _to_disk(path: Path) -> None:
    """What has its final name must be whole even if the power fails."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Says what to do if a file cannot be written; ArrayRecord reports a full disk as RuntimeError."""
    try:
        yield
    except (RuntimeError, OSError) as error:
        free = shutil.disk_usage(path.parent).free >> 20 if path.parent.is_dir() else 0
        other = isinstance(error, OSError) and error.errno not in (None, errno.ENOSPC, errno.EDQUOT)
        cure = "make it writable" if other else "free space there"
        cure += " or choose another folder, and run again; what is finished is kept"
        raise OSError(f"{path} could not be written ({error}), {free} MiB are free: {cure}") from error


def file_sha256(path: Path) -> str:
    """Hex digest of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Tally:
    """Counts by split, as the manifest gives them."""

    COUNTS = ("utterances", "speech", "aligned", "seconds")

    def __init__(self, counts: Mapping[str, Mapping[str, float]] | None = None):
        counts = counts or {}
        self.utterances, self.speech, self.aligned, self.seconds = (Counter(counts.get(n, {})) for n in self.COUNTS)

    def add(self, utterance: Utterance) -> None:
        split = utterance.split
        self.utterances[split] += 1
        self.speech[split] += bool(utterance.audio or utterance.units or utterance.codes)
        self.aligned[split] += bool(utterance.words)
        self.seconds[split] += utterance.duration

    def merge(self, other: Tally) -> None:
        for name in self.COUNTS:
            for split, count in getattr(other, name).items():
                getattr(self, name)[split] += count

    def counts(self) -> dict:
        return {name: dict(getattr(self, name)) for name in self.COUNTS}

    def to_json(self) -> dict:
        hours = {split: round(seconds / 3600, 4) for split, seconds in self.seconds.items()}
        return dict(utterances=dict(self.utterances), speech=dict(self.speech), aligned=dict(self.aligned), hours=hours)
