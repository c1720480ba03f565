"""What the workdir of a run says of it, however much of that is there: the matter of launch/report.py."""

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jaxslm.training.goodput import KINDS
from jaxslm.training.metrics import HELDOUT, Row, read_rows
from jaxslm.training.progress import mean_losses
from jaxslm.training.workdir import HARDWARE_FILE, PROVENANCE_FILE, flat, read_hardware

METRICS, CONFIG, SAMPLES, EVALUATIONS = "metrics.jsonl", "config.json", "samples", "evaluations"
SUITE = f"{HELDOUT}suite/"
LOST = {  # of a suite, what has no part in its accuracies
    "not_a_number": "items of {suite} have no score",
    "left_out": "choices, rows or recordings of {suite} are left out",
}
CHANCE = "chance"  # of a suite: what guessing gets
_BESIDE = (CHANCE, "choices", *LOST)  # figures of a suite that are no accuracies
Point = tuple[int, float]  # of a step
Config = Mapping[str, Any]


@dataclass(frozen=True)
class Run:
    """A run as its workdir tells it.

    Attributes:
      rows: of metrics.jsonl, in the order of the file, their finite numbers alone.
      config: flat, {"model.d_model": 256}.
      provenance: command, commit and versions of its last start.
      hardware: what each start ran on.
      evaluations: results of launch/evaluate.py by file, each with a "suite".
      missing: what is not there or cannot be read, in words.
    """

    name: str
    folder: Path
    rows: Sequence[Row]
    config: Config = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    hardware: Sequence[Mapping[str, Any]] = ()
    evaluations: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    missing: Sequence[str] = ()

    def points(self, name: str) -> list[Point]:
        return sorted((row["step"], row[name]) for row in self.rows if name in row)

    @property
    def names(self) -> list[str]:
        """Of all figures, in the order in which they come up."""
        return [name for name in dict.fromkeys(name for row in self.rows for name in row) if name != "step"]

    @property
    def losses(self) -> list[str]:
        """ "loss", and "loss/<objective>" where there are several."""
        found = dict.fromkeys(name.removeprefix(HELDOUT) for name in self.names)
        each = sorted(name for name in found if name.startswith("loss/"))
        return [*(["loss"] if "loss" in found else []), *(each if len(each) > 1 or "loss" not in found else [])]

    @property
    def suites(self) -> dict[tuple[str, str], list[str]]:
        """(suite, normalisation) -> its groups."""
        found: dict[tuple[str, str], list[str]] = {}
        for name in self.names:
            parts = name.removeprefix(SUITE).split("/")
            if name.startswith(SUITE) and len(parts) > 1 and parts[-1] not in _BESIDE:
                found.setdefault((parts[0], parts[-1]), []).append("/".join(parts[1:-1]) or "all")
        return found

    def chance(self, suite: str) -> float:
        """What guessing gets in a suite; of runs that did not write it down, that of pairs."""
        points = self.points(f"{SUITE}{suite}/{CHANCE}")
        return points[-1][1] if points else 0.5

    def suite_points(self, suite: str, normalisation: str, group: str) -> list[Point]:
        return self.points(f"{SUITE}{suite}/{group}/{normalisation}") or self.points(f"{SUITE}{suite}/{normalisation}")

    @property
    def speeds(self) -> list[str]:
        """ "tokens_per_s" or the like, and "mfu"."""
        return sorted((name for name in self.names if name.endswith("_per_s") or name == "mfu"), key=len, reverse=True)

    def mean_losses(self) -> dict[str, float]:
        """Training losses over the last `log_every` steps, as the progress bar shows them."""
        recent = [row for row in self.rows if "loss" in row][-self.log_every :]
        return mean_losses(recent) if recent else {}

    @property
    def log_every(self) -> int:
        every = self.config.get("log_every")
        return every if isinstance(every, int) and every > 0 else 10

    @property
    def last_step(self) -> int:
        return max((row["step"] for row in self.rows), default=0)

    def seconds(self) -> dict[str, float]:
        """Wall time by kind over all starts. Each start counts anew, so that a sum that falls begins another; what a
        killed one did after its last checkpoint is in no row."""
        names = [f"seconds/{kind}" for kind in KINDS]
        total, last = dict.fromkeys(KINDS, 0.0), dict.fromkeys(KINDS, 0.0)
        for row in self.rows:
            if names[0] not in row:
                continue
            now = {kind: row.get(name, 0.0) for kind, name in zip(KINDS, names, strict=True)}
            if sum(now.values()) < sum(last.values()):
                total = {kind: total[kind] + last[kind] for kind in KINDS}
            last = now
        return {kind: total[kind] + last[kind] for kind in KINDS} if any(last.values()) else {}


