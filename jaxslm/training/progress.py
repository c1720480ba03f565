"""What a person and a script see of a run: progress bar, metrics.jsonl, TensorBoard, loss.png."""

import logging
import math
import sys
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from jaxslm.training.distributed import agree
from jaxslm.training.flops import peak_flops
from jaxslm.training.goodput import Goodput
from jaxslm.training.metrics import HELDOUT, Events, MetricsFile, Picture, Sound
from jaxslm.training.task import Task

log = logging.getLogger(__name__)

BAR = "{percentage:3.0f}%|{bar:20}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}]{postfix}"


class TrainingError(RuntimeError):
    """Training went wrong in a way that going on would not mend; the message says how and what to try."""


class Progress:
    """Takes metrics still being computed and reads them one step late, so that the device never waits for the host."""

    def __init__(self, task: Task, config: Any, workdir: Path, step: int, goodput: Goodput):
        self._task, self._config, self._workdir, self._goodput = task, config, workdir, goodput
        self._peak = peak_flops()
        self._waiting: tuple[int, Mapping[str, jax.Array]] | None = None
        self._first, self._clock = step + 1, time.perf_counter()
        self._recent: deque[Mapping[str, float]] = deque(maxlen=config.log_every)
        self._seconds: deque[float] = deque(maxlen=10)  # of the last steps, without saves and evaluations
        self._lead = jax.process_index() == 0
        self.train: Mapping[str, float] = {}
        self.held: Mapping[str, float] = {}
        evaluated = False
        if self._lead:
            self._file, self._events = MetricsFile(workdir / "metrics.jsonl", step), Events(workdir, step)
            evaluated = step in self._file.evaluated
        self.evaluated_at = step if agree(evaluated) else -1
        self._bar = tqdm(
            total=config.steps,
            initial=step,
            unit="step",
            bar_format=BAR,
            dynamic_ncols=True,
            disable=not self._lead,
            mininterval=0.2 if sys.stderr.isatty() else 10,  # a log file wants few lines
        )

    def step(self, step: int, metrics: Mapping[str, jax.Array]) -> None:
        """Takes the metrics of `step`, and reads those of the step before."""
        self.read()
        self._waiting = step, metrics

    def heldout(self, step: int, values: Mapping[str, float], media: Sequence[Sound | Picture] = ()) -> None:
        """Writes the figures of a held-out evaluation and draws the curves anew; `media` go to TensorBoard."""
        self.evaluated_at, self.held = step, values
        if media and self._lead:
            self._events.add_media(step, media)
        if not values:
            return
        if self._lead:
            self._events.add(self._file.add(step, {HELDOUT + name: float(value) for name, value in values.items()}))
            self._try_flush()
            self._draw()
        log.info("step %d, held-out: %s", step, described(values))
        self._clock = time.perf_counter()

    def flush(self) -> None:
        """Reads what is waiting and puts all rows on the disk. Raises OSError if it is full, and as `step`."""
        self.read()
        error = None
        if self._lead:
            try:
                self._file.flush()
            except OSError as caught:
                error = caught
        if agree(error is not None):  # all processes save, or none does
            raise error or OSError("process 0 cannot write metrics.jsonl")
        self._clock = time.perf_counter()

    def close(self) -> None:
        """Ends the bar and draws the curves; safe to call again."""
        self._bar.close()
        if self._lead:
            self._try_flush()
            self._draw()

    def read(self) -> None:
        """Waits for the metrics of the newest step and takes them up."""
        if self._waiting is None:
            return
        (step, metrics), self._waiting = self._waiting, None
        read = jax.device_get(dict(metrics))
        values = {
            name: float(read[name]) for name in sorted(read, key=lambda name: (not name.startswith("loss"), name))
        }
        now, spent = time.perf_counter(), self._goodput.figures()
        seconds, self._clock = now - self._clock, now
        if step == self._first:
            log.info("first step: %.1f s; compiling has taken %.1f s so far", seconds, spent["seconds/compile"])
        else:
            self._seconds.append(seconds)
        # a step read at once, before a save, takes less, and the next one more: only their mean says something
        rate = len(self._seconds) / sum(self._seconds) if self._seconds else math.nan
        values[f"{self._task.work}_per_s"] = self._task.work_per_step * rate
        values["mfu"] = self._task.flops_per_step * rate / self._peak
        values |= spent
        self._show(step, values)
        parts = [name.removeprefix("bad/") for name, value in values.items() if name.startswith("bad/") and value]
        self._check_skipped(step, int(values["skipped_in_a_row"]), int(values["skipped"]), " and ".join(parts))

    def _show(self, step: int, values: Mapping[str, float]) -> None:
        self._recent.append(values)
        self.train = mean_losses(self._recent)
        if not self._lead:
            return
        row = self._file.add(step, values)
        self._bar.update(1)
        if step % self._config.log_every == 0 or step == self._config.steps:
            work, rate = self._task.work, values[f"{self._task.work}_per_s"]
            speed = f"{rate:,.{0 if rate >= 100 else 2}f} {work}/s, " if math.isfinite(rate) else ""
            self._bar.set_postfix_str(speed + described(self.train), refresh=False)
            self._try_flush()
            self._events.add(row)

    def _check_skipped(self, step: int, in_a_row: int, in_all: int, part: str) -> None:
        most = self._config.optimizer.max_skipped
        whose = f" of the {part}" if part else ""
        if in_a_row:
            log.warning(
                "step %d left out: a loss or gradient%s is not finite or diverges (%d in a row, %d in all)",
                step,
                whose,
                in_a_row,
                in_all,
            )
        if in_a_row >= most:
            raise TrainingError(
                f"{in_a_row} steps in a row, up to step {step}, had a loss or gradient{whose} that is not finite or "
                "diverges (optimizer.max_skipped). Lower its peak_lr or clip_norm in optimizer, or look at the data of "
                f"these steps; {self._workdir / 'checkpoints'} holds the state before them."
            )

    def _try_flush(self) -> None:
        try:
            self._file.flush()
        except OSError as error:
            log.error("metrics.jsonl cannot be written (%s); its rows wait in memory for the next attempt", error)

    def _draw(self) -> None:
        from jaxslm.training.plot import plot_losses  # here, not above: the first step should not wait for matplotlib

        picture = self._workdir / "loss.png"
        plot_losses(self._workdir / "metrics.jsonl", picture, self._workdir.name, self._task.loss_label)


def mean_losses(rows: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Losses a token over several steps: a step counts for an objective as it has tokens of it."""
    sums: dict[str, np.ndarray] = {}
    for row in rows:
        for name in row:
            if name.split("/")[0] == "loss" and math.isfinite(row[name]):
                weight = row.get(name.replace("loss/", "tokens/"), 1.0) if "/" in name else 1.0
                sums[name] = sums.get(name, 0.0) + weight * np.array([row[name], 1.0])
    return {name: float(total / weight) for name, (total, weight) in sums.items()} or {"loss": math.nan}


def described(values: Mapping[str, float]) -> str:
    """'loss 2.104 (asr 1.903, tts 2.300)'."""
    parts = [f"{name.removeprefix('loss/')} {v:.3f}" for name, v in values.items() if name.startswith("loss/")]
    return f"loss {values['loss']:.3f}" + (f" ({', '.join(parts)})" if len(parts) > 1 else "")
