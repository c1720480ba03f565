"""Exports beside the training: made from finished checkpoints by a thread, one at a time."""

import logging
import shutil
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import jax

from jaxslm.training.task import Task

log = logging.getLogger(__name__)


class Exports:
    """`workdir/exports/STEP` every `every` steps, by process 0. An export that fails is reported; training goes on."""

    def __init__(self, task: Task, every: int, folder: Path):
        self._task, self._every, self._folder = task, every, folder
        self._pool = ThreadPoolExecutor(1)
        self._running: Future | None = None

    def due(self, step: int) -> bool:
        return bool(self._every) and step % self._every == 0

    def start(self, step: int) -> None:
        """Begins the export of checkpoint `step`, which must be finished and stay until `wait` returns."""
        if jax.process_index() == 0 and not (self._folder / str(step)).exists():
            self._folder.mkdir(parents=True, exist_ok=True)
            self._running = self._pool.submit(self._export, step)

    def wait(self) -> None:
        """Until the export under way has ended."""
        if self._running is not None:
            self._running.result()
            self._running = None

    def _export(self, step: int) -> None:
        try:
            self._task.export(step, self._folder / str(step))
            log.info("exported step %d to %s", step, self._folder / str(step))
        except Exception as error:  # of whatever kind: the training is worth more
            shutil.rmtree(self._folder / f"{step}.incomplete", ignore_errors=True)  # the next checkpoint needs the room
            log.error("step %d could not be exported to %s: %s. The run goes on.", step, self._folder, error)
