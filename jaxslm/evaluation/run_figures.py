"""Curves of runs as SVG that lies in a page: it takes the page's font and its colours, in light and dark.

Colours are written as the variables --c0, --c1, ... of the page's style, lines and letters as its text colour.
"""

import html
import io
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib
import matplotlib.ticker
import numpy as np
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from jaxslm.evaluation.run_reading import Point
from jaxslm.training.plot import running_mean

N_COLOURS = 8
MOST_POINTS = 300  # of a curve; longer ones are thinned out, so that a page stays small
# Stand-ins, which are no other colour of matplotlib, for what the page gives.
_INK = "#0a0b0c"
_COLOURS = [f"#0a0b{0xE0 + i:02x}" for i in range(N_COLOURS)]
_STYLE = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["system-ui", "sans-serif", "DejaVu Sans"],
    "font.size": 9,
    "text.parse_math": False,  # names may have a $
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "grid.color": _INK,
    "axes.prop_cycle": matplotlib.cycler(color=_COLOURS),
}


@dataclass(frozen=True)
class Curve:
    """points: (step, value), drawn as a thin line under its running mean. heldout: drawn as dots."""

    label: str
    points: Sequence[Point] = ()
    heldout: Sequence[Point] = ()
    colour: int = 0


def panel(
    title: str,
    curves: Sequence[Curve],
    *,
    chance: float | None = None,
    share: bool = False,
    smooth: bool = True,
    label: str = "",
) -> str:
    """One panel with all curves as a <figure>, with a caption that says where each ends.

    What falls to a small part of where it began has a logarithmic axis.

    chance: a value to draw a line at. share: values lie between 0 and 1. smooth: whether `points` are noisy.
    """
    with matplotlib.rc_context(_STYLE | {"svg.hashsalt": title}):
        figure = Figure(figsize=(4.6, 2.9), layout="constrained")
        axes = figure.subplots()
        for curve in curves:
            _draw(axes, curve, smooth)
        if chance is not None:
            axes.axhline(chance, color=_INK, linewidth=1, linestyle=(0, (2, 3)), alpha=0.7)
            place = dict(xycoords=("axes fraction", "data"), textcoords="offset points", ha="right")
            axes.annotate("chance", (1, chance), (0, 2), alpha=0.8, **place)
        if not share:
            _stretch(axes, curves)
        else:
            low, high = axes.get_ylim()
            axes.set_ylim(max(low, 0) if low > 0.02 else 0, min(high, 1.02))
        _dress(axes, label)
        drawn = _svg(figure, f"{title}. {_ends(curves, ', ')}")
    caption = f"<b>{html.escape(title)}</b> {_legend(curves)}"
    return f"<figure><figcaption>{caption}</figcaption>{drawn}</figure>"


def stacked_bar(title: str, parts: Mapping[str, float]) -> str:
    """Parts of a whole as one bar, with a legend that gives the share of each."""
    total = sum(parts.values())
    spans, left = [], 0.0
    for i, (name, value) in enumerate(parts.items()):
        width = 100 * value / total
        spans.append(
            f'<rect x="{left:.3f}" y="0" width="{width:.3f}" height="6" style="fill: var(--c{i % N_COLOURS})">'
            f"<title>{html.escape(name)}: {width:.1f} %</title></rect>"
        )
        left += width
    said = ", ".join(f"{name} {100 * value / total:.1f} %" for name, value in parts.items())
    keys = " ".join(
        f'<span class="key"><i style="background: var(--c{i % N_COLOURS})"></i>{html.escape(name)}'
        f" {100 * value / total:.1f} %</span>"
        for i, (name, value) in enumerate(parts.items())
    )
    return (
        f'<figure class="bar"><figcaption><b>{html.escape(title)}</b> {keys}</figcaption><svg viewBox="0 0 100 6" '
        f'preserveAspectRatio="none" role="img" aria-label="{html.escape(f"{title}: {said}")}">{"".join(spans)}</svg>'
        "</figure>"
    )


