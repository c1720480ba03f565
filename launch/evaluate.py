"""Measures what was made: python launch/evaluate.py --suite=units --records=FOLDER --out=DIR

| suite | measures                                                                                       |
|-------|------------------------------------------------------------------------------------------------|
| units | phone purity, PNMI, usage, bitrate, edit distance under noise, speed and pitch, ABX of units   |

The numbers are printed and written to DIR. `--suite=NAME --help` lists the options of a suite.
"""

import argparse
import dataclasses
import logging
import sys
from pathlib import Path

from jaxslm.configure import read_config
from jaxslm.data.prepare import prepared_folder
from jaxslm.data.records import MANIFEST, Records
from jaxslm.evaluation.units import evaluate_units, summary
from jaxslm.tasks.base import UNITS
from jaxslm.units.inventory import UnitInventory


def units(parser: argparse.ArgumentParser) -> str:
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
    flags = parser.parse_args()
    if flags.workdir:
        folder, beside = records_of_run(flags.workdir), flags.workdir / UNITS
    else:
        folder, beside = flags.records, None
    inventory = UnitInventory.load(flags.inventory or beside or inventory_folder(folder))
    if flags.encoder:
        inventory = dataclasses.replace(inventory, encoder_folder=flags.encoder)
    options = {name: getattr(flags, name) for name in ("split", "phones", "items", "changed_clips", "bpe_tokens")}
    return summary(evaluate_units(Records(folder), inventory, flags.out, **options))


def records_of_run(workdir: Path) -> Path:
    data_config = read_config(workdir).data
    folder = prepared_folder(data_config, Path(data_config.cache).expanduser())
    if not (folder / MANIFEST).is_file():
        raise ValueError(
            f"the data of {workdir} are not in {folder}; name a folder of the same records by --records=FOLDER, or "
            "prepare them again by launch/prepare.py"
        )
    return folder


def inventory_folder(records: Path) -> Path:
    """Where the only inventory of the records lies, beside them or with its units."""
    if not (records / MANIFEST).is_file():
        raise ValueError(f"{records} holds no prepared records; name a folder that launch/prepare.py wrote")
    found = sorted(path.parent for pattern in ("", "*/") for path in records.glob(f"{pattern}inventory/inventory.json"))
    if len(found) != 1:
        listed = ", ".join(map(str, found)) or "none"
        raise ValueError(f"{records}: the unit inventories there are {listed}; name one by --inventory=FOLDER")
    return found[0]


SUITES = {"units": units}


def main() -> None:
    logging.basicConfig(format="%(message)s")
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, add_help=False
    )
    parser.add_argument("--suite", choices=SUITES, required=True)
    if len(sys.argv) < 2 or sys.argv[1:] in (["-h"], ["--help"]):
        parser.print_help()
        return
    suite = parser.parse_known_args()[0].suite
    parser.add_argument("--help", action="help", help="show this message and exit")
    try:
        print(SUITES[suite](parser))
    except (ValueError, OSError, RuntimeError) as error:
        parser.exit(2, f"{error}\n")


if __name__ == "__main__":
    main()
