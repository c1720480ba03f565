"""What units are worth: phones, usage, bitrate, robustness, ABX."""

import argparse
import dataclasses
from pathlib import Path

from jaxslm.data.records import MANIFEST, Records
from jaxslm.evaluation.units import evaluate_units, summary
from jaxslm.suites.runs import records_of_run
from jaxslm.tasks.base import UNITS
from jaxslm.units.inventory import UnitInventory


def add_arguments(parser: argparse.ArgumentParser) -> None:
    data = parser.add_mutually_exclusive_group(required=True)
    data.add_argument("--records", type=Path, help="folder of prepared records")
    data.add_argument("--workdir", type=Path, help="of a training run: the records it was trained on")
    parser.add_argument("--inventory", type=Path, help="folder of the unit inventory; default: that of the data")
    parser.add_argument("--encoder", help="folder of the encoder's weights; default: where they were")
    parser.add_argument("--out", type=Path, required=True, help="folder for units.json and units.png")
    parser.add_argument("--split", default="heldout", help="train, heldout or all; default: heldout")
    parser.add_argument("--phones", default="pocketsphinx", help="pocketsphinx, or a folder of TextGrid files")
    parser.add_argument("--items", type=Path, help="ABX item file; without one ABX is left out")
    parser.add_argument("--changed_clips", type=int, default=50, help="clips for the unit edit distance; default: 50")
    parser.add_argument("--bpe_tokens", type=int, default=0, help="tokens of a unit BPE to learn; default: none")


def run(flags: argparse.Namespace) -> str:
    if flags.workdir:
        folder, beside = records_of_run(flags.workdir), flags.workdir / UNITS
    else:
        folder, beside = flags.records, None
    inventory = UnitInventory.load(flags.inventory or beside or inventory_folder(folder))
    if flags.encoder:
        inventory = dataclasses.replace(inventory, encoder_folder=flags.encoder)
    options = {name: getattr(flags, name) for name in ("split", "phones", "items", "changed_clips", "bpe_tokens")}
    return summary(evaluate_units(Records(folder), inventory, flags.out, **options))


def inventory_folder(records: Path) -> Path:
    """Where the only inventory of the records lies, beside them or with its units."""
    if not (records / MANIFEST).is_file():
        raise ValueError(f"{records} holds no prepared records; name a folder that launch/prepare.py wrote")
    found = sorted(path.parent for pattern in ("", "*/") for path in records.glob(f"{pattern}inventory/inventory.json"))
    if len(found) != 1:
        listed = ", ".join(map(str, found)) or "none"
        raise ValueError(f"{records}: the unit inventories there are {listed}; name one by --inventory=FOLDER")
    return found[0]
