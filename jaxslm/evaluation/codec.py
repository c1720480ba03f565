"""The suite "codec": what a codec keeps of clips, for how many bits, and how fast it is."""

import contextlib
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from tqdm import tqdm

from jaxslm.codec.identity import describe_codec, n_levels_of
from jaxslm.codec.model import Codec
from jaxslm.data.code_files import AudioClips, hear_clip, in_groups
from jaxslm.data.report import Report
from jaxslm.evaluation.codec_metrics import TITLES, bitrate, choose_metrics, summarize
from jaxslm.evaluation.codec_speed import measure_speed
from jaxslm.evaluation.listening_page import write_page
from jaxslm.evaluation.reconstructions import Reconstructions, Recording, column
from jaxslm.evaluation.tables import aligned, mean_cell

RESULT, CLIPS, PAGE = "codec.json", "clips.jsonl", "index.html"
_POOL_SECONDS = 300.0  # of reconstructions; fewer are measured before other processes have started


def read_recordings(
    paths: Sequence[Path], rate: int, report: Report, *, split: str = "heldout", max_seconds: float = 60.0
) -> Iterator[Recording]:
    """Clips of audio files, of folders of them, and of one split ("all" for all) of prepared records."""
    if split not in ("train", "heldout", "all"):
        raise ValueError(f"--split={split}: choose train, heldout or all")
    for clip in AudioClips(paths):
        if isinstance(clip.source, Path) or (clip.source and split in ("all", clip.utterance.split)):
            heard = hear_clip(clip, rate, max_seconds)
            report.extend(heard.entries)
            if heard.samples is not None:
                yield Recording(heard.utterance.id, heard.samples, heard.utterance.text)


def default_levels(codec: Codec) -> list[int]:
    """1, 2, 4, ... of the levels that can be asked for, and all of them."""
    config, most = codec.quantizer.config, n_levels_of(codec)
    least = config.n_semantic if config.kind == "split_rvq" else 1
    return sorted({n for n in (1, 2, 4, 8, 16, 32, most) if least <= n <= most})


def evaluate_codec(
    codec: Codec,
    name: str,
    recordings: Iterable[Recording],
    out: str | Path,
    *,
    levels: Sequence[int] = (),
    metrics: Sequence[str] = (),
    shown: int = 8,
    speed: bool = True,
    curves: Path | None = None,
    title: str = "",
    workers: int = 1,
    progress: bool = True,
) -> dict:
    """Measures what the first codes of each number of levels keep of the clips; returns what codec.json holds.

    Writes to `out` codec.json; clips.jsonl, a line each clip and number of levels; the sound as 16-bit WAV, original/
    and reconstruction_LEVELS/, with lists of it (original.scp, ...); and index.html to listen to. Metrics are those of
    the samples before they are cut to 16 bits.

    Args:
      name: of the codec, for people.
      levels: numbers of levels; `default_levels` where none is given.
      metrics: of METRICS; those that are installed where none is named.
      shown: clips on the page.
      curves: the metrics.jsonl of the training run, for the page.
      workers: processes that measure.
    Raises:
      ValueError: no clip, two of one name, levels that the codec does not have, or metrics that are not installed.
    """
    names, absent = choose_metrics(metrics)
    out = Path(out)
    made = Reconstructions(codec, levels or default_levels(codec), names, out, shown)
    _add_all(made, recordings, workers, progress)
    if not made.seconds:
        raise ValueError("there is no clip to measure: name records with held-out clips, or a folder of audio")
    described = describe_codec(codec, name)
    result = dict(
        codec=described,
        clips=dict(count=len(made.scores[made.most]), seconds=made.seconds),
        levels={str(n): _of_levels(made, n, described["frame_rate"]) for n in made.runners},
        codebooks=made.counts.levels(),
        not_measured=absent,
        speed=measure_speed(made.runners[made.most], made.heard) if speed else None,
    )
    made.write_lists()
    _write_clips(out / CLIPS, made)
    (out / RESULT).write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    facts = dict(zip(("codec", "clips"), _heading(result), strict=True)) | {"table": _table(result)}
    write_page(out / PAGE, title or f"{name}: original and reconstructions", made.shown, facts=facts, metrics=curves)
    return result


