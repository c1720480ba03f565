"""Utterance records: what every source becomes, stored as ArrayRecord shards with a JSON manifest.

A record is a msgpack map whose arrays are raw little-endian bytes, so a reader in any language needs nothing of ours.
The manifest is written last: a folder that has one is complete. Units and codes that are computed from the audio lie in
a folder an inventory and a codec beside it, whose shards run parallel to those of the audio.
"""

from __future__ import annotations

import itertools
import json
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import msgpack
import numpy as np
from array_record.python.array_record_data_source import ArrayRecordDataSource

from jaxslm.codec.codes import CodeSequence
from jaxslm.data.shards import SUFFIX, ShardWriter, Tally, is_whole, write_json
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
      codes: by the SHA-256 of the codec they belong to.
      split: "train" or "heldout".
    """

    id: str
    text: str = ""
    audio: bytes | None = None
    duration: float = 0.0
    words: tuple[Word, ...] = ()
    words_from: str = ""
    units: Mapping[str, UnitSequence] = field(default_factory=dict)
    codes: Mapping[str, CodeSequence] = field(default_factory=dict)
    speaker: str = ""
    language: str = ""
    split: str = "train"


def to_bytes(utterance: Utterance) -> bytes:
    """The utterance as a msgpack map; equal utterances give equal bytes."""
    u = utterance
    # Records without codes are as they were before there were any.
    codes = {"codes": {sha256: _codes_map(codes) for sha256, codes in sorted(u.codes.items())}} if u.codes else {}
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
            units={sha256: _units_map(units) for sha256, units in sorted(u.units.items())},
            speaker=u.speaker,
            language=u.language,
            split=u.split,
            **codes,
        )
    )


def from_bytes(data: bytes) -> Utterance:
    """The inverse of `to_bytes`. A record of another schema is a ValueError."""
    fields = msgpack.unpackb(data)
    if (schema := fields.pop("schema", None)) != SCHEMA:
        raise ValueError(f"a record of schema {schema}, where this version reads {SCHEMA}: prepare the data again")
    times = np.frombuffer(fields.pop("word_times"), "<f8").reshape(-1, 2).tolist()
    words = tuple(Word(text, start, end) for text, (start, end) in zip(fields.pop("words"), times, strict=True))
    units = {sha256: _units_of(units) for sha256, units in fields.pop("units").items()}
    codes = {sha256: _codes_of(codes) for sha256, codes in fields.pop("codes", {}).items()}
    return Utterance(words=words, units=units, codes=codes, **fields)


def units_name(sha256: str) -> str:
    """The folder, beside the audio, of the units of an inventory."""
    return f"units-{sha256[:12]}"


def units_to_bytes(id: str, units: UnitSequence | None) -> bytes:
    """The units of one utterance, None for one without audio, as they lie in the folder of their inventory."""
    return msgpack.packb(dict(schema=SCHEMA, id=id, units=None if units is None else _units_map(units)))


def units_from_bytes(data: bytes) -> tuple[str, UnitSequence | None]:
    """The inverse of `units_to_bytes`."""
    fields = msgpack.unpackb(data)
    return fields["id"], None if fields["units"] is None else _units_of(fields["units"])


def codes_name(sha256: str) -> str:
    """The folder, beside the audio, of the codes of a codec."""
    return f"codes-{sha256[:12]}"


def codes_to_bytes(id: str, codes: CodeSequence | None) -> bytes:
    """The codes of one utterance, None for one without audio, as they lie in the folder of their codec."""
    return msgpack.packb(dict(schema=SCHEMA, id=id, codes=None if codes is None else _codes_map(codes)))


def codes_from_bytes(data: bytes) -> tuple[str, CodeSequence | None]:
    """The inverse of `codes_to_bytes`."""
    fields = msgpack.unpackb(data)
    return fields["id"], None if fields["codes"] is None else _codes_of(fields["codes"])


def _units_map(units: UnitSequence) -> dict:
    return dict(ids=_raw(units.ids, "<i4"), durations=_raw(units.durations, "<i4"), frame_rate=float(units.frame_rate))


def _units_of(fields: Mapping) -> UnitSequence:
    ids, durations = (np.frombuffer(fields[name], "<i4").astype(np.int32) for name in ("ids", "durations"))
    return UnitSequence(ids, durations, fields["frame_rate"])


def _codes_map(codes: CodeSequence) -> dict:
    dtype = "<u2" if codes.ids.max(initial=0) < 2**16 else "<i4"
    facts = dict(n_samples=int(codes.n_samples), frame_rate=float(codes.frame_rate))
    return dict(ids=_raw(codes.ids, dtype), dtype=dtype, codes_per_frame=codes.ids.shape[1], **facts)


def _codes_of(fields: Mapping) -> CodeSequence:
    ids = np.frombuffer(fields["ids"], np.dtype(fields["dtype"])).reshape(-1, fields["codes_per_frame"])
    return CodeSequence(ids, fields["frame_rate"], fields["n_samples"])


def _raw(values, dtype: str) -> bytes:
    return np.ascontiguousarray(values, dtype).tobytes()


def write_records(
    folder: str | Path,
    utterances: Iterable[Utterance],
    *,
    inventories: Sequence[UnitInventory | Mapping] = (),
    codecs: Sequence[Mapping] = (),
    records_per_shard: int = 4096,
    source: Mapping | None = None,
) -> None:
    """Writes utterances in their order as `records-NNNNN.array_record`, then the manifest.

    Shards of an earlier attempt that did not finish are removed. On an error no manifest is written, so that the folder
    never looks complete.

    Args:
      inventories, codecs: whose units and codes there are; Mappings are what the manifest says of them.
    Raises:
      ValueError: the folder is complete already, or there is nothing to write.
      OSError: the disk is full.
    """
    folder = Path(folder)
    if (folder / MANIFEST).exists():
        raise ValueError(f"{folder} already holds records: remove it, or write to another folder")
    folder.mkdir(parents=True, exist_ok=True)
    for stale in folder.glob(f"records-*{SUFFIX}"):
        stale.unlink()
    utterances, tally, shards = iter(utterances), Tally(), []
    for first in utterances:
        writer = ShardWriter(folder / f"records-{len(shards):05d}{SUFFIX}")
        for utterance in itertools.chain([first], itertools.islice(utterances, records_per_shard - 1)):
            writer.write(to_bytes(utterance))
            tally.add(utterance)
        shards.append(writer.close())
    if not shards:
        raise ValueError(f"no utterance to write to {folder}")
    with tempfile.TemporaryDirectory(prefix="partial-", dir=folder) as scratch:
        write_json(folder / MANIFEST, manifest_of(tally, shards, inventories, source or {}, codecs), Path(scratch))


def manifest_of(
    tally: Tally,
    shards: Sequence[Mapping],
    inventories: Sequence[UnitInventory | Mapping],
    source: Mapping,
    codecs: Sequence[Mapping] = (),
) -> dict:
    """What the manifest of a folder of records says."""
    named = dict(inventories=[i if isinstance(i, Mapping) else describe(i) for i in inventories])
    named |= dict(codecs=list(codecs)) if codecs else {}
    return dict(schema=SCHEMA, **tally.to_json(), **named, shards=list(shards), source=dict(source))


def describe(inventory: UnitInventory) -> dict:
    """What a manifest says of an inventory; `deduplicated` where it is not."""
    fields = ["name", "sha256", "encoder", "layer", "frame_rate", "size"]
    fields += [] if inventory.deduplicated else ["deduplicated"]
    return {field: getattr(inventory, field) for field in fields}


class Shards(Sequence):
    """The records, as bytes, of the shards that a folder's manifest names. Picklable: a process opens the files anew.

    Raises ValueError if the folder is incomplete, of another schema, names a shard outside it, or a shard is missing or
    has another size than the manifest says; OSError for a record that is damaged.
    """

    def __init__(self, folder: Path):
        self.folder, path = folder, folder / MANIFEST
        if not path.is_file():
            raise ValueError(f"{folder} holds no complete records (no {MANIFEST}): prepare the data again")
        try:
            self.manifest = json.loads(path.read_text(encoding="utf-8"))
            schema, _ = self.manifest["schema"], self.manifest["shards"]
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{path} is damaged ({error!r}): prepare the data again") from error
        if schema != SCHEMA:
            raise ValueError(f"{path} has schema {schema}, where this version reads {SCHEMA}: prepare the data again")
        for shard in self.manifest["shards"]:
            name = str(shard["file"])
            # A folder that came from elsewhere must not have files outside it read.
            if Path(name).name != name or "\\" in name or ".." in name:
                raise ValueError(f"{path} names a shard {name!r} that is no file in its folder: prepare the data again")
            file = folder / name
            if not is_whole(folder, shard):
                size = f"has {file.stat().st_size} bytes" if file.is_file() else "is missing"
                raise ValueError(
                    f"{file} {size} where {path} says {shard['bytes']} bytes: restore it or prepare the data again"
                )
        self._source = ArrayRecordDataSource([str(folder / shard["file"]) for shard in self.manifest["shards"]])

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> bytes:
        try:
            return self._source[index]
        except RuntimeError as error:  # a checksum of ArrayRecord's own
            raise OSError(
                f"record {index} in {self.folder} is damaged ({error}): launch/prepare.py finds the shard and makes it "
                "again"
            ) from error

    def check(self) -> None:
        """Reads every shard and compares its SHA-256 with the manifest's; ValueError names the first that differs."""
        for shard in self.manifest["shards"]:
            if not is_whole(self.folder, shard, check=True):
                raise ValueError(
                    f"{self.folder / shard['file']} changed since it was written (SHA-256 differs from {MANIFEST}): "
                    "restore it or prepare the data again"
                )


