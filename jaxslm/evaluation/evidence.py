"""What arms of an experiment came to, over seeds: a table and curves, read from the runs' metrics and evaluations.

A figure of a held-out row is named as in metrics.jsonl without "heldout/". Those of an evaluation are put into the
run's last row by the path of its JSON file below `evaluations` and the path inside it, ending in a number:
"tts/spoken/wer" or, of accuracies, "storycloze/sum/mode=S".
"""

import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from jaxslm.training.metrics import HELDOUT, is_heldout, read_rows

Curves = Mapping[str, Sequence[list[dict]]]  # arm -> held-out rows of each of its seeds


def read_arms(folder: Path, arms: Sequence[str], seeds: Sequence[int]) -> Curves:
    """Held-out rows of the runs FOLDER/ARM-SEED that have any."""
    found = {}
    for arm in arms:
        runs = [run_folder(folder, arm, seed) for seed in seeds]
        found[arm] = [rows for run in runs if (rows := _rows(run))]
    return {arm: runs for arm, runs in found.items() if runs}


def seeds_of(folder: Path, arms: Sequence[str]) -> list[int]:
    """Seeds that any of the arms has a run of."""
    names = (path.name.rpartition("-") for path in folder.iterdir())
    return sorted({int(seed) for arm, _, seed in names if arm in arms and seed.isdecimal()})


def _rows(run: Path) -> list[dict]:
    rows = [row for row in read_rows(run / "metrics.jsonl") if is_heldout(row)]
    folder = run / "evaluations"
    for path in sorted(folder.rglob("*.json")) if rows else ():
        name = path.relative_to(folder).with_suffix("").as_posix()
        table = json.loads(path.read_text(encoding="utf-8"))
        rows[-1] |= {HELDOUT + key: value for key, value in _numbers(name, table.pop("accuracy", {}))}
        rows[-1] |= {HELDOUT + key: value for key, value in _numbers(name, table)}
    return rows


def _numbers(name: str, value: object) -> Iterator[tuple[str, float]]:
    if isinstance(value, dict):
        for key, inner in {"": value["value"]}.items() if "value" in value else value.items():
            yield from _numbers(f"{name}/{key}".rstrip("/"), inner)
    elif isinstance(value, int | float):
        yield name, value


def run_folder(folder: Path, arm: str, seed: int) -> Path:
    return folder / f"{arm}-{seed}"


def as_markdown(curves: Curves, figures: Mapping[str, str]) -> str:
    """A table with a row for each arm: of each figure (key of the rows -> heading) at the last evaluation, the mean
    over seeds and, of several, the lowest and the highest."""
    head = ["arm", "seeds", "step", *figures.values()]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for arm, runs in curves.items():
        last = max(rows[-1]["step"] for rows in runs)
        runs = [rows for rows in runs if rows[-1]["step"] == last]  # others are still in training
        cells = [_spread([row[-1].get(HELDOUT + name) for row in runs]) for name in figures]
        lines.append(f"| {arm} | {len(runs)} | {last} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _spread(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    lost = f", {len(values) - len(known)} missing" if len(known) < len(values) else ""
    if len(known) == 1:
        return f"{known[0]:.3f}{lost}"
    return f"{statistics.mean(known):.3f} ({min(known):.3f}-{max(known):.3f}{lost})"


def draw(curves: Curves, figures: Mapping[str, str], path: Path) -> None:
    """A picture with a panel for each figure: mean over seeds by step, and the range between lowest and highest; of
    suites, which are of pairs, with chance, one half."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    drawing, axes = pyplot.subplots(1, len(figures), figsize=(3.6 * len(figures), 3.2), squeeze=False)
    for panel, (name, heading) in zip(axes[0], figures.items(), strict=True):
        for number, (arm, runs) in enumerate(curves.items()):
            by_step: dict[int, list[float]] = {}
            for row in (row for rows in runs for row in rows):
                if row.get(HELDOUT + name) is not None:
                    by_step.setdefault(row["step"], []).append(row[HELDOUT + name])
            steps = sorted(by_step)
            panel.plot(steps, [np.mean(by_step[s]) for s in steps], color=f"C{number}", marker=".", label=arm)
            lowest, highest = ([edge(by_step[s]) for s in steps] for edge in (min, max))
            panel.fill_between(steps, lowest, highest, color=f"C{number}", alpha=0.2, linewidth=0)
        if name.startswith("suite/"):
            panel.axhline(0.5, color="gray", linewidth=0.8, linestyle=":")
            panel.set_ylim(min(0.4, panel.get_ylim()[0]), 1.02)
        panel.set_title(heading, fontsize=10)
        panel.set_xlabel("steps")
        panel.grid(alpha=0.3)
        panel.set_ylabel("accuracy" if name.startswith("suite/") else "nats a token")
    axes[0][-1].legend(fontsize=8)
    drawing.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    drawing.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    pyplot.close(drawing)
