"""From sources to a folder of records: read, check, align, learn the units, encode, write.

The audio lies in a folder named by a hash of all that decides its content, the units of each inventory and the codes of
each codec in a folder of their own inside it. All are made shard by shard; a manifest, written last, says that a folder
is complete.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from jaxslm.audio import SAMPLE_RATE
from jaxslm.audio.io import HIGHEST_RATE, LOWEST_RATE, decode_flac
from jaxslm.codec.identity import describe_codec
from jaxslm.codec.model import Codec
from jaxslm.codec.runner import CodecRunner
from jaxslm.data.audio_shards import REPORT, make_audio_shards
from jaxslm.data.derived_shards import codes_of, make_derived_shards, units_of
from jaxslm.data.records import MANIFEST, SCHEMA, Records, codes_name, units_name
from jaxslm.data.report import Report
from jaxslm.data.shards import disk_errors, file_sha256, write_json
from jaxslm.data.sharing import Part, alone, scratch, telling, wait
from jaxslm.units.alignment import CLIP_BY_CLIP, check_aligner
from jaxslm.units.encoders import Encoder, load_encoder
from jaxslm.units.inventory import UnitInventory
from jaxslm.units.learning import learn_inventory
from jaxslm.units.published import find_published, open_inventory

logger = logging.getLogger(__name__)

VERSION = 5  # raise it when the same config would give other records
UNITS = dict(
    encoder="mfcc", layer=None, dtype="float32", crop=False, clusters=100, seed=0, max_fit_frames=200_000,
    kmeans_batch=0, deduplicated=True, inventory="", centroids="", frame_rate=0.0, sha256="",
)  # fmt: skip
_INVENTORY = "inventory"


@dataclass(frozen=True)
class Prepared:
    """folder: for `Records(folder)`. inventory: None if data.units is empty. report: also in folder/report.jsonl.
    units: the folder inside it that holds the units and the inventory; None if there are none to compute. codec: what
    `describe_codec` says of the one whose codes there are, if there are.
    """

    folder: Path
    inventory: UnitInventory | None
    report: Report
    units: Path | None = None
    codec: dict | None = None


def prepare(
    data_config: Mapping,
    cache: str | Path,
    *,
    codec: tuple[Codec, str] | None = None,
    progress: bool = True,
    workers: int | None = None,
    process_index: int = 0,
    process_count: int = 1,
    run: str = "",
    check: bool = False,
) -> Prepared:
    """Prepares the data that a config names, goes on with it, or finds it prepared.

    The files do not depend on the number of processes or workers, nor on how often the preparation was stopped. Files
    that sources name are told apart by content; a source folder that changes is not noticed once it is prepared: remove
    the prepared one to have it read again.

    Args:
      data_config: `sources` {name: spec of `read_source`}; `units` (keys and defaults in UNITS; empty for text alone);
        `alignment` ("", "pocketsphinx" or "ctc:FOLDER", for speech without word times); `max_seconds` (60: longer audio
        is cut at pauses, see splitting.py); `sample_rate` of the audio in the records (16,000; whatever it is, encoders
        and aligners hear 16 kHz).
      cache: holds one folder for the audio of each set of sources, with the units of each inventory inside.
      codec: one whose codes are computed, too, and its name.
      workers: processes that decode and align (None: one a core).
      process_index, process_count: of processes that share the work, and must all see `cache`.
      run: a name that these processes have in common, and no other run has, neither before nor beside theirs; so that
        one that fails ends the others, and the next run of all of them is not disturbed by it.
      check: compares the SHA-256 of all shards of a complete preparation too; damaged ones are made again.
    Raises:
      ValueError: a source of which nothing can be used, or a config that does not fit.
      OSError: a full disk. Finished shards are kept.
      RuntimeError: another of the processes failed; the message says which, and why.
    """
    cache = Path(cache)
    with telling(cache, process_index, process_count, run) as part:
        config = _settings(data_config)
        given = given_inventory(config["units"])
        precomputed = given if given and given.precomputed else None
        folder = _folder(config, cache, precomputed)
        with disk_errors(folder):
            cache.mkdir(parents=True, exist_ok=True)
        with alone(folder, part) as killed:
            how = dict(part=part, progress=progress, workers=workers or os.cpu_count() or 1)
            learned = folder / f"learned-{_learning(config['units'])}.json"
            units = None if precomputed or not config["units"] else _units_folder(folder, learned, given)
            check = check or (units is not None and not (units / MANIFEST).is_file())  # what is read on must be sound
            audio = {name: value for name, value in config.items() if name != "units"}
            made = make_audio_shards(folder, audio, precomputed, check=check, careful=killed, **how)
            inventory = given
            if config["units"] and not precomputed:
                inventory = given or _learned(folder, learned, config["units"], part)
                units = folder / units_name(inventory.sha256)
                _keep(folder, units, inventory, part)
                made = make_derived_shards(folder, units, units_of(inventory), check=check, **how) or made
            about = None
            if codec:
                about = describe_codec(*codec)
                codes = folder / codes_name(about["sha256"])
                with disk_errors(codes):
                    codes.mkdir(exist_ok=True)
                derived = codes_of(CodecRunner(codec[0]), about)
                made = make_derived_shards(folder, codes, derived, check=check, **how) or made
    report = Report.load(folder / REPORT)
    if not made:
        logger.info("%s is prepared already (remove it to read the sources again)", folder)
    elif part.index == 0:
        manifest = Records(folder, inventory="").manifest
        text = f"prepared {folder}: utterances {manifest['utterances']}, hours {manifest['hours']}\n{report.summary()}"
        logger.log(logging.WARNING if report.count() else logging.INFO, "%s", text)
    return Prepared(folder, inventory, report, units, about)


def prepared_folder(data_config: Mapping, cache: str | Path) -> Path:
    """Where `prepare` puts the audio, whether or not it is there."""
    config = _settings(data_config)
    given = _given_without_encoder(config["units"])
    return _folder(config, cache, given if given and given.precomputed else None)


def _folder(config: dict, cache: str | Path, precomputed: UnitInventory | None) -> Path:
    return Path(cache) / f"audio-{_fingerprint(config, precomputed)}"


def _units_folder(folder: Path, learned: Path, given: UnitInventory | None) -> Path:
    """Where the units lie or will lie; for an inventory that is still to be learned, a folder that is not there."""
    if given:
        return folder / units_name(given.sha256)
    return folder / units_name(_sha256_in(learned) or "none")


def _sha256_in(learned: Path) -> str:
    try:
        return json.loads(learned.read_text(encoding="utf-8"))["inventory"]
    except (OSError, ValueError):
        return ""


def _learned(folder: Path, learned: Path, units: Mapping, part: Part) -> UnitInventory:
    """The inventory that `units` asks to be learned: process 0 learns it once and notes it in the file `learned`."""

    def load() -> UnitInventory | None:
        sha256 = _sha256_in(learned)
        try:
            return UnitInventory.load(folder / units_name(sha256) / _INVENTORY) if sha256 else None
        except ValueError:  # somebody took it apart
            return None

    if part.index:
        wait([learned.name], lambda _: load() is not None, str, folder, part)
    elif load() is None:
        inventory = _learn(Records(folder, inventory=""), units)
        _keep(folder, folder / units_name(inventory.sha256), inventory, part)
        with scratch(folder, part) as partial:
            write_json(learned, dict(units=dict(units), inventory=inventory.sha256), partial)
    inventory = load()
    moved = units["encoder"] != inventory.encoder_folder != ""  # the weights are the same, or it would not be found
    return replace(inventory, encoder_folder=units["encoder"]) if moved else inventory


def _keep(folder: Path, units: Path, inventory: UnitInventory, part: Part) -> None:
    """Saves the inventory beside its units, whole or not at all."""
    if part.index:
        wait([_INVENTORY], lambda name: (units / name).is_dir(), str, units, part)
        return
    if (units / _INVENTORY).is_dir():
        try:
            if UnitInventory.load(units / _INVENTORY) == inventory:
                return
        except ValueError:  # somebody took it apart
            shutil.rmtree(units / _INVENTORY)
    with scratch(folder, part) as partial, disk_errors(units / _INVENTORY):
        units.mkdir(exist_ok=True)
        inventory.save(partial / _INVENTORY)
        (partial / _INVENTORY).rename(units / _INVENTORY)


def _settings(data_config: Mapping) -> dict:
    """The part of the config that decides the records, as plain values with the defaults filled in."""
    config = data_config.to_dict() if hasattr(data_config, "to_dict") else dict(data_config)
    sources = {name: dict(spec) for name, spec in sorted(config["sources"].items()) if spec}
    if not sources:
        raise ValueError('data.sources is empty: give one, such as {"demo": {"kind": "demo"}}')
    units = dict(config.get("units") or {})
    if unknown := set(units) - set(UNITS):
        raise ValueError(f"data.units has no {', '.join(sorted(unknown))}: its keys are {', '.join(UNITS)}")
    if (batch := (UNITS | units)["kmeans_batch"]) < 0:
        raise ValueError(f"data.units.kmeans_batch={batch}: give the frames of a batch, or 0 for all of them at once")
    rate = int(config.get("sample_rate") or SAMPLE_RATE)
    if not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise ValueError(f"data.sample_rate={rate}: choose {LOWEST_RATE} to {HIGHEST_RATE} Hz")
    aligner = config.get("alignment") or ""
    check_aligner(aligner)
    config = dict(
        sources=sources,
        units=UNITS | units if units else {},
        alignment=aligner,
        max_seconds=float(config.get("max_seconds") or 60),
        sample_rate=rate,
    )
    return json.loads(json.dumps(config, default=str))


def _fingerprint(config: dict, precomputed: UnitInventory | None) -> str:
    """A name for the audio: the settings that bear on it and the content of the files that sources name."""
    parts = config | dict(version=VERSION, schema=SCHEMA, units=precomputed.sha256 if precomputed else "", files={})
    for name, spec in config["sources"].items():
        if spec.get("path"):
            path = Path(spec["path"]).resolve()
            file = path / "manifest.jsonl" if path.is_dir() else path
            content = file_sha256(file) if file.is_file() else ""
            parts["files"][name] = [str(path), content]
    if config["alignment"] not in ("", *CLIP_BY_CLIP):
        name, _, language = config["alignment"].partition(":")[2].partition("@")
        folder = Path(name).expanduser()
        model = sorted(file for pattern in ("*.json", "*.safetensors") for file in folder.glob(pattern))
        parts["alignment"] = [language] + [[file.name, file_sha256(file)] for file in model]
    return _short_hash(parts)


def _learning(units: dict) -> str:
    """A name for what an inventory is learned by; the audio it is learned from has its own."""
    if not units or units["inventory"] or units["centroids"] or units["encoder"].startswith("precomputed:"):
        return "none"
    encoder = {name: value for name, value in _encoder(units).identity.items() if name != "encoder_folder"}
    names = ["clusters", "seed", "max_fit_frames", "kmeans_batch"]
    names += [] if units["deduplicated"] else ["deduplicated"]  # what is as it always was keeps its name
    return _short_hash(dict(version=VERSION, encoder=encoder, **{name: units[name] for name in names}))


def _short_hash(parts: Mapping) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def given_inventory(units: Mapping) -> UnitInventory | None:
    """The inventory that exists before any audio is read; None where it is to be learned, or there are no units.

    Raises:
      ValueError: settings that contradict each other or the files they name.
    """
    if not units:
        return None
    if units["centroids"]:
        given = open_inventory(_encoder(units), units["centroids"], published=units["inventory"])
        return given if units["deduplicated"] else replace(given, deduplicated=False)
    if given := _given_without_encoder(units):
        if not given.precomputed:
            given.open_encoder()  # one that is not there is better known now than after an hour of reading
        return given
    if not 2 <= units["clusters"] <= units["max_fit_frames"]:
        raise ValueError(
            f"data.units.clusters={units['clusters']}: choose 2 to max_fit_frames={units['max_fit_frames']}"
        )
    _encoder(units)
    return None


def _given_without_encoder(units: Mapping) -> UnitInventory | None:
    """The inventory of a folder or of precomputed units."""
    if not units or units["centroids"]:
        return None
    if units["inventory"]:
        return _load_inventory(units)
    if not units["encoder"].startswith("precomputed:"):
        return None
    encoder, layer, frame_rate = units["encoder"], units["layer"] or 0, units["frame_rate"]
    if not frame_rate > 0:
        raise ValueError(
            f"data.units.frame_rate is {frame_rate}: give that of {encoder}, in units a second before deduplication"
        )
    more = dict(source_sha256=units["sha256"], deduplicated=units["deduplicated"])
    return UnitInventory(encoder, layer, frame_rate, None, units["clusters"], **more)


def _load_inventory(units: Mapping) -> UnitInventory:
    """That of the folder `inventory`, with the encoder where the settings say it lies."""
    folder = Path(units["inventory"]).expanduser()
    if not folder.is_dir() and folder.name == units["inventory"]:
        known = find_published(units["inventory"])
        raise ValueError(
            f"data.units.inventory={units['inventory']} needs its files: name the folder with the encoder's weights "
            f"({known.encoder_weights.url}) by data.units.encoder and the quantizer ({known.quantizer.url}) by "
            "data.units.centroids"
        )
    inventory = UnitInventory.load(folder)
    for name in ("layer", "dtype", "crop", "deduplicated"):
        if units[name] not in (UNITS[name], getattr(inventory, name)):
            theirs = getattr(inventory, name)
            raise ValueError(f"data.units.{name}={units[name]}, but the units of {folder} have {theirs}; leave it out")
    moved = units["encoder"] not in (UNITS["encoder"], inventory.encoder)
    return replace(inventory, encoder_folder=units["encoder"]) if moved else inventory


def _encoder(units: Mapping) -> Encoder:
    layer = units["layer"]
    if layer is None and units["inventory"]:
        layer = find_published(units["inventory"]).layer
    return load_encoder(units["encoder"], layer, units["dtype"], units["crop"])


def _learn(records: Records, units: Mapping) -> UnitInventory:
    """Learns the inventory on training clips in an order drawn by the seed, as sources are often sorted by speaker."""
    order = np.random.default_rng(units["seed"]).permutation(len(records)).tolist()
    encoder = _encoder(units)

    def clips(frames: float = 0.0):
        for utterance in map(records.__getitem__, order):
            if utterance.split == "train" and utterance.audio and frames < units["max_fit_frames"]:
                frames += utterance.duration * encoder.frame_rate
                yield decode_flac(utterance.audio)

    how = dict(max_frames=units["max_fit_frames"], **{name: units[name] for name in ("kmeans_batch", "deduplicated")})
    return learn_inventory(encoder, clips(), units["clusters"], units["seed"], **how)
