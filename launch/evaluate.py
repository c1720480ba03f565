"""Measures what was made: python launch/evaluate.py --suite=units --records=FOLDER --out=DIR

| suite | measures                                                                                       |
|-------|------------------------------------------------------------------------------------------------|
| units | phone purity, PNMI, usage, bitrate, edit distance under noise, speed and pitch, ABX of units   |

The numbers are printed and written to DIR. `--suite=NAME --help` lists the options of a suite.
"""

import argparse
import logging
import sys
from pathlib import Path

from jaxslm.configure import read_config
from jaxslm.data.prepare import prepare
from jaxslm.data.records import Records
from jaxslm.evaluation.units import evaluate_units, summary
from jaxslm.units.inventory import UnitInventory


def units(parser: argparse.ArgumentParser) -> str:
    data = parser.add_mutually_exclusive_group(required=True)
    data.add_argument("--records", type=Path, help="folder of prepared records")
    data.add_argument("--workdir", type=Path, help="of a training run: the records it was trained on")
    parser.add_argument("--inventory", type=Path, help="folder of the unit inventory; default: that of the records")
    parser.add_argument("--out", type=Path, required=True, help="folder for units.json and units.png")
    parser.add_argument("--split", default="heldout", help="train, heldout or all; default: heldout")
    parser.add_argument("--phones", default="pocketsphinx", help="pocketsphinx, or a folder of TextGrid files")
    parser.add_argument("--items", type=Path, help="ABX item file; without one ABX is left out")
    parser.add_argument("--changed_clips", type=int, default=50, help="clips for the unit edit distance; default: 50")
    flags = parser.parse_args()
    if flags.workdir:
        data_config = read_config(flags.workdir).data
        prepared = prepare(data_config, Path(data_config.cache).expanduser())
        folder, inventory = prepared.folder, prepared.inventory
    else:
        folder, inventory = flags.records, None
    if flags.inventory or inventory is None:
        inventory = UnitInventory.load(flags.inventory or inventory_folder(folder))
    options = {name: getattr(flags, name) for name in ("split", "phones", "items", "changed_clips")}
    return summary(evaluate_units(Records(folder), inventory, flags.out, **options))


def inventory_folder(records: Path) -> Path:
    """Where the only inventory of the records lies, beside them or with its units."""
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
    except (ValueError, OSError) as error:
        parser.exit(2, f"{error}\n")


if __name__ == "__main__":
    main()
