"""The suite "units": what the units of a folder of records are worth.

Shape letters: T frames, P phones, K units.
"""

import dataclasses
import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from jaxslm.audio.io import decode_flac
from jaxslm.data.records import Records, Utterance
from jaxslm.evaluation.abx import abx_errors, read_items
from jaxslm.evaluation.phone_units import phone_unit_metrics, unit_metrics
from jaxslm.evaluation.phones import SILENCE, load_phones, phone_labels
from jaxslm.evaluation.picture import plot_phones_by_units
from jaxslm.evaluation.robustness import CHANGES, unit_edit_distance
from jaxslm.units.bpe import train_unit_bpe
from jaxslm.units.encoders import Encoder
from jaxslm.units.inventory import UnitInventory
from jaxslm.units.units import UnitSequence
from jaxslm.units.words import Word

log = logging.getLogger(__name__)


def evaluate_units(
    records: Records,
    inventory: UnitInventory,
    out: str | Path,
    *,
    split: str = "heldout",
    phones: str = "pocketsphinx",
    items: str | Path | None = None,
    changed_clips: int = 50,
    bpe_tokens: int = 0,
    progress: bool = True,
) -> dict:
    """Measures the units in the records; writes units.json and units.png to `out` and returns what units.json holds.

    Sections: "units" (usage and bitrates), "phones" (purity and PNMI, silence counted as a phone, as HuBERT does) and
    "phones_without_silence", "unit_edit_distance" (percent, by change), "precision" (share of the frames that have the
    same unit when the encoder computes in bfloat16, or float32), "bpe", "abx" (errors of features, centroids and
    one-hot units).

    Args:
      split: "train", "heldout" or "all".
      phones: see `phones.load_phones`.
      items: an ABX item file; its files are utterance ids, or their last parts where these are unique.
      changed_clips: clips, drawn at random, for the unit edit distance and the precision; 0 leaves them out.
      bpe_tokens: size of a unit BPE, learned from the training clips and written to bpe.json; 0 leaves it out.
    Raises:
      ValueError: records without these units, no utterance in the split, none whose phones are found, an encoder that
        is not where the inventory has it, or a wrong item file.
    """
    # What is wrong is known before anything is measured.
    phones_of, abx_items = load_phones(phones), read_items(items) if items else None
    encoder = None if inventory.precomputed else inventory.open_encoder()
    utterances, train = _utterances(records, inventory, split, progress)
    sequences = [utterance.units[inventory.sha256] for utterance in utterances]
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    result = dict(
        inventory=dict(name=inventory.name, sha256=inventory.sha256),
        records=dict(folder=str(records.folder), split=split, utterances=len(utterances)),
        units=unit_metrics(sequences, inventory.size),
    )
    centre = encoder.frame_centre if encoder else None
    counts_PxK, names, report = _count(utterances, inventory, centre, phones_of, phones, progress)
    spoken = [i for i, name in enumerate(names) if name != SILENCE]
    result |= dict(
        phones=phone_unit_metrics(counts_PxK),
        phones_without_silence=phone_unit_metrics(counts_PxK[spoken]),
        phone_labels=report,
    )
    clips = _clips(utterances, changed_clips) if encoder else []
    result["unit_edit_distance"] = _changes(clips, inventory, progress)
    result["precision"] = _precision(clips, inventory)
    result["bpe"] = _bpe(train, sequences, inventory, bpe_tokens, out) if bpe_tokens else None
    result["abx"] = _abx(abx_items, utterances, inventory, encoder, progress) if abx_items else None
    (out / "units.json").write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    title = f"{inventory.name}, {split}: PNMI {result['phones']['pnmi']:.3f}"
    plot_phones_by_units(counts_PxK, names, out / "units.png", title)
    return result


def summary(result: dict) -> str:
    """The numbers as a table, a line each."""
    rows = [(section, name, value) for section in result for name, value in _rows(result[section])]
    width = max(len(f"{section} {name}") for section, name, _ in rows)
    return "\n".join(f"{f'{section} {name}':<{width}}  {_plain(value)}" for section, name, value in rows)


def _rows(section: object, prefix: str = "") -> list[tuple[str, object]]:
    if not isinstance(section, dict):
        return [(prefix.strip(), section)]
    return [row for name, value in section.items() for row in _rows(value, f"{prefix} {name}")]


def _plain(value: object) -> str:
    if value is None:
        return "not measured"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _utterances(
    records: Records, inventory: UnitInventory, split: str, progress: bool
) -> tuple[list[Utterance], list[UnitSequence]]:
    """The utterances of the split that have these units, and the units of the training utterances."""
    if split not in ("train", "heldout", "all"):
        raise ValueError(f"--split={split}: choose train, heldout or all")
    known = [(known["name"], known["sha256"]) for known in records.manifest["inventories"]]
    if inventory.sha256 not in [sha256 for _, sha256 in known]:
        there = ", ".join(f"{name} ({sha256[:12]})" for name, sha256 in known) or "none"
        raise ValueError(
            f"{records.folder} has no units of {inventory.name} ({inventory.sha256[:12]}), only of: {there}; prepare "
            "the data with this inventory, or give one of those"
        )
    bar = tqdm(range(len(records)), desc="records", unit=" utterances", disable=not progress)
    wanted, train = [], []
    for utterance in map(records.__getitem__, bar):
        if inventory.sha256 in utterance.units:
            if split in ("all", utterance.split):
                wanted.append(utterance)
            if utterance.split == "train":
                train.append(utterance.units[inventory.sha256])
    if not wanted:
        raise ValueError(
            f"{records.folder} has no utterance with these units in split {split!r}; choose another split, or prepare "
            "the data with `heldout` above 0"
        )
    return wanted, train


