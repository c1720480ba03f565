"""Scores of a folder of recordings by a judge of quality, such as DNSMOS or UTMOS."""

import argparse
import statistics
from pathlib import Path

from jaxslm.evaluation.judges import LIST, SCORE, ask
from jaxslm.evaluation.results import write_result


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--audio", type=Path, required=True, help="folder of .wav files")
    parser.add_argument("--judge", required=True, metavar="NAME=COMMAND", help=f"with {LIST}: see evaluation/judges.py")
    parser.add_argument("--ceiling", type=Path, help="folder of recordings to score beside them")
    parser.add_argument("--out", type=Path, required=True, help="folder for quality.json")


def run(flags: argparse.Namespace) -> str:
    name, sign, command = flags.judge.partition("=")
    if not sign:
        raise ValueError(f"--judge={flags.judge}: give it a name, --judge=NAME=COMMAND")
    table = {}
    for folder in (flags.audio, *([flags.ceiling] if flags.ceiling else [])):
        files = sorted(path.resolve() for path in folder.rglob("*.wav"))
        if not files:
            raise ValueError(f"{folder} has no .wav files")
        scores = ask(command, files, SCORE)
        table[str(folder)] = dict(
            mean=statistics.mean(scores), files=len(files), scores=dict(zip(map(str, files), scores, strict=True))
        )
    facts = dict(metric=name, judge=command, normalizer=None, ceiling=str(flags.ceiling) if flags.ceiling else None)
    facts |= dict(no_ceiling="" if flags.ceiling else "no folder was named by --ceiling")
    whole = dict(suite="quality", **facts, folders=table)
    write_result(flags.out, "quality", whole)
    lines = [f"{folder}: {name} {found['mean']:.3f} of {found['files']} files" for folder, found in table.items()]
    return "\n".join([*lines, f"judge: {command}; ceiling: {facts['ceiling'] or facts['no_ceiling']}"])
