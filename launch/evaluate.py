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
        folder = prepare(data_config, Path(data_config.cache).expanduser()).folder
    else:
        folder = flags.records
    options = {name: getattr(flags, name) for name in ("split", "phones", "items", "changed_clips")}
    inventory = UnitInventory.load(flags.inventory or folder / "inventory")
    return summary(evaluate_units(Records(folder), inventory, flags.out, **options))


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
