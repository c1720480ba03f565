"""From sources to a folder of records: read, check, align, learn the units, encode, write.

The folder is named by a hash of all that decides its content, so it is made once; it appears under that name only when
it is complete.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import itertools
import json
import logging
import os
import shutil
import sys
import uuid
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from jaxslm.audio.io import decode_flac
from jaxslm.data.aligning import align_in_batches
from jaxslm.data.reading import Reading, read_utterances
from jaxslm.data.records import MANIFEST, SCHEMA, Records, Utterance, file_sha256, write_records
from jaxslm.data.report import Coverage, Report
from jaxslm.data.sources import RawUtterance, read_source
from jaxslm.units.alignment import CLIP_BY_CLIP, check_aligner, load_aligner
from jaxslm.units.encoders import load_encoder
from jaxslm.units.inventory import UnitInventory, learn_inventory
from jaxslm.units.published import PUBLISHED, open_inventory

logger = logging.getLogger(__name__)

BAR_SECONDS = 0.2 if sys.stderr.isatty() else 10  # a log file wants few lines
VERSION = 3  # raise it when the same config would give other records
UNITS = dict(
    encoder="mfcc", layer=0, clusters=100, seed=0, inventory="", centroids="", max_fit_frames=200_000, frame_rate=0.0,
    sha256="",
)  # fmt: skip


@dataclass(frozen=True)
class Prepared:
    """folder: for `Records(folder)`. inventory: None if data.units is empty. report: also in folder/report.jsonl."""

    folder: Path
    inventory: UnitInventory | None
    report: Report


def prepare(data_config: Mapping, cache: str | Path, *, progress: bool = True, workers: int | None = None) -> Prepared:
    """Prepares the data that a config names, or finds it prepared.

    The records do not depend on the number of worker processes. Files that sources name are told apart by content; a
    source folder that changes is not noticed: remove the prepared one to have it read again.

    Args:
      data_config: `sources` {name: spec of `read_source`}; `units` (keys and defaults in UNITS; empty for text alone);
        `alignment` ("", "pocketsphinx" or "ctc:FOLDER", for speech without word times); `max_seconds` (60: longer audio
        is left out).
      cache: holds one folder a preparation.
      workers: processes that decode and align (None: one a core).
    Raises:
      ValueError: a source of which nothing can be used, or a config that does not fit.
      OSError: a full disk. Nothing is left behind in either case.
    """
    config = _settings(data_config)
    given = given_inventory(config["units"])
    folder = Path(cache) / _fingerprint(config, given)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _alone(folder) as alone:
        if alone:  # what a preparation that was killed left
            for stale in folder.parent.glob(f"{folder.name}.partial-*"):
                shutil.rmtree(stale, ignore_errors=True)
        if (folder / MANIFEST).is_file():
            logger.info("%s is prepared already (remove it to read the sources again)", folder)
        else:
            _make(folder, config, given, progress, workers or os.cpu_count() or 1)
    inventory = UnitInventory.load(folder / "inventory") if config["units"] else None
    if given and given.encoder_folder:  # prepared before the encoder moved
        inventory = replace(inventory, encoder_folder=given.encoder_folder)
    return Prepared(folder, inventory, Report.load(folder / "report.jsonl"))


def _settings(data_config: Mapping) -> dict:
    """The part of the config that decides the records, as plain values with the defaults filled in."""
    config = data_config.to_dict() if hasattr(data_config, "to_dict") else dict(data_config)
    sources = {name: dict(spec) for name, spec in sorted(config["sources"].items()) if spec}
    if not sources:
        raise ValueError('data.sources is empty: give one, such as {"demo": {"kind": "demo"}}')
    units = dict(config.get("units") or {})
    if unknown := set(units) - set(UNITS):
        raise ValueError(f"data.units has no {', '.join(sorted(unknown))}: its keys are {', '.join(UNITS)}")
    aligner = config.get("alignment") or ""
    check_aligner(aligner)
    config = dict(
        sources=sources,
        units=UNITS | units if units else {},
        alignment=aligner,
        max_seconds=float(config.get("max_seconds") or 60),
    )
    return json.loads(json.dumps(config, default=str))


def _fingerprint(config: dict, inventory: UnitInventory | None) -> str:
    """A name for the result: the settings, the content of the files that sources name, and the inventory."""
    parts = dict(
        config, version=VERSION, schema=SCHEMA, units=inventory.sha256 if inventory else config["units"], files={}
    )
    if config["units"] and not inventory:
        parts["weights"] = load_encoder(config["units"]["encoder"], config["units"]["layer"]).weights_sha256
    for name, spec in config["sources"].items():
        if spec.get("path"):
            path = Path(spec["path"]).resolve()
            file = path / "manifest.jsonl" if path.is_dir() else path
            content = file_sha256(file) if file.is_file() else ""
            parts["files"][name] = [str(path), content]
    if config["alignment"] not in ("", *CLIP_BY_CLIP):
        folder = Path(config["alignment"].partition(":")[2]).expanduser()
        model = sorted(file for pattern in ("*.json", "*.safetensors") for file in folder.glob(pattern))
        parts["alignment"] = [[file.name, file_sha256(file)] for file in model]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def given_inventory(units: dict) -> UnitInventory | None:
    """The inventory that exists before any audio is read; None where it is to be learned, or there are no units."""
    if not units:
        return None
    if units["centroids"]:
        return open_inventory(units["encoder"], units["centroids"], layer=units["layer"], published=units["inventory"])
    if units["inventory"] in PUBLISHED:
        known = PUBLISHED[units["inventory"]]
        raise ValueError(
            f"data.units.inventory={units['inventory']} needs its files: name the folder with the encoder's weights "
            f"({known.encoder_weights.url}) by data.units.encoder and the quantizer ({known.quantizer.url}) by "
            "data.units.centroids"
        )
    if units["inventory"]:
        inventory = UnitInventory.load(units["inventory"])
        moved = units["encoder"] not in (UNITS["encoder"], inventory.encoder)
        return replace(inventory, encoder_folder=units["encoder"]) if moved else inventory
    if units["encoder"].startswith("precomputed:"):
        encoder, layer, frame_rate = units["encoder"], units["layer"], units["frame_rate"]
        if not frame_rate > 0:
            raise ValueError(
                f"data.units.frame_rate is {frame_rate}: give that of {encoder}, in units a second before deduplication"
            )
        return UnitInventory(encoder, layer, frame_rate, None, units["clusters"], source_sha256=units["sha256"])
    load_encoder(units["encoder"], units["layer"])  # an unknown name is better known now than after an hour of reading
    return None


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[bool]:
    """Waits for other processes that prepare the same folder; yields False where files cannot be locked."""
    with open(f"{folder}.lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logger.warning("waiting for another process that prepares %s", folder)
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError:
            yield False
            return
        yield True


def _make(folder: Path, config: dict, inventory: UnitInventory | None, progress: bool, workers: int) -> None:
    """Builds the folder under another name, and renames it when it is complete."""
    report = Report()
    temporary = Path(f"{folder}.partial-{uuid.uuid4().hex[:8]}")
    temporary.mkdir()
    try:
        utterances = _read(config, inventory, report, progress, workers)
        if config["units"] and inventory is None:
            # Learning comes between reading and encoding: what was read waits on the disk, so that each clip is decoded
            # and aligned once.
            write_records(temporary / "read", utterances)
            utterances = Records(temporary / "read")
            inventory = _learn(utterances, config["units"])
        if inventory:
            inventory.save(temporary / "inventory")
            utterances = _encode(utterances, inventory, progress)
        write_records(temporary, utterances, inventories=[inventory] if inventory else [], source=config)
        shutil.rmtree(temporary / "read", ignore_errors=True)
        report.save(temporary / "report.jsonl")
        if not (folder / MANIFEST).is_file():  # it is there if another process could not be waited for
            shutil.rmtree(folder, ignore_errors=True)  # without a manifest: somebody took it apart
            os.rename(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    manifest = Records(folder).manifest
    made = f"prepared {folder}: utterances {manifest['utterances']}, hours {manifest['hours']}\n{report.summary()}"
    logger.log(logging.WARNING if report.count() else logging.INFO, "%s", made)


def _read(
    config: dict, inventory: UnitInventory | None, report: Report, progress: bool, workers: int
) -> Iterator[Utterance]:
    """The usable utterances of all sources, in order, under the id "source/id": two sources may use the same ids."""
    given = inventory is not None and inventory.precomputed
    aligner = load_aligner(config["alignment"]) if config["alignment"] else None  # says now if it cannot be had
    by_clip = config["alignment"] in CLIP_BY_CLIP
    reading = Reading(max_seconds=config["max_seconds"], aligner=config["alignment"] if by_clip else "")
    if given:
        reading = replace(
            reading, units_sha256=inventory.sha256, units_size=inventory.size, frame_rate=inventory.frame_rate
        )
    sources = {}
    for name, spec in config["sources"].items():
        spec = {"frame_rate": inventory.frame_rate} | spec if given else spec
        sources[name] = _opened(name, spec, report)
    names, used = deque(), Counter()  # names: the source of each utterance that is being read
    coverage = {name: Coverage() for name in sources}

    def raws():
        for name, raws_of_source in sources.items():
            taken = set()
            for raw in raws_of_source:
                if raw.id in taken:
                    report.left_out(raw.where, f"the id '{raw.id}' is taken", "give every utterance an id of its own")
                else:
                    taken.add(raw.id)
                    names.append(name)
                    yield raw

    with tqdm(desc="reading", unit=" utterances", disable=not progress, mininterval=BAR_SECONDS) as bar:
        results = read_utterances(raws(), reading, workers)
        if aligner and not by_clip:
            results = align_in_batches(results, aligner, config["alignment"].split(":")[0])
        for raw, utterance, entries in results:
            report.extend(entries)
            bar.update()
            name = names.popleft()
            if utterance is not None:
                used[name] += 1
                coverage[name].add(utterance)
                yield replace(utterance, id=f"{name}/{raw.id}")
    for name in sources:
        if not used[name]:
            raise _nothing(name, report)
        report.coverage(name, coverage[name])


def _opened(name: str, spec: Mapping, report: Report) -> Iterator[RawUtterance]:
    """A source whose first utterance was found: a wrong path must not wait for the sources before it."""
    raws = read_source(spec, report)
    first = next(raws, None)
    if first is None:
        raise _nothing(name, report)
    return itertools.chain([first], raws)


def _nothing(name: str, report: Report) -> ValueError:
    return ValueError(
        f"nothing in the source '{name}' can be used: correct it, or take it out of data.sources\n{report.summary()}"
    )


def _learn(records: Records, units: dict) -> UnitInventory:
    """Learns the inventory on training clips in an order drawn by the seed, as sources are often sorted by speaker."""
    order = np.random.default_rng(units["seed"]).permutation(len(records)).tolist()
    frame_rate = load_encoder(units["encoder"], units["layer"]).frame_rate

    def clips(frames: float = 0.0):
        for utterance in map(records.__getitem__, order):
            if utterance.split == "train" and utterance.audio and frames < units["max_fit_frames"]:
                frames += utterance.duration * frame_rate
                yield decode_flac(utterance.audio)

    return learn_inventory(
        units["encoder"], clips(), units["clusters"], units["seed"], units["max_fit_frames"], layer=units["layer"]
    )


def _encode(utterances: Iterable[Utterance], inventory: UnitInventory, progress: bool) -> Iterator[Utterance]:
    """Adds the units of the stored audio, so that they can be computed again from the records alone."""
    if inventory.precomputed:  # they came with the records
        yield from utterances
        return
    for utterance in tqdm(utterances, desc="units", unit=" utterances", disable=not progress, mininterval=BAR_SECONDS):
        units = {inventory.sha256: inventory.encode(decode_flac(utterance.audio))} if utterance.audio else {}
        yield replace(utterance, units=units)
