"""units.png: which phones each unit stands for."""

from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


def plot_phones_by_units(counts_PxK: np.ndarray, phones: list[str], picture: Path, title: str = "") -> None:
    """Draws P(phone | unit) of the units that occur: phones from the most frequent down, units by their most likely
    phone (HuBERT, Hsu et al. 2021, figure 3). `counts_PxK` are frames.
    """
    rows = np.argsort(-counts_PxK.sum(axis=1), kind="stable")
    rows = rows[counts_PxK.sum(axis=1)[rows] > 0]
    used_PxU = counts_PxK[rows][:, counts_PxK.sum(axis=0) > 0]
    given_PxU = used_PxU / used_PxU.sum(axis=0)
    columns = np.lexsort([-given_PxU.max(axis=0), given_PxU.argmax(axis=0)])
    figure = Figure(figsize=(11, 7.5), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(given_PxU[:, columns], aspect="auto", interpolation="nearest", cmap="Blues", vmin=0, vmax=1)
    axes.set_yticks(range(len(rows)), [phones[row] for row in rows], fontsize=8)
    axes.set_ylabel("phone, the most frequent first")
    axes.set_xlabel(f"{len(columns)} of {counts_PxK.shape[1]} units, by their most likely phone")
    axes.set_title(title)
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(image, ax=axes, pad=0.01, fraction=0.03, label="P(phone | unit)")
    bar.outline.set_visible(False)
    FigureCanvasAgg(figure)
    figure.savefig(picture, dpi=120)