def _count(
    utterances: Sequence[Utterance],
    inventory: UnitInventory,
    frame_centre: float | None,
    phones_of: Callable[[Utterance], tuple[Word, ...]],
    source: str,
    progress: bool,
) -> tuple[np.ndarray, list[str], dict]:
    """Frames by phone and unit [P, K], the names of the phones, and how many utterances had phones."""
    labels, ids, failures = [], [], {}
    for utterance in tqdm(utterances, desc="phones", unit=" utterances", disable=not progress):
        units = utterance.units[inventory.sha256]
        try:
            intervals = phones_of(utterance)
        except ValueError as error:  # AlignmentError, or a TextGrid that cannot be read
            failures[utterance.id] = str(error)
            continue
        ids.append(units.expand())
        labels.append(phone_labels(intervals, len(ids[-1]), units.frame_rate, frame_centre))
    for name, why in list(failures.items())[:5]:
        log.warning("%s: no phones (%s)", name, why)
    if not labels:
        first, why = next(iter(failures.items()))
        raise ValueError(
            f"none of {len(utterances)} utterances has phones from {source} (the first, {first}: {why}); install "
            "pocketsphinx for English speech with text, or give TextGrid files with a tier 'phones' by --phones=FOLDER"
        )
    names, phone_N = np.unique(np.concatenate(labels), return_inverse=True)
    counts_PxK = np.zeros((len(names), inventory.size), np.int64)
    np.add.at(counts_PxK, (phone_N, np.concatenate(ids)), 1)
    return counts_PxK, names.tolist(), dict(source=source, labelled=len(labels), failed=len(failures))


def _clips(utterances: Sequence[Utterance], n: int) -> list[np.ndarray]:
    audible = [utterance for utterance in utterances if utterance.audio]
    return [decode_flac(audible[i].audio) for i in np.random.default_rng(0).permutation(len(audible))[:n]]


def _changes(clips: Sequence[np.ndarray], inventory: UnitInventory, progress: bool) -> dict[str, float] | None:
    if not clips:
        return None
    bar = tqdm(CHANGES.items(), desc="unit edit distance", unit=" changes", disable=not progress)
    return {name: unit_edit_distance(inventory.encode_batch, clips, change) for name, change in bar} | {
        "clips": len(clips)
    }


def _precision(clips: Sequence[np.ndarray], inventory: UnitInventory) -> dict | None:
    if not clips or not inventory.weights_sha256:
        return None
    other = {"float32": "bfloat16", "bfloat16": "float32"}[inventory.dtype]
    pairs = [
        np.concatenate([units.expand() for units in made.encode_batch(clips)])
        for made in (inventory, dataclasses.replace(inventory, dtype=other))
    ]
    return {f"equal in {other}": float(np.mean(pairs[0] == pairs[1])), "frames": len(pairs[0])}


def _bpe(
    train: Sequence[UnitSequence], sequences: Sequence[UnitSequence], inventory: UnitInventory, size: int, out: Path
) -> dict:
    bpe = train_unit_bpe([units.ids for units in train], inventory.size, size, inventory.sha256)
    bpe.save(out / "bpe.json")
    found, seconds = bpe.compression([units.ids for units in sequences]), sum(units.seconds for units in sequences)
    rate = found.tokens / seconds
    return dict(
        size=bpe.size,
        units_per_token=found.ratio,
        usage=found.usage,
        tokens_per_second=rate,
        bitrate=rate * float(np.log2(bpe.size)),
    )


def _abx(
    items: Sequence,
    utterances: Sequence[Utterance],
    inventory: UnitInventory,
    encoder: Encoder | None,
    progress: bool,
) -> dict:
    wanted = {item.file for item in items}
    files: dict[str, list[Utterance]] = {}
    for utterance in utterances:
        for name in {utterance.id, Path(utterance.id).name} & wanted:
            files.setdefault(name, []).append(utterance)
    found = {name: same[0] for name, same in files.items() if len(same) == 1}
    if not found:
        raise ValueError(
            f"none of the {len(wanted)} files of the ABX items (such as {min(wanted)!r}) is an utterance of the "
            f"records (such as {utterances[0].id!r}); give items of this corpus, or --split=all"
        )
    frames = {"one-hot units": {name: u.units[inventory.sha256].expand() for name, u in found.items()}}
    if inventory.centroids is not None:
        ids = frames["one-hot units"]
        frames["centroids"] = {name: inventory.centroids[ids_T] for name, ids_T in ids.items()}
    if encoder and all(utterance.audio for utterance in found.values()):
        bar = tqdm(found.items(), desc="features", unit=" utterances", disable=not progress)
        frames["features"] = {name: encoder.encode([decode_flac(utterance.audio)])[0] for name, utterance in bar}
    errors = {
        name: abx_errors(items, by_file, inventory.frame_rate, progress=progress) for name, by_file in frames.items()
    }
    return errors | {"files": len(found), "files_missing": len(wanted) - len(found)}
