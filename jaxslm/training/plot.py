"""loss.png: the curves a person looks at."""

import logging
from pathlib import Path

import matplotlib.ticker
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from jaxslm.training.metrics import HELDOUT, Row, is_heldout, read_rows

log = logging.getLogger(__name__)


def plot_losses(metrics: Path, picture: Path, title: str = "") -> None:
    """Draws metrics.jsonl, a colour an objective: thin lines each step, thick their running mean, dots held-out."""
    rows = read_rows(metrics)
    train = [row for row in rows if not is_heldout(row)]
    heldout = [row for row in rows if is_heldout(row)]
    if not train:
        return
    figure = Figure(figsize=(9, 5.5), layout="constrained")
    axes = figure.subplots()
    objectives = [name for name in train[-1] if name.startswith("loss/")]
    for i, name in enumerate(["loss", *(objectives if len(objectives) > 1 else [])]):
        color = "black" if name == "loss" else f"C{i - 1}"
        steps, values = _series(train, name)
        last = f"{values[-1]:.3f}" if len(values) else "none"
        if len(steps):
            axes.plot(steps, values, color=color, alpha=0.18, linewidth=0.7)
            smooth = _running_mean(values, max(len(values) // 40, 1))
            last = f"{smooth[-1]:.3f}"
            axes.plot(steps, smooth, color=color, linewidth=2.2 if name == "loss" else 1.4)
        held_steps, held_values = _series(heldout, HELDOUT + name)
        label = "all" if name == "loss" else name.removeprefix("loss/")
        label += f"  {last}" + (f", held-out {held_values[-1]:.3f}" if len(held_values) else "")
        axes.plot(held_steps, held_values, "o--", color=color, markersize=6, linewidth=0.9, markeredgecolor="white")
        axes.plot([], [], color=color, linewidth=2, label=label)
    _dress(axes, title)
    FigureCanvasAgg(figure)
    try:
        figure.savefig(picture, dpi=120)
    except OSError as error:
        log.warning("%s was not drawn: %s", picture, error)


def _dress(axes, title: str) -> None:
    axes.set_xlabel("step")
    axes.set_ylabel("loss (nats a token)")
    axes.set_title(title)
    axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(integer=True))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(title="lines: training, dots: held-out", alignment="left", frameon=False)


def _series(rows: list[Row], name: str) -> tuple[np.ndarray, np.ndarray]:
    points = [(row["step"], row[name]) for row in rows if row.get(name) is not None]
    return tuple(np.array(points, dtype=float).reshape(-1, 2).T)


def _running_mean(values: np.ndarray, width: int) -> np.ndarray:
    """Mean of the last `width` values (fewer at the beginning)."""
    sums = np.cumsum(np.concatenate([[0.0], values]))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - width, 0)
    return (sums[ends] - sums[starts]) / (ends - starts)
