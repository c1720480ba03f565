"""Measures what was made: python launch/evaluate.py --suite=units --records=FOLDER --out=DIR

| suite       | measures                                                                                       |
|-------------|------------------------------------------------------------------------------------------------|
| units       | phone purity, PNMI, usage, bitrate, edit distance under noise, speed and pitch, ABX of units   |
| codec       | SI-SDR, mel and STFT distance, PESQ, STOI, ViSQOL by levels, bitrates, usage of codes, speed   |
| resynthesis | the same distances, likeness of voices and speed of acoustic stages and vocoders, from units   |

The numbers are printed and written to DIR. `--suite=NAME --help` lists the options of a suite.
"""

import argparse
import dataclasses
import logging
import os
import sys
from pathlib import Path

from jaxslm.commands import add_unmasking, unmasking_of
from jaxslm.configure import read_config
from jaxslm.data.prepare import prepared_folder
from jaxslm.data.records import MANIFEST, Records
from jaxslm.data.report import Report
from jaxslm.evaluation.codec import evaluate_codec, read_recordings
from jaxslm.evaluation.codec import summary as codec_summary
from jaxslm.evaluation.codec_metrics import METRICS, choose_metrics
from jaxslm.evaluation.resynthesis import evaluate_resynthesis, read_spoken
from jaxslm.evaluation.resynthesis import summary as resynthesis_summary
from jaxslm.evaluation.units import evaluate_units, summary
from jaxslm.tasks.base import UNITS
from jaxslm.tasks.codec import CODEC_FILE
from jaxslm.tasks.codec_files import open_codec
from jaxslm.tasks.voices import is_masked, open_voice
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


def codec(parser: argparse.ArgumentParser) -> str:
    parser.add_argument("--codec", type=Path, required=True, help="workdir of a run, or folder of Hugging Face weights")
    data = parser.add_mutually_exclusive_group()
    data.add_argument("--records", type=Path, help="folder of prepared records; default: those of the run")
    data.add_argument("--audio", type=Path, help="folder of audio files")
    parser.add_argument("--split", default="heldout", help="of records: train, heldout or all; default: heldout")
    parser.add_argument("--out", type=Path, required=True, help="folder for codec.json, sound, lists and index.html")
    parser.add_argument("--levels", help="such as 1,2,4,8; default: powers of two, and all")
    parser.add_argument("--metrics", default="", help=f"of {','.join(METRICS)}; default: those installed")
    parser.add_argument("--max_seconds", type=float, default=60.0, help="longer clips are left out; default: 60")
    parser.add_argument("--shown", type=int, default=8, help="clips on the page; default: 8")
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count(), help="processes that measure; default: a core each"
    )
    flags = parser.parse_args()
    levels = [int(n) for n in flags.levels.split(",")] if flags.levels else ()
    metrics = [name for name in flags.metrics.split(",") if name]
    choose_metrics(metrics)
    opened, name = open_codec(flags.codec)
    if not (flags.audio or flags.records or (flags.codec / CODEC_FILE).is_file()):
        raise ValueError(f"{flags.codec} is no run that has data: name clips by --records=FOLDER or --audio=FOLDER")
    data = flags.audio or flags.records or records_of_run(flags.codec)
    report = Report()
    recordings = read_recordings(
        [data], opened.config.sample_rate, report, split=flags.split, max_seconds=flags.max_seconds
    )
    options = dict(levels=levels, metrics=metrics, shown=flags.shown, workers=flags.workers)
    result = evaluate_codec(opened, name, recordings, flags.out, curves=flags.codec / "metrics.jsonl", **options)
    report.save(flags.out / "report.jsonl")
    left_out = f"\n{report.summary()}" if report.count() else ""
    return f"{codec_summary(result)}{left_out}\nto listen: {flags.out / 'index.html'}"


def resynthesis(parser: argparse.ArgumentParser) -> str:
    parser.add_argument(
        "--acoustic",
        action="append",
        required=True,
        metavar="NAME=WORKDIR",
        help="what speaks, for two stages NAME=COARSE,FINE; can be given many times",
    )
    parser.add_argument("--records", type=Path, help="folder of prepared records; default: those of the first run")
    parser.add_argument("--split", default="heldout", choices=("train", "heldout"), help="default: heldout")
    parser.add_argument("--prefix", default="", help="that ids begin with, such as a source's name")
    parser.add_argument("--clips", type=int, default=0, help="the first so many; default: all")
    parser.add_argument(
        "--voice", help="recording that all are to sound like, or a vocoder's speaker; default: their own"
    )
    add_unmasking(parser)
    parser.add_argument("--metrics", default="", help=f"of {','.join(METRICS)}; default: those installed")
    parser.add_argument("--shown", type=int, default=8, help="clips on the page; default: 8")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="folder for resynthesis.json, sound, lists, index.html")
    flags = parser.parse_args()
    runs = named_runs(flags.acoustic)
    metrics = [name for name in flags.metrics.split(",") if name]
    choose_metrics(metrics)
    unmasking = unmasking_of(flags)
    if unmasking and not any(map(is_masked, runs.values())):
        raise ValueError(f"none of these is a masked stage, and has no {' and no '.join(unmasking)}: leave it out")
    voices = {name: open_voice(run, unmasking if is_masked(run) else {}) for name, run in runs.items()}
    places = [Path(run.split(",")[0]).expanduser() for run in runs.values()]
    trained = [place for place in places if (place / "checkpoints").is_dir()]
    if not (flags.records or trained):
        raise ValueError("none of these is a run that has data: name prepared clips by --records=FOLDER")
    records = flags.records or records_of_run(trained[0])
    clips = read_spoken(records, split=flags.split, prefix=flags.prefix, most=flags.clips)
    options = dict(voice=flags.voice, metrics=metrics, shown=flags.shown, seed=flags.seed)
    result = evaluate_resynthesis(voices, clips, flags.out, **options)
    return f"{resynthesis_summary(result)}\nto listen: {flags.out / 'index.html'}"


def named_runs(texts: list[str]) -> dict[str, str]:
    """{NAME: WORKDIR} of NAME=WORKDIR, or of a folder, which goes by its own name."""
    runs = {}
    for text in texts:
        name, sign, run = text.partition("=")
        if not sign or Path(text).exists():
            name, run = Path(text).name, text
        if not sign and "," in text:
            raise ValueError(f"--acoustic={text}: give the two stages a name, --acoustic=NAME={text}")
        if name in runs:
            raise ValueError(f"two of --acoustic are called '{name}': name them by --acoustic=NAME=WORKDIR")
        runs[name] = run
    return runs


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


SUITES = {"units": units, "codec": codec, "resynthesis": resynthesis}


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
    except (ValueError, OSError, RuntimeError, FloatingPointError) as error:
        parser.exit(2, f"{error}\n")


if __name__ == "__main__":
    main()
