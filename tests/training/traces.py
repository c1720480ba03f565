"""Reads what XProf traces hold."""

import gzip
import json
import re
from pathlib import Path


def events_of(trace: Path) -> list[dict]:
    return [event for event in json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"] if event.get("ph") == "X"]


def steps_of(trace: Path) -> list[int]:
    """Numbers of the steps that are marked in a .trace.json.gz."""
    return sorted(int(event["args"]["step_num"]) for event in events_of(trace) if event["name"] == "train")


def runs_of(trace: Path, program: str) -> int:
    """How often `program` was run by the devices."""
    args = [event.get("args", {}) for event in events_of(trace)]
    return len({arg["run_id"] for arg in args if arg.get("hlo_module") == program})


def scopes_of(xplane: Path, program: str) -> set[str]:
    """Names of the operations of `program`, whose HLO lies in an .xplane.pb, with the scopes they were made in."""
    prefix = program.replace("jit_", "jit(", 1) + ")/"
    text = re.findall(rb"[\w()/.,-]{4,}", xplane.read_bytes())
    return {word[word.index(prefix) :] for word in (piece.decode() for piece in text) if prefix in word}
