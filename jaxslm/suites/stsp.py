"""Sentiment preservation of predictions that are there (SpiRit-LM's STSP files)."""

import argparse
import dataclasses
import json
from pathlib import Path

from jaxslm.evaluation.stsp import preservation


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--references", type=Path, required=True, help='JSON lines {"id", "emotion" or "sentiment"}')
    parser.add_argument("--predictions", type=Path, required=True, help='JSON lines {"id", "pred"}')
    parser.add_argument("--judge", default="not named", help="classifier that made the predictions, for the table")
    parser.add_argument("--out", type=Path, required=True, help="folder for stsp.json")


def run(flags: argparse.Namespace) -> str:
    found = preservation(flags.references, flags.predictions)
    flags.out.mkdir(parents=True, exist_ok=True)
    facts = dict(suite="stsp", judge=flags.judge, normalizer=None, ceiling="chance: .333")
    whole = facts | dict(references_file=str(flags.references)) | dataclasses.asdict(found)
    (flags.out / "stsp.json").write_text(json.dumps(whole, indent=1), encoding="utf-8")
    by = ", ".join(f"{name} {value:.3f}" for name, value in found.by_sentiment.items())
    return f"accuracy {found.accuracy:.3f} of {found.references} ({by}); judge {flags.judge}; chance .333"