def read_run(folder: Path, name: str = "") -> Run:
    """Raises ValueError if there is no such folder, or it holds neither a config.json nor a metrics.jsonl."""
    folder = folder.expanduser().absolute()
    if not folder.is_dir():
        raise ValueError(f"--workdir={folder}: there is no such folder. Name the workdir of a run.")
    if not any((folder / file).is_file() for file in (METRICS, CONFIG)):
        raise ValueError(
            f"--workdir={folder} is not the workdir of a run: it has no {CONFIG} and no {METRICS}. Train first, or "
            "name another."
        )
    missing: list[str] = []
    rows = _rows(folder / METRICS, missing)
    config, provenance = (_read(folder / file, missing) or {} for file in (CONFIG, PROVENANCE_FILE))
    hardware = read_hardware(folder)
    if not hardware:
        missing.append(f"{HARDWARE_FILE}: not there, so that nothing is known of the devices")
    evaluations = {}
    for path in sorted((folder / EVALUATIONS).rglob("*.json")):
        result = _read(path, missing)
        if result and isinstance(result.get("suite"), str):
            evaluations[path.relative_to(folder / EVALUATIONS).as_posix()] = result
    config = dict(flat(config)) if config else {}
    return Run(name or folder.name, folder, rows, config, provenance, hardware, evaluations, missing)


def read_runs(folders: Iterable[Path]) -> list[Run]:
    """Runs under names that tell them apart: those of their folders, with as much before them as that takes."""
    folders = [folder.expanduser().absolute() for folder in folders]
    if double := {folder for folder in folders if folders.count(folder) > 1}:
        raise ValueError(f"--workdir={min(double)} is given twice: name each run once.")
    for depth in range(1, max(len(folder.parts) for folder in folders) + 1):
        names = [os.path.join(*folder.parts[-depth:]) for folder in folders]
        if len(set(names)) == len(names):
            break
    return [read_run(folder, name) for folder, name in zip(folders, names, strict=True)]


def _rows(path: Path, missing: list[str]) -> list[Row]:
    if not path.is_file():
        missing.append(f"{METRICS}: not there yet; the first rows come with the first log_every steps")
        return []
    found = read_rows(path)
    lines = sum(1 for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip())
    if lines > len(found):
        missing.append(f"{METRICS}: {lines - len(found)} of {lines} lines are not whole rows, and are passed over")
    rows, lost = [], {}
    for row in found:
        rows.append({"step": row["step"]} | {name: value for name, value in row.items() if is_number(value)})
        # a speed is known from the second step of a start on, and its device may be in no table
        for name in row.keys() - rows[-1].keys():
            if not name.endswith("_per_s") and name != "mfu":
                lost[name] = lost.get(name, 0) + 1
    if not rows:
        missing.append(f"{METRICS}: it has no rows yet")
    missing += [f"{METRICS}: {name} is no finite number in {n} rows" for name, n in sorted(lost.items())]
    return rows


def is_number(value: Any) -> bool:
    """Whether a value out of JSON is a finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond all floats
        return False


def _read(path: Path, missing: list[str]) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        missing.append(f"{path.name}: not there")
    except (OSError, ValueError, RecursionError) as error:
        missing.append(f"{path.name}: cannot be read ({str(error).splitlines()[0]})")
    else:
        if isinstance(content, dict):
            return content
        missing.append(f"{path.name}: holds no JSON object")
    return None