def _add_all(made: Reconstructions, recordings: Iterable[Recording], workers: int, progress: bool) -> None:
    bar = tqdm(desc="reconstructing", unit=" clips", disable=not progress)
    with contextlib.ExitStack() as stack:
        stack.enter_context(bar)
        pool = None
        for group in in_groups(recordings, lambda clip: len(clip.samples) / made.rate):
            seconds = sum(len(clip.samples) for clip in group) / made.rate * len(made.runners)
            if pool is None and workers > 1 and seconds > _POOL_SECONDS:
                # spawned, as JAX's threads do not survive a fork
                pool = stack.enter_context(ProcessPoolExecutor(workers, get_context("spawn")))
            made.add(group, pool)
            bar.update(len(group))


def _of_levels(made: Reconstructions, n: int, frame_rate: float) -> dict:
    sizes = made.runners[n].sizes
    entropy_bitrate = made.counts.first(len(sizes)).entropy_bitrate(frame_rate)
    return dict(bitrate=bitrate(sizes, frame_rate), entropy_bitrate=entropy_bitrate, metrics=summarize(made.scores[n]))


def _write_clips(path: Path, made: Reconstructions) -> None:
    with path.open("w", encoding="utf-8") as file:
        for n, scores in made.scores.items():
            for id, each in scores.items():
                values = {name: None if math.isnan(value) else value for name, value in each.values.items()}
                file.write(json.dumps(dict(id=id, levels=n, **values, failed=each.failures), ensure_ascii=False) + "\n")


def summary(result: dict) -> str:
    """The result as text: a table over levels, what failed, how the codes are used, speed."""
    lines = [*_heading(result), "", _table(result), ""]
    failed: dict[tuple, list[str]] = {}
    for n, level in result["levels"].items():
        for name, metric in level["metrics"].items():
            if metric["failed"]:
                failed.setdefault((name, *metric["failed"].items()), []).append(n)
    for (name, *clips), levels in failed.items():
        first = "; ".join(f"{id}: {why}" for id, why in clips[:3])
        at = column(int(levels[0])) if len(levels) == 1 else f"levels {', '.join(levels)}"
        lines.append(f"{TITLES[name]} at {at} failed on {len(clips)}: {first}{'; ...' if clips[3:] else ''}")
    lines += [f"not measured: {cure}" for cure in result["not_measured"].values()]
    header = ["level", "codes", "usage", "perplexity", "dead", "entropy"]
    rows = [
        [str(i), str(level["size"]), *(f"{level[name]:.3f}" for name in header[2:])]
        for i, level in enumerate(result["codebooks"], 1)
    ]
    lines += ["", aligned([header, *rows])]
    if speed := result["speed"]:
        lines += [
            "",
            f"times real time on {speed['device']}, rows of {speed['seconds']:g} s, {speed['levels']} levels:",
        ]
        for batch, rates in speed.items():
            if isinstance(rates, dict):
                lines.append(f"  {batch}: encode {rates['encode']:.1f}, decode {rates['decode']:.1f}")
    return "\n".join(lines)


def _heading(result: dict) -> tuple[str, str]:
    codec, clips = result["codec"], result["clips"]
    what = (
        f"{codec['name']} ({codec['sha256'][:12]}), {codec['sample_rate']} Hz, {codec['frame_rate']:g} frames a second"
    )
    return what, f"{clips['count']} clips, {clips['seconds'] / 60:.2f} min"


def _table(result: dict) -> str:
    """Means over the clips that have the metric; how many have not, in brackets."""
    names = list(next(iter(result["levels"].values()))["metrics"])
    rows = [["levels", "kbps", "entropy kbps", *(TITLES[name] for name in names)]]
    for n, level in result["levels"].items():
        cells = [n, f"{level['bitrate'] / 1000:.3f}", f"{level['entropy_bitrate'] / 1000:.3f}"]
        rows.append([*cells, *(mean_cell(level["metrics"][name]) for name in names)])
    return aligned(rows)
