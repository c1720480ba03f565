"""The training loop: restore or begin, step, log, evaluate, save; the same for every task.

A run killed at any moment and started again gives the metrics.jsonl of a run never killed. That rests on four things:
the batch is a function of the step; rows up to a checkpoint's step are on the disk before it is written; rows after
it are cut on restart; and an evaluation due at the restored step is made up for if its row is missing.
"""

import contextlib
import dataclasses
import functools
import json
import logging
import operator
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
from tqdm.contrib.logging import logging_redirect_tqdm

from jaxslm.training.checkpoint import Checkpoints, restore_model, saved_steps
from jaxslm.training.distributed import StopSignal
from jaxslm.training.exports import Exports
from jaxslm.training.goodput import Goodput
from jaxslm.training.profile import Profile, parse_steps
from jaxslm.training.progress import Progress, TrainingError, described
from jaxslm.training.step import put_batch
from jaxslm.training.task import Task
from jaxslm.training.workdir import check_artifacts, check_config, prepare, write_hardware, write_json

log = logging.getLogger(__name__)

LIMITS = {  # smallest value of a key, and what that means
    "log_every": (1, "1 logs every step"),
    "checkpoint.every": (0, "0 saves at the end only"),
    "checkpoint.keep": (1, "1 keeps the newest checkpoint only"),
    "eval.every": (0, "0 never evaluates"),
    "export.every": (0, "0 never exports"),
    "optimizer.accumulate_steps": (1, "1 takes the batch whole"),
    "optimizer.max_skipped": (1, "1 ends the run at the first step that is not finite"),
}


def run(task: Task, config: Any, workdir: str | Path, goodput: Goodput | None = None) -> int:
    """Trains `task` up to `config.steps` in `workdir`, from its newest checkpoint if it has one; the steps made.

    Returns when the last step, or the step at which SIGTERM or Ctrl-C was noticed, is saved. `config` is a ConfigDict
    with seed, steps, profile_steps, init_from and the keys of LIMITS; `goodput` may have counted what went before: to
    prepare the data. Raises ValueError (a value below its limit, or the checkpoint is of another model or vocabulary),
    CheckpointError (none can be read, or the last could not be written), TrainingError (too many non-finite steps in a
    row). Whoever calls it keeps other runs out, see `workdir.alone`.
    """
    check_limits(config)
    workdir = prepare(workdir)
    counting = contextlib.nullcontext(goodput) if goodput else Goodput()
    with StopSignal() as stop, logging_redirect_tqdm(), counting as goodput:
        checkpoints = Checkpoints(workdir / "checkpoints", config.checkpoint.keep)
        state, step = _starting_state(task, config, workdir, checkpoints)
        write_json(workdir / "config.json", json.loads(config.to_json_best_effort()))
        write_hardware(workdir, step)
        for name, content in task.artifacts.items():
            write_json(workdir / name, content)
        if jax.process_index() == 0:
            task.write_files(workdir)
        progress = Progress(task, config, workdir, step, goodput)
        profile = Profile(config.profile_steps, workdir / "profile", made=step, steps=config.steps)
        exports = Exports(task, config.export.every, workdir / "exports", checkpoints)
        exports.resume()
        try:
            with goodput("step"):
                state, step = _train(task, config, checkpoints, exports, progress, profile, goodput, stop, state, step)
        finally:
            progress.close()
            profile.close()
            with goodput("checkpoint"):
                checkpoints.wait()  # first: whoever asked the run to stop may soon kill it
                exports.wait()
                checkpoints.delete_oldest()
        checkpoints.finish()
        _conclude(task, config, workdir, progress, goodput, state, step)
        return step


def check_limits(config: Any) -> None:
    """Raises ValueError if a value is below its limit in LIMITS."""
    for key, (least, meaning) in LIMITS.items():
        *parents, last = key.split(".")
        value = functools.reduce(operator.getitem, parents, config).get(last, least)  # not every task has every key
        if value < least:
            raise ValueError(f"{key} is {value}; set it to {least} or more ({meaning}).")
    parse_steps(config.profile_steps, config.steps)
    exports, saves = config.export.every, config.checkpoint.every
    if exports and (not saves or exports % saves):
        raise ValueError(
            f"export.every={exports} is no multiple of checkpoint.every={saves}: exports read checkpoints."
        )


