"""What acoustic stages and vocoders make of units, beside each other."""

import argparse
from pathlib import Path

from jaxslm.commands import add_unmasking, unmasking_of
from jaxslm.evaluation.codec_metrics import METRICS, choose_metrics
from jaxslm.evaluation.resynthesis import evaluate_resynthesis, read_spoken
from jaxslm.evaluation.resynthesis import summary as resynthesis_summary
from jaxslm.suites.runs import records_of_run
from jaxslm.tasks.voices import is_masked, open_voice


def add_arguments(parser: argparse.ArgumentParser) -> None:
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


def run(flags: argparse.Namespace) -> str:
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
