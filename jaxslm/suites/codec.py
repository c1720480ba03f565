"""What a codec keeps of sound, by levels, and how fast."""

import argparse
import os
from pathlib import Path

from jaxslm.data.report import Report
from jaxslm.evaluation.codec import evaluate_codec, read_recordings
from jaxslm.evaluation.codec import summary as codec_summary
from jaxslm.evaluation.codec_metrics import METRICS, choose_metrics
from jaxslm.suites.runs import records_of_run
from jaxslm.tasks.codec import CODEC_FILE
from jaxslm.tasks.codec_files import open_codec


def add_arguments(parser: argparse.ArgumentParser) -> None:
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


def run(flags: argparse.Namespace) -> str:
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
