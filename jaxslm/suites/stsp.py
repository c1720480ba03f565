"""Sentiment preservation of predictions that are there (SpiRit-LM's STSP files), a row a direction such as speech to
text."""

import argparse
import dataclasses
from pathlib import Path

from jaxslm.evaluation.results import write_result
from jaxslm.evaluation.stsp import SENTIMENTS, preservation


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--direction",
        nargs=3,
        action="append",
        required=True,
        metavar=("NAME", "REFERENCES", "PREDICTIONS"),
        help='files of JSON lines {"id", "emotion" or "sentiment"} and {"id", "pred"}; can be given many times',
    )
    parser.add_argument("--judge", default="not named", help="classifier that made the predictions, for the table")
    parser.add_argument("--out", type=Path, required=True, help="folder for stsp.json")


def run(flags: argparse.Namespace) -> str:
    table = {}
    for name, references, predictions in flags.direction:
        if name in table:
            raise ValueError(f"two of --direction are called '{name}': give each another name")
        found = dataclasses.asdict(preservation(Path(references), Path(predictions)))
        table[name] = dict(references_file=references, predictions_file=predictions) | found
    chance = 1 / len(SENTIMENTS)
    facts = dict(suite="stsp", judge=flags.judge, normalizer=None, ceiling=None, chance=chance)
    facts |= dict(no_ceiling="the classifier's own accuracy on the references is not in these files")
    write_result(flags.out, "stsp", facts | dict(directions=table))
    lines = []
    for name, found in table.items():
        by = ", ".join(f"{sentiment} {value:.3f}" for sentiment, value in found["by_sentiment"].items())
        lines.append(f"{name}: accuracy {found['accuracy']:.3f} of {found['references']} ({by})")
    return "\n".join([*lines, f"judge: {flags.judge}; chance {chance:.3f}; {facts['no_ceiling']}"])
