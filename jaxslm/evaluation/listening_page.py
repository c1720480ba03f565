"""A page to judge a codec by ear and eye: one HTML file that needs nothing beside it.

Each clip is a table, a column the original and each reconstruction: sound, spectrogram (of one scale of colours a
clip), metrics. Above them are the facts and the curves of the run.
"""

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from jaxslm.audio.io import encode_flac
from jaxslm.evaluation.codec_metrics import TITLES
from jaxslm.evaluation.html_page import data_uri, save_page
from jaxslm.evaluation.perceptual import Scores
from jaxslm.evaluation.spectrogram import draw_spectrogram, mel_db, png
from jaxslm.training.plot import draw_panels

STYLE = """
body { font: 15px sans-serif; margin: 2em; color: #222 }
h2 { font-size: 1.1em; margin: 2em 0 .3em }
small { color: #777; font-weight: normal }
.clip { overflow-x: auto }
pre { margin: 0; font: 13px monospace }
table { border-collapse: collapse }
th { text-align: left; font-weight: normal; color: #555; padding: .2em 1em .2em 0; white-space: nowrap;
  position: sticky; left: 0; background: #fff }
td { padding: .2em .5em; font-variant-numeric: tabular-nums }
thead td { font-weight: bold }
audio { width: 340px; height: 36px; display: block }
img { display: block }
body > img { max-width: 100% }
.failed { color: #a00; font-size: .85em; max-width: 340px }
"""


@dataclass(frozen=True)
class Clip:
    """original, reconstructions: samples [N] at `rate` Hz. scores: of reconstructions, by the same names."""

    id: str
    original: np.ndarray
    reconstructions: Mapping[str, np.ndarray]
    rate: int
    scores: Mapping[str, Scores] = field(default_factory=dict)
    text: str = ""


def write_page(
    path: Path, title: str, clips: Sequence[Clip], *, facts: Mapping[str, str] = {}, metrics: Path | None = None
) -> None:
    """Writes the page; an older one of that name stays until the new one is whole.

    facts: lines of a table at its head. metrics: the metrics.jsonl of the training run, whose curves are drawn.
    """
    parts = [f"<!doctype html><meta charset=utf-8><title>{html.escape(title)}</title><style>{STYLE}</style>"]
    parts.append(f"<h1>{html.escape(title)}</h1>")
    rows = (f"<tr><th>{html.escape(name)}<td><pre>{html.escape(value)}</pre>" for name, value in facts.items())
    parts.append(f"<table>{''.join(rows)}</table>")
    if metrics and (curves := draw_panels(metrics)):
        parts.append(f"<h2>Curves of the run</h2>{_picture(png(curves), 'curves')}")
    parts += map(_section, clips)
    save_page(path, "\n".join(parts) + "\n")


def _section(clip: Clip) -> str:
    sounds = {"original": clip.original, **clip.reconstructions}
    mels = {name: mel_db(samples_N, clip.rate) for name, samples_N in sounds.items()}
    loudest = float(mels["original"].max())
    columns = "".join(f"<td>{html.escape(name)}" for name in sounds)
    players = "".join(f"<td>{_player(samples_N, clip.rate)}" for samples_N in sounds.values())
    pictures = "".join(f"<td>{_picture(draw_spectrogram(mel, clip.rate, loudest), name)}" for name, mel in mels.items())
    lines = []
    for metric in dict.fromkeys(metric for scores in clip.scores.values() for metric in scores.values):
        cells = "".join(f"<td>{_score(clip.scores.get(name), metric)}" for name in clip.reconstructions)
        lines.append(f"<tr><th>{html.escape(TITLES.get(metric, metric))}<td>{cells}")
    seconds = len(clip.original) / clip.rate
    said = f"<p>{html.escape(clip.text)}</p>" if clip.text else ""
    return (
        f"<h2>{html.escape(clip.id)} <small>{seconds:.2f} s, {clip.rate} Hz</small></h2>{said}<div class=clip><table>"
        f"<thead><tr><th>{columns}</thead><tr><th>{players}<tr><th>mel, dB{pictures}{''.join(lines)}</table></div>"
    )


def _player(samples_N: np.ndarray, rate: int) -> str:
    finite_N = np.isfinite(samples_N)
    flac = encode_flac(np.where(finite_N, samples_N, 0.0), rate)
    note = "" if finite_N.all() else f"<div class=failed>{np.sum(~finite_N)} samples are not finite, here 0</div>"
    return f'<audio controls preload=metadata src="{data_uri("audio/flac", flac)}"></audio>{note}'


def _picture(data: bytes, name: str) -> str:
    return f'<img alt="{html.escape(name)}" src="{data_uri("image/png", data)}">'


def _score(scores: Scores | None, metric: str) -> str:
    if scores is None or metric not in scores.values:
        return ""
    if metric in scores.failures:
        return f"<span class=failed>none: {html.escape(scores.failures[metric])}</span>"
    return f"{scores.values[metric]:.3f}"