class Records(Sequence):
    """Random access to the utterances of a folder, with units and codes that lie beside them. Picklable.

    Args:
      folder: holds the audio, its manifest and, a folder each, units of inventories and codes of codecs (see
        derived_shards.py).
      inventory: SHA-256 of the one whose units are wanted, "" for none; by default all that are complete.
      codec: SHA-256 of the one whose codes from beside the audio are wanted; by default none.
    Raises:
      ValueError: as Shards, or units or codes of other audio.
    """

    def __init__(self, folder: str | Path, inventory: str | None = None, codec: str = ""):
        self.folder = Path(folder)
        self._audio = Shards(self.folder)
        self._units = self._beside("units-*" if inventory is None else units_name(inventory))
        self._codes = self._beside(codes_name(codec)) if codec else []
        described = [shards.manifest["inventory"] for shards in self._units]
        self.manifest = self._audio.manifest | {"inventories": self._audio.manifest["inventories"] + described}
        if codec:
            known = [*self._audio.manifest.get("codecs", []), *(shards.manifest["codec"] for shards in self._codes)]
            self.manifest["codecs"] = known

    def _beside(self, pattern: str) -> list[Shards]:
        """What was computed from the audio, of the folders of these names that are complete."""
        found = [Shards(path.parent) for path in sorted(self.folder.glob(f"{pattern}/{MANIFEST}"))]
        made_for = [shard["sha256"] for shard in self._audio.manifest["shards"]]
        for shards in found:
            if [shard["audio_sha256"] for shard in shards.manifest["shards"]] != made_for:
                raise ValueError(f"{shards.folder} was computed from other audio: prepare the data again")
        return found

    @property
    def shards(self) -> list[dict]:
        """What the manifests say of all shards that make up the utterances."""
        return [shard for shards in (self._audio, *self._units, *self._codes) for shard in shards.manifest["shards"]]

    def __len__(self) -> int:
        return len(self._audio)

    def __getitem__(self, index: int) -> Utterance:
        if not -len(self) <= index < len(self):
            raise IndexError(f"record {index} of {len(self)} in {self.folder}")
        index = int(index) % len(self)
        utterance = from_bytes(self._audio[index])
        units, codes = dict(utterance.units), dict(utterance.codes)
        for found, every, read, about in (
            (units, self._units, units_from_bytes, "inventory"),
            (codes, self._codes, codes_from_bytes, "codec"),
        ):
            for shards in every:
                id, value = read(shards[index])
                assert id == utterance.id, f"{shards.folder} has a record of {id} for {utterance.id}"
                if value is not None:
                    found[shards.manifest[about]["sha256"]] = value
        return replace(utterance, units=units, codes=codes)

    def check(self) -> None:
        """As Shards.check."""
        for shards in (self._audio, *self._units, *self._codes):
            shards.check()