def _draw(axes, curve: Curve, smooth: bool) -> None:
    colour = _COLOURS[curve.colour % N_COLOURS]
    if curve.points:
        steps, values = np.array(curve.points, dtype=float).T
        noisy = smooth and len(values) > 1
        if noisy:
            _draw_range(axes, steps, values, colour)
            values = running_mean(values, max(len(values) // 40, 1))
        kept = _thinned(len(steps))
        marker = "" if noisy or len(kept) > 40 else "o"
        axes.plot(steps[kept], values[kept], color=colour, linewidth=1.6, marker=marker, markersize=3.5)
    if curve.heldout:
        steps, values = np.array(curve.heldout, dtype=float).T
        kept = _thinned(len(steps))
        marker = "" if len(kept) > 60 else "o"
        axes.plot(steps[kept], values[kept], "--", color=colour, linewidth=1, marker=marker, markersize=4)


def _thinned(n: int) -> np.ndarray:
    """At most MOST_POINTS of n places, the first and the last among them."""
    return np.unique(np.linspace(0, n - 1, MOST_POINTS).astype(int))


def _draw_range(axes, steps: np.ndarray, values: np.ndarray, colour: str) -> None:
    """Every value as a thin line; of many, what each of MOST_POINTS stretches reaches, as a band."""
    if len(values) <= MOST_POINTS:
        axes.plot(steps, values, color=colour, alpha=0.35, linewidth=0.7)
        return
    starts = np.linspace(0, len(values), MOST_POINTS, endpoint=False).astype(int)
    low, high = np.minimum.reduceat(values, starts), np.maximum.reduceat(values, starts)
    axes.fill_between(steps[starts], low, high, color=colour, alpha=0.22, linewidth=0)


def _stretch(axes, curves: Sequence[Curve]) -> None:
    """Makes the axis logarithmic where a linear one would flatten the end of every curve."""
    values = np.array([value for curve in curves for _, value in (*curve.points, *curve.heldout)], dtype=float)
    if not len(values) or values.min() <= 0 or values.max() < 4 * np.median(values):
        return
    axes.set_yscale("log")
    plain = matplotlib.ticker.FuncFormatter(lambda value, _: number(value))
    steps = (1, 2, 5) if values.max() < 100 * values.min() else (1,)
    axes.yaxis.set_major_locator(matplotlib.ticker.LogLocator(subs=steps, numticks=12))
    axes.yaxis.set_major_formatter(plain)
    axes.yaxis.set_minor_formatter(matplotlib.ticker.NullFormatter())


def _dress(axes, label: str) -> None:
    axes.set_xlabel("step")
    axes.set_ylabel(label)
    axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(5, integer=True))
    axes.xaxis.set_major_formatter(matplotlib.ticker.FuncFormatter(lambda step, _: f"{step:,.0f}"))
    if axes.get_yscale() == "linear":
        axes.yaxis.set_major_locator(matplotlib.ticker.MaxNLocator(6))
    axes.grid(alpha=0.15)
    axes.spines[["top", "right"]].set_visible(False)


def _legend(curves: Sequence[Curve]) -> str:
    """A key for each curve if there are several, and where it ends."""
    keys = []
    for curve in curves:
        swatch = f'<i style="background: var(--c{curve.colour % N_COLOURS})"></i>' if len(curves) > 1 else ""
        keys.append(f'<span class="key">{swatch}{html.escape(_end(curve))}</span>')
    return " ".join(keys)


def _ends(curves: Sequence[Curve], between: str) -> str:
    return between.join(_end(curve) for curve in curves)


def _end(curve: Curve) -> str:
    """ "speech: 1.93, held-out 2.08"."""
    parts = []
    if curve.points:
        values = np.array([value for _, value in curve.points], dtype=float)
        parts.append(number(running_mean(values, max(len(values) // 40, 1))[-1]))
    if curve.heldout:
        parts.append(f"held-out {number(curve.heldout[-1][1])}")
    return (f"{curve.label} " if curve.label else "") + (", ".join(parts) or "nothing")


def number(value: float) -> str:
    """As few digits as say something: 1,234 or 0.7043 or 2.00e-05."""
    if value == 0 or 1e-3 <= abs(value) < 1e3:
        return f"{value:.4g}"
    return f"{value:,.0f}" if 1e3 <= abs(value) < 1e12 else f"{value:.2e}"


def _svg(figure: Figure, said: str) -> str:
    FigureCanvasSVG(figure)
    file = io.StringIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # of a font that only measures
        figure.savefig(file, format="svg", transparent=True, metadata=dict(Date=None, Creator=None, Type=None))
    text = file.getvalue()
    head, body = re.split(r"(?<=>)", text[text.index("<svg") :], maxsplit=1)
    size = re.search(r'viewBox="[^"]*"', head)[0]
    body = re.sub(r"<(metadata|style)\b.*?</\1>", "", body, flags=re.DOTALL)
    # names of groups, which other pictures of the page have as well
    body = re.sub(r' id="(?!m|p)\w[\w.]*_\d+"| id="(?:patch|matplotlib\.axis)_\d+"', "", body)
    body = re.sub(r'\bd="[^"]*"', lambda path: re.sub(r"(\.\d\d)\d+", r"\1", path[0]).replace("\n", ""), body)
    body = body.replace(_INK, "currentColor").replace("xlink:href", "href")
    for i, colour in enumerate(_COLOURS):
        body = body.replace(colour, f"var(--c{i})")
    return f'<svg {size} role="img" aria-label="{html.escape(said)}">{body.rstrip()}'
