"""What is computed from prepared audio: the units of an inventory, the codes of a codec, each in a folder of its own,
in shards that run parallel to those of the audio.

Nothing is decoded from the sources or aligned again for another inventory or codec.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from array_record.python.array_record_data_source import ArrayRecordDataSource

from jaxslm.audio import SAMPLE_RATE
from jaxslm.audio.io import decode_clip, resample
from jaxslm.codec.runner import CodecRunner
from jaxslm.data.progress import HoursBar
from jaxslm.data.records import (
    MANIFEST,
    SCHEMA,
    Shards,
    Utterance,
    codes_to_bytes,
    describe,
    from_bytes,
    units_to_bytes,
)
from jaxslm.data.shards import ShardWriter, beside, facts_of, holds, whole, write_json
from jaxslm.data.sharing import Behind, Part, ahead, scratch, sweep, wait
from jaxslm.units.inventory import UnitInventory

logger = logging.getLogger(__name__)

GROUP_SECONDS = 1200.0  # of audio that is decoded and given to the encoder at a time


class _Group(NamedTuple):
    """Clips of one shard of similar lengths: their places in it, and the ids of all if it is the shard's last group."""

    shard: int
    places: list[int]
    clips: list[np.ndarray]
    seconds: float
    ids: list[str] | None


@dataclass(frozen=True)
class Derived:
    """What is computed. `name` ("units", "codes") begins the names of shards; `about` is put in the manifest; `encode`
    takes clips at `sample_rate` to values that `to_bytes`, given an id as well, makes records of (None without audio).
    """

    name: str
    about: Mapping[str, Any]
    sample_rate: int
    encode: Callable[[list[np.ndarray]], list]
    to_bytes: Callable[[str, Any], bytes]


def units_of(inventory: UnitInventory) -> Derived:
    """The units of an inventory."""
    return Derived("units", {"inventory": describe(inventory)}, SAMPLE_RATE, inventory.encode_batch, units_to_bytes)


def codes_of(runner: CodecRunner, about: Mapping[str, Any]) -> Derived:
    """The codes of a codec, of which `describe_codec` says `about`."""
    return Derived("codes", {"codec": dict(about)}, about["sample_rate"], runner.encode, codes_to_bytes)


def make_derived_shards(
    audio: Path,
    folder: Path,
    derived: Derived,
    *,
    part: Part,
    check: bool,
    progress: bool,
    workers: int,
) -> bool:
    """Makes the shards of this part that are missing, damaged or of other audio, and, as process 0, the manifest.

    Decoding, encoding and writing overlap. Clips are encoded in groups of similar lengths that depend on their shard
    alone.

    Args:
      audio: a complete folder of `make_audio_shards`.
      folder: of what is computed.
      check: read the shards that are there and compare their SHA-256.
    Returns:
      False if everything was there.
    Raises:
      OSError: a full disk; finished shards are kept.
    """
    source = Shards(audio).manifest
    entries = source["shards"]
    paths = [folder / entry["file"].replace("records-", f"{derived.name}-") for entry in entries]

    def done(shard: int, check: bool = False) -> bool:
        said = whole(paths[shard], check=check)
        return said is not None and said["audio_sha256"] == entries[shard]["sha256"]

    mine = [shard for shard in range(len(entries)) if part.has(shard)]
    todo = [shard for shard in mine if not done(shard, check)]

    def manifest() -> dict:
        said = [whole(path) for path in paths]
        shards = [facts_of(s) | dict(audio_sha256=s["audio_sha256"]) for s in said]
        return dict(schema=SCHEMA, **derived.about, hours=source["hours"], shards=shards)

    if not todo and all(map(done, range(len(entries)))) and holds(folder / MANIFEST, manifest()):
        return False
    for shard in todo:
        if beside(paths[shard]).exists():
            logger.warning("%s is damaged, gone or of other audio: it is made again", paths[shard])
    total = sum(entries[shard]["records"] for shard in mine)
    before = sum(entries[shard]["records"] for shard in mine) - sum(entries[shard]["records"] for shard in todo)
    hours = sum(source["hours"].values()) * before / max(1, sum(entry["records"] for entry in entries))
    with (
        scratch(folder, part) as partial,
        HoursBar(derived.name, show=progress, total=total, done=(before, 3600 * hours)) as bar,
        Behind() as behind,
        ThreadPoolExecutor(workers) as decoders,
    ):
        values = {}
        shards = [(shard, audio / entries[shard]["file"]) for shard in todo]
        for group in ahead(_groups(shards, derived.sample_rate, decoders)):
            values.update(zip(group.places, derived.encode(group.clips), strict=True))
            bar.add(len(group.clips), group.seconds)
            if group.ids is not None:
                bar.add(len(group.ids) - len(values), 0.0)
                records = [derived.to_bytes(id, values.get(place)) for place, id in enumerate(group.ids)]
                said = dict(audio_sha256=entries[group.shard]["sha256"])
                behind(_write, partial / paths[group.shard].name, records, folder, said)
                values = {}
    wait(range(len(entries)), done, lambda shard: paths[shard].name, folder, part)
    if part.index:
        wait([MANIFEST], lambda name: holds(folder / name, manifest()), str, folder, part)
        return True
    sweep(folder)
    with scratch(folder, part) as partial:
        write_json(folder / MANIFEST, manifest(), partial)
    return True


def _write(path: Path, records: list[bytes], folder: Path, said: dict) -> None:
    writer = ShardWriter(path)
    for record in records:
        writer.write(record)
    writer.close_into(folder, said)


def _groups(shards: list[tuple[int, Path]], rate: int, decoders: ThreadPoolExecutor) -> Iterator[_Group]:
    """The clips of audio shards at `rate` Hz, sorted by length in each, at most GROUP_SECONDS or one clip at a time."""
    for shard, path in shards:
        source = ArrayRecordDataSource([str(path)])
        utterances: list[Utterance] = [from_bytes(source[i]) for i in range(len(source))]
        spoken = [place for place, utterance in enumerate(utterances) if utterance.audio]
        spoken.sort(key=lambda place: utterances[place].duration)
        parts, seconds = [[]], 0.0
        for place in spoken:
            if parts[-1] and seconds + utterances[place].duration > GROUP_SECONDS:
                parts.append([])
                seconds = 0.0
            parts[-1].append(place)
            seconds += utterances[place].duration
        for last, places in zip(itertools.chain([False] * (len(parts) - 1), [True]), parts, strict=True):
            clips = list(decoders.map(lambda u: _decode(u, rate), [utterances[place] for place in places]))
            duration = sum(utterances[place].duration for place in places)
            yield _Group(shard, places, clips, duration, [u.id for u in utterances] if last else None)


def _decode(utterance: Utterance, rate: int) -> np.ndarray:
    clip = decode_clip(utterance.audio)
    return resample(clip.samples, clip.rate, rate)
