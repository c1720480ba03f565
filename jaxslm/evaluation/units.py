"""The suite "units": what the units of a folder of records are worth.

Shape letters: T frames, P phones, K units.
"""

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
from jaxslm.units.encoders import load_encoder
from jaxslm.units.inventory import UnitInventory
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
    progress: bool = True,
) -> dict:
    """Measures the units in the records; writes units.json and units.png to `out` and returns what units.json holds.

    Sections: "units" (usage and bitrates), "phones" (purity and PNMI, silence counted as a phone, as HuBERT does) and
    "phones_without_silence", "unit_edit_distance" (percent, by change), "abx" (errors of features, centroids and
    one-hot units).

    Args:
      split: "train", "heldout" or "all".
      phones: see `phones.load_phones`.
      items: an ABX item file; its files are utterance ids, or their last parts where these are unique.
      changed_clips: clips, drawn at random, for the unit edit distance; 0 leaves it out.
    Raises:
      ValueError: records without these units, no utterance in the split, none whose phones are found, or a wrong item
        file.
    """
    phones_of, abx_items = load_phones(phones), read_items(items) if items else None  # wrong ones are known at once
    utterances = _utterances(records, inventory, split, progress)
    sequences = [utterance.units[inventory.sha256] for utterance in utterances]
    result = dict(
        inventory=dict(name=inventory.name, sha256=inventory.sha256),
        records=dict(folder=str(records.folder), split=split, utterances=len(utterances)),
        units=unit_metrics(sequences, inventory.size),
    )
    counts_PxK, names, report = _count(utterances, inventory, phones_of, phones, progress)
    spoken = [i for i, name in enumerate(names) if name != SILENCE]
    result |= dict(
        phones=phone_unit_metrics(counts_PxK),
        phones_without_silence=phone_unit_metrics(counts_PxK[spoken]),
        phone_labels=report,
    )
    result["unit_edit_distance"] = _changes(utterances, inventory, changed_clips, progress)
    result["abx"] = _abx(abx_items, utterances, inventory, progress) if abx_items else None
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    (out / "units.json").write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    title = f"{Path(inventory.name).name}, {split}: PNMI {result['phones']['pnmi']:.3f}"
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


def _utterances(records: Records, inventory: UnitInventory, split: str, progress: bool) -> list[Utterance]:
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
    wanted = [
        utterance
        for utterance in map(records.__getitem__, bar)
        if split in ("all", utterance.split) and inventory.sha256 in utterance.units
    ]
    if not wanted:
        raise ValueError(
            f"{records.folder} has no utterance with these units in split {split!r}; choose another split, or prepare "
            "the data with `heldout` above 0"
        )
    return wanted


def _count(
    utterances: Sequence[Utterance],
    inventory: UnitInventory,
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
        labels.append(phone_labels(intervals, len(ids[-1]), units.frame_rate))
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


def _changes(
    utterances: Sequence[Utterance], inventory: UnitInventory, n_clips: int, progress: bool
) -> dict[str, float] | None:
    audible = [utterance for utterance in utterances if utterance.audio]
    if inventory.precomputed or not audible or not n_clips:
        return None
    chosen = np.random.default_rng(0).permutation(len(audible))[:n_clips]
    clips = [decode_flac(audible[i].audio) for i in chosen]
    bar = tqdm(CHANGES.items(), desc="unit edit distance", unit=" changes", disable=not progress)
    return {name: unit_edit_distance(inventory.encode_batch, clips, change) for name, change in bar} | {
        "clips": len(clips)
    }


def _abx(items: Sequence, utterances: Sequence[Utterance], inventory: UnitInventory, progress: bool) -> dict:
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
    if not inventory.precomputed and all(utterance.audio for utterance in found.values()):
        encoder = load_encoder(inventory.encoder_folder or inventory.encoder, inventory.layer)
        bar = tqdm(found.items(), desc="features", unit=" utterances", disable=not progress)
        frames["features"] = {name: encoder(decode_flac(utterance.audio)) for name, utterance in bar}
    errors = {
        name: abx_errors(items, by_file, inventory.frame_rate, progress=progress) for name, by_file in frames.items()
    }
    return errors | {"files": len(found), "files_missing": len(wanted) - len(found)}