def _starting_state(task: Task, config: Any, workdir: Path, checkpoints: Checkpoints) -> tuple[Any, int]:
    """(state, steps made): the newest checkpoint, else fresh with the parameters of `init_from`, else fresh."""
    if (step := checkpoints.newest()) is not None:
        check_artifacts(task, workdir)
        check_config(workdir / "config.json", json.loads(config.to_json_best_effort()))
        log.info("continuing from step %d of %s", step, checkpoints.folder)
        return checkpoints.restore(step, task.abstract_state()), step
    state = task.init(jax.random.key(config.seed))
    if config.init_from:
        source = Path(config.init_from).expanduser()
        if (source / "checkpoints").is_dir():
            check_artifacts(task, source)
            model, at = restore_model(source / "checkpoints", task.abstract_state().model)
            log.info("parameters from step %d of %s", at, source)
        else:
            model = task.import_model(state.model, source)
            log.info("parameters from %s", source)
        state = dataclasses.replace(state, model=model)
    return state, 0


def _train(
    task: Task,
    config: Any,
    checkpoints: Checkpoints,
    exports: Exports,
    progress: Progress,
    profile: Profile,
    goodput: Goodput,
    stop: StopSignal,
    state: Any,
    step: int,
) -> tuple[Any, int]:
    """(state, step) at the end or where the run was asked to stop, its save under way."""

    def evaluate_if_due() -> None:
        every = config.eval.every
        if every and step and (step % every == 0 or step == config.steps) and progress.evaluated_at != step:
            progress.read()  # or the evaluation would count as time of the step
            with goodput("evaluation"):
                progress.heldout(step, task.evaluate(state), task.media(state))

    def save(last: bool = False) -> None:
        progress.read()
        with goodput("checkpoint"):
            try:
                progress.flush()  # a checkpoint is never ahead of its metrics
            except OSError as error:
                checkpoints.failed(step, error)
            else:
                checkpoints.save(step, state)
            if exports.due(step):
                checkpoints.wait()
                if step in saved_steps(checkpoints.folder):
                    exports.start(step, last=last)

    evaluate_if_due()
    restored, every = step, config.checkpoint.every
    batches = _placed_batches(task, step, stop)
    while step < config.steps:
        with profile.step(step + 1, state):
            with goodput("data"):
                batch = next(batches, None)
            if batch is None:
                break
            state, metrics = task.step(state, batch)
            goodput.computing(metrics["loss"])
        step += 1
        progress.step(step, metrics)
        with goodput("other"):
            profile.stop_after(step, state)
        if stop.reached(step) or step == config.steps:
            break
        if every and step % every == 0:
            save()
        evaluate_if_due()
    if step > restored:
        save(last=True)
    if step == config.steps:
        evaluate_if_due()
    return state, step


def _placed_batches(task: Task, step: int, stop: StopSignal) -> Iterator[Any]:
    """Batches after `step` as arrays over all devices; each is copied there while the step before it computes."""
    batches = task.batches(step)
    while True:
        try:
            batch = next(batches)
        except StopIteration:
            raise TrainingError(f"the data ended after step {step}; a task's batches must never end.") from None
        except Exception:
            if stop.asked:  # Ctrl-C reaches the data workers as well
                return
            raise
        yield put_batch(batch, task.batch_sharding)
        step += 1


def _conclude(
    task: Task, config: Any, workdir: Path, progress: Progress, goodput: Goodput, state: Any, step: int
) -> None:
    """Samples, the last figures, and where everything lies."""
    if step < config.steps:
        log.info("stopped at step %d of %d and saved; the same command continues from there", step, config.steps)
        log.info("time: %s", goodput)
        return
    folder = workdir / "samples"
    if jax.process_index() == 0:
        folder.mkdir(exist_ok=True)
    text = task.samples(state, folder, step)
    if jax.process_index() != 0:
        return
    lines = [text] if text else []
    lines.append(f"{step} steps done.")
    if progress.train:
        lines.append(f"  training  {described(progress.train)}")
    if progress.held:
        lines.append(f"  held-out  {described(progress.held)}")
    lines += [
        f"  time  {goodput}",
        f"Everything lies in {workdir}:",
        f"  checkpoints/{step}  the trained parameters and the state to train on from",
        "  metrics.jsonl, loss.png  losses of every step; also `tensorboard --logdir` of this folder",
        "  samples/  what the model says",
    ]
    print("\n".join(lines), flush=True)
