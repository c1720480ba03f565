"""Exports beside the training: made from finished checkpoints by a thread, one at a time.

Nothing waits for them but the end of the run. Their checkpoint is kept until they are done. A run that is asked to stop
saves its last checkpoint first and then finishes the export under way; if it is killed before, STEP.incomplete remains,
which nothing takes for a model, and the next start makes that export again.
"""

import logging
import shutil
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import jax

from jaxslm.locking import held
from jaxslm.training.checkpoint import Checkpoints, saved_steps
from jaxslm.training.task import Task

log = logging.getLogger(__name__)


class Exports:
    """`workdir/exports/STEP` every `every` steps, by process 0. An export that fails is reported; training goes on."""

    def __init__(self, task: Task, every: int, folder: Path, checkpoints: Checkpoints):
        self._task, self._every, self._folder, self._checkpoints = task, every, folder, checkpoints
        self._pool = ThreadPoolExecutor(1)
        self._running: Future | None = None

    def due(self, step: int) -> bool:
        return bool(self._every) and step % self._every == 0

    def resume(self) -> None:
        """Makes again the newest export that was cut off, if its checkpoint is still there; removes what is left."""
        if not self._every or jax.process_index() != 0:
            return
        cut_off = {int(path.stem): path for path in self._folder.glob("*.incomplete") if path.stem.isdecimal()}
        for step, path in list(cut_off.items()):
            with held(path) as mine:  # not by a process that still finishes it
                if mine:
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    del cut_off[step]
        if again := cut_off.keys() & set(saved_steps(self._checkpoints.folder)):
            self.start(max(again))

    def start(self, step: int, *, last: bool = False) -> None:
        """Begins the export of checkpoint `step`, unless it is there, or another is under way: the `last` one waits."""
        if jax.process_index() != 0 or (self._folder / str(step)).exists():
            return
        if last:
            self.wait()
        if self._running is not None and not self._running.done():
            log.warning(
                "step %d is not exported: the export before it is not done yet. Raise export.every, or export it by "
                "launch/export_hf.py --step=%d",
                step,
                step,
            )
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        self._checkpoints.in_use.add(step)
        self._running = self._pool.submit(self._export, step)

    def wait(self) -> None:
        """Until the export under way has ended."""
        if self._running is not None:
            self._running.result()

    def _export(self, step: int) -> None:
        try:
            self._task.export(step, self._folder / str(step))
            log.info("exported step %d to %s", step, self._folder / str(step))
        except Exception as error:  # of whatever kind: the training is worth more
            shutil.rmtree(self._folder / f"{step}.incomplete", ignore_errors=True)  # the next checkpoint needs the room
            log.error("step %d could not be exported to %s: %s. The run goes on.", step, self._folder, error)
        finally:
            self._checkpoints.in_use.discard(step)
