"""loss.png: the curves a person looks at."""

import logging
import math
import re
from pathlib import Path

import matplotlib.ticker
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from jaxslm.training.metrics import HELDOUT, Row, is_heldout, read_rows

log = logging.getLogger(__name__)


def plot_losses(metrics: Path, picture: Path, title: str = "", label: str = "loss (nats a token)") -> None:
    """Draws metrics.jsonl, a colour an objective: thin lines each step, thick their running mean, dots held-out.

    All lie in one panel measured in `label`, or if that is "" each in its own.
    """
    rows = read_rows(metrics)
    train = [row for row in rows if not is_heldout(row)]
    if not train:
        return
    objectives = [name for name in train[-1] if name.startswith("loss/")]
    names = ["loss", *(objectives if len(objectives) > 1 else [])]
    columns = 1 if label else min(3, len(names))
    n_rows = 1 if label else -(-len(names) // columns)
    size = (9, 5.5) if label else (4.5 * columns, 3.2 * n_rows)
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(n_rows, columns, squeeze=False).ravel()
    labels: dict[int, list] = {}
    for i, name in enumerate(names):
        color, panel = "black" if name == "loss" else f"C{i - 1}", 0 if label else i
        last, held = _curve(panels[panel], rows, name, color, width=2.2 if name == "loss" else 1.4, dot=6)
        text = "all" if name == "loss" else name.removeprefix("loss/")
        text += f"  {last:.3f}" + (f", held-out {held:.3f}" if math.isfinite(held) else "")
        labels.setdefault(panel, []).append(Line2D([], [], color=color, linewidth=2, label=text))
    figure.suptitle(title)
    for i, axes in enumerate(panels):
        if i in labels:
            _dress(axes, label, labels[i], "lines: training, dots: held-out" if i == 0 else "")
        else:
            axes.set_visible(False)
    FigureCanvasAgg(figure)
    try:
        figure.savefig(picture, dpi=120)
    except OSError as error:
        log.warning("%s was not drawn: %s", picture, error)


# figures of a run that are about its speed and health, not about what it learns
_ASIDE = re.compile(r"^step$|_per_s$|^tokens/|^mfu$|^goodput$|^seconds/|^skipped|^bad/|learning_rate")


def draw_panels(metrics: Path, columns: int = 4) -> Figure | None:
    """Draws each figure of metrics.jsonl in a panel of its own, those named alike but for a number ("usage/1",
    "usage/2", ...) in one; None if there is none. Thin lines each step, thick their running mean, dots held-out.
    """
    rows = read_rows(metrics)
    panels: dict[str, dict[str, None]] = {}
    for name in (name.removeprefix(HELDOUT) for row in rows for name in row):
        if not _ASIDE.search(name):
            panels.setdefault(re.sub(r"[/_]?\d+$", "", name), {})[name] = None
    if not panels:
        return None
    columns = min(columns, len(panels))
    lines = -(-len(panels) // columns)
    figure = Figure(figsize=(3.6 * columns, 2.5 * lines), layout="constrained")
    axes = list(figure.subplots(lines, columns, squeeze=False).flat)
    for panel, name in zip(axes, sorted(panels, key=lambda name: (not name.startswith("loss"), name)), strict=False):
        for i, curve in enumerate(sorted(panels[name], key=lambda curve: (len(curve), curve))):
            _curve(panel, rows, curve, f"C{i % 10}")
        if len(panels[name]) > 1:
            panel.legend(fontsize=6, frameon=False, ncols=2)
        panel.set_title(name, fontsize=9)
        panel.tick_params(labelsize=7)
        panel.grid(alpha=0.25)
        panel.spines[["top", "right"]].set_visible(False)
        panel.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(4, integer=True))
    for panel in axes[len(panels) :]:
        panel.set_axis_off()
    return figure


def _curve(axes, rows: list[Row], name: str, color: str, *, width: float = 1.4, dot: int = 4) -> tuple[float, float]:
    """Draws a figure of the run; (last value of its running mean, last held-out value), NaN where there is none."""
    steps, values = _series([row for row in rows if name in row], name)
    held_steps, held_values = _series(rows, HELDOUT + name)
    last = math.nan
    if len(steps):
        smooth = running_mean(values, max(len(values) // 40, 1))
        last = smooth[-1]
        axes.plot(steps, values, color=color, alpha=0.18, linewidth=0.7)
        axes.plot(steps, smooth, color=color, linewidth=width, label=name.split("/")[-1])
    axes.plot(held_steps, held_values, "o--", color=color, markersize=dot, linewidth=0.9, markeredgecolor="white")
    return last, held_values[-1] if len(held_values) else math.nan


def _dress(axes, label: str, curves: list, legend: str) -> None:
    axes.set_xlabel("step")
    axes.set_ylabel(label)
    axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(integer=True))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(handles=curves, title=legend, alignment="left", frameon=False)


def _series(rows: list[Row], name: str) -> tuple[np.ndarray, np.ndarray]:
    points = [(row["step"], row[name]) for row in rows if row.get(name) is not None]
    return tuple(np.array(points, dtype=float).reshape(-1, 2).T)


def running_mean(values: np.ndarray, width: int) -> np.ndarray:
    """Mean of the last `width` values (fewer at the beginning)."""
    sums = np.cumsum(np.concatenate([[0.0], values]))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - width, 0)
    return (sums[ends] - sums[starts]) / (ends - starts)
