"""Units of prepared audio, a folder an inventory, in shards that run parallel to those of the audio.

They are computed from the stored audio, so that nothing is decoded from the sources or aligned again for another
inventory.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from array_record.python.array_record_data_source import ArrayRecordDataSource

from jaxslm.audio.io import decode_flac
from jaxslm.data.progress import HoursBar
from jaxslm.data.records import MANIFEST, SCHEMA, Shards, Utterance, describe, from_bytes, units_to_bytes
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


def make_unit_shards(
    audio: Path,
    folder: Path,
    inventory: UnitInventory,
    *,
    part: Part,
    check: bool,
    progress: bool,
    workers: int,
) -> bool:
    """Makes the unit shards of this part that are missing, damaged or of other audio, and, as process 0, the manifest.

    Decoding, encoding and writing overlap. Clips are encoded in groups of similar lengths that depend on their shard
    alone.

    Args:
      audio: a complete folder of `make_audio_shards`.
      folder: of the units; the inventory lies in it.
      check: read the shards that are there and compare their SHA-256.
    Returns:
      False if everything was there.
    Raises:
      OSError: a full disk; finished shards are kept.
    """
    source = Shards(audio).manifest
    entries = source["shards"]
    paths = [folder / entry["file"].replace("records-", "units-") for entry in entries]

    def done(shard: int, check: bool = False) -> bool:
        said = whole(paths[shard], check=check)
        return said is not None and said["audio_sha256"] == entries[shard]["sha256"]

    mine = [shard for shard in range(len(entries)) if part.has(shard)]
    todo = [shard for shard in mine if not done(shard, check)]

    def manifest() -> dict:
        said = [whole(path) for path in paths]
        shards = [facts_of(s) | dict(audio_sha256=s["audio_sha256"]) for s in said]
        return dict(schema=SCHEMA, inventory=describe(inventory), hours=source["hours"], shards=shards)

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
        HoursBar("units", show=progress, total=total, done=(before, 3600 * hours)) as bar,
        Behind() as behind,
        ThreadPoolExecutor(workers) as decoders,
    ):
        units = {}
        for group in ahead(_groups([(shard, audio / entries[shard]["file"]) for shard in todo], decoders)):
            units.update(zip(group.places, inventory.encode_batch(group.clips), strict=True))
            bar.add(len(group.clips), group.seconds)
            if group.ids is not None:
                bar.add(len(group.ids) - len(units), 0.0)
                records = [units_to_bytes(id, units.get(place)) for place, id in enumerate(group.ids)]
                said = dict(audio_sha256=entries[group.shard]["sha256"])
                behind(_write, partial / paths[group.shard].name, records, folder, said)
                units = {}
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


def _groups(shards: list[tuple[int, Path]], decoders: ThreadPoolExecutor) -> Iterator[_Group]:
    """The decoded clips of audio shards, sorted by length in each, at most GROUP_SECONDS or one clip at a time."""
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
            clips = list(decoders.map(decode_flac, [utterances[place].audio for place in places]))
            duration = sum(utterances[place].duration for place in places)
            yield _Group(shard, places, clips, duration, [u.id for u in utterances] if last else None)
