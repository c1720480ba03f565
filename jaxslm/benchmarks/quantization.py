"""Loss curves of training in 8 bits beside bfloat16's: python launch/bench.py quantization --config=FILE --folder=DIR

Runs one training command three times, with the seed and data of the config, that differ in model.quantization alone,
and draws `curves.png` into the folder: loss, and difference from that of bfloat16, each a running mean. `ours` and
`peer` are the speeds of int8 and of bfloat16. A run that is finished in the folder is read, not repeated.
"""

import argparse
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from jaxslm.benchmarks.measure import report
from jaxslm.training.metrics import is_heldout, read_rows
from jaxslm.training.plot import running_mean

ARMS = {"bfloat16": "", "int8": "int8", "fp8": "fp8"}


def run(argv: Sequence[str]) -> dict[str, Any]:
    """Arguments other than its own are those of launch/train.py. Losses are means of the last `--last` steps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="where the runs and the picture lie")
    parser.add_argument("--last", type=int, default=50, help="steps at the end whose losses are averaged")
    ours, config = parser.parse_known_args(argv)
    losses, figures = {}, {}
    for arm, quantization in ARMS.items():
        fields = ["--config.model.dtype=bfloat16", f"--config.model.quantization={quantization}"]
        command = [sys.executable, "launch/train.py", *config, *fields, f"--workdir={ours.folder / arm}"]
        subprocess.run(command, check=True)
        rows = read_rows(ours.folder / arm / "metrics.jsonl")
        steps = [row for row in rows if not is_heldout(row)]
        losses[arm] = np.array([row["loss"] for row in steps], float)
        figures[arm] = dict(
            training_loss=losses[arm][-ours.last :].mean(),
            heldout_loss=next((row["heldout/loss"] for row in reversed(rows) if is_heldout(row)), None),
            tokens_per_s=steps[-1]["tokens_per_s"],
            skipped=steps[-1]["skipped"],
        )
    draw(losses, ours.folder / "curves.png")
    base = figures["bfloat16"]
    for arm in figures.values():
        arm["gap"] = arm["training_loss"] - base["training_loss"]
    return report(
        "quantization",
        ours=figures["int8"]["tokens_per_s"],
        peer=base["tokens_per_s"],
        unit="tokens/s of training",
        shapes={"arguments": " ".join(config), "steps": len(losses["bfloat16"])},
        packages=("jax", "flax", "qwix"),
        **figures,
    )


def draw(losses: Mapping[str, np.ndarray], picture: Path) -> None:
    """losses: of every step, the first entry's being what the others are compared with."""
    figure = Figure(figsize=(8, 5.5), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    base, *_ = losses
    width = max(len(losses[base]) // 20, 1)
    for i, (arm, loss) in enumerate(losses.items()):
        color = f"C{i}" if i else "black"
        steps, smooth = np.arange(1, len(loss) + 1), running_mean(loss, width)
        above.plot(steps, loss, color=color, alpha=0.15, linewidth=0.7)
        above.plot(steps, smooth, color=color, linewidth=1.5, label=f"{arm}  {smooth[-1]:.3f}")
        below.plot(steps, running_mean(loss - losses[base], width), color=color, linewidth=1.5)
    above.set_ylabel("loss (nats a token)")
    above.legend(frameon=False)
    below.set_ylabel(f"difference from {base}")
    below.set_xlabel(f"step (thick: mean of {width})")
    for axes in (above, below):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    FigureCanvasAgg(figure)
    figure.savefig(picture, dpi=100)
