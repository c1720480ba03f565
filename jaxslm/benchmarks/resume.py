"""Exact resume, tried: python launch/bench.py resume --config=configs/spiritlm_7b.py:tiny --config.steps=40

Runs a training command to its end; then, trial by trial, kills it at a random step (kill -9 and SIGTERM in turn),
starts it again and compares every row of metrics.jsonl, losses by hex. Then runs it on 8 simulated devices and goes on
with 4, 2 and 1, and gives the largest difference of the next losses from those of the run that kept its devices. No
peer does this: `ours` is the share of exact trials.
"""

import argparse
import contextlib
import itertools
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from jaxslm.benchmarks.measure import report
from jaxslm.training.metrics import Row, is_heldout, read_rows

OF_THE_CLOCK = re.compile("(tokens|audio_s)_per_s|mfu|goodput|seconds/.*")
WINDOW = 10  # steps after a change of devices whose losses are compared


def run(argv: Sequence[str]) -> dict[str, Any]:
    """Arguments other than its own are those of the training program. Needs POSIX signals."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", default=f"{sys.executable} launch/train.py", help="what takes --config, --workdir")
    parser.add_argument("--trials", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0, help="of the steps at which runs are killed")
    parser.add_argument("--devices", default="8,4,2,1", help="device counts a run goes through; '' leaves this out")
    parser.add_argument("--folder", type=Path, help="where the runs lie; a temporary folder by default")
    ours, config = parser.parse_known_args(argv)
    command = [*shlex.split(ours.program), *config, "--config.log_every=1"]  # each row on the disk at once
    rng = random.Random(ours.seed)
    with contextlib.nullcontext(ours.folder) if ours.folder else tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        finish(command, folder / "whole", 1)
        expected = read_rows(folder / "whole/metrics.jsonl")
        trials = list(interrupted(command, folder, expected, ours.trials, rng))
        counts = [int(n) for n in ours.devices.split(",") if n]
        difference = across_devices(command, folder, counts, expected[-1]["step"]) if counts else None
    exact = sum(not trial["differs"] for trial in trials)
    return report(
        "resume",
        ours=exact / max(len(trials), 1),
        peer=None,
        unit="share of interrupted runs that went on exactly",
        shapes={"command": shlex.join(command), "steps": expected[-1]["step"]},
        packages=("jax", "flax", "orbax-checkpoint"),
        trials=trials,
        devices=counts,
        largest_loss_difference_across_devices=difference,
    )


def interrupted(
    command: list[str], folder: Path, expected: list[Row], n_trials: int, rng: random.Random
) -> Iterator[dict[str, Any]]:
    """What each trial did, and the first row that differs from the uninterrupted run ('' if none)."""
    last = expected[-1]["step"]
    for trial in range(n_trials):
        number = (signal.SIGKILL, signal.SIGTERM)[trial % 2]
        step = rng.randrange(1, last - 1)
        workdir = folder / f"trial{trial}"
        stop_at(command, workdir, 1, step, number)
        written = _last_step(workdir)
        finish(command, workdir, 1)
        differs = first_difference(read_rows(workdir / "metrics.jsonl"), expected)
        print(f"trial {trial}: {number.name} at step {written}: {differs or 'exact'}", file=sys.stderr)
        yield {"signal": number.name, "step": written, "differs": differs}


def across_devices(command: list[str], folder: Path, counts: Sequence[int], steps: int) -> float:
    """Largest difference, over the WINDOW losses after each change of device count, from going on with the old count.

    Not over the whole run: sums in another order differ in their last bits, and training itself makes such differences
    grow, between runs that were never interrupted as well.
    """
    moving, largest = folder / "moving", 0.0
    for i, (old, new) in enumerate(itertools.pairwise(counts)):
        if _last_step(moving) < (target := (i + 1) * steps // len(counts)):
            stop_at(command, moving, old, target, signal.SIGTERM)
        at = _last_step(moving)
        staying = Path(shutil.copytree(moving, folder / f"staying{i}"))
        losses = []
        for run_folder, count in ((staying, old), (moving, new)):
            stop_at(command, run_folder, count, at + WINDOW, signal.SIGTERM)
            rows = [row for row in read_rows(run_folder / "metrics.jsonl") if not is_heldout(row)]
            assert [row["step"] for row in rows] == list(range(1, len(rows) + 1)), "rows were doubled or lost"
            losses.append([row["loss"] for row in rows[at : at + WINDOW]])
        differences = [abs(stayed - moved) for stayed, moved in zip(*losses, strict=True)]
        print(f"{old} -> {new} devices at step {at}: {max(differences, default=0):.1e}", file=sys.stderr)
        largest = max(largest, *differences)
    finish(command, moving, counts[-1])
    return largest


def _last_step(workdir: Path) -> int:
    return max((row["step"] for row in read_rows(workdir / "metrics.jsonl")), default=0)


def first_difference(rows: list[Row], expected: list[Row]) -> str:
    """'' if the rows are the same in every number but those of the clock, floats by hex."""

    def exact(row: Row) -> dict[str, str]:
        values = {name: value for name, value in row.items() if not OF_THE_CLOCK.fullmatch(name)}
        return {name: value.hex() if isinstance(value, float) else repr(value) for name, value in values.items()}

    # an evaluation may come before or after the next step's row is written
    ours, theirs = (sorted(map(exact, x), key=lambda row: (int(row["step"]), *row)) for x in (rows, expected))
    for one, other in zip(ours, theirs, strict=False):
        if one != other:
            return f"{one} instead of {other}"
    return "" if len(ours) == len(theirs) else f"{len(ours)} rows instead of {len(theirs)}"


def started(command: list[str], workdir: Path, devices: int) -> subprocess.Popen:
    workdir.mkdir(parents=True, exist_ok=True)
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    with (workdir / "output.txt").open("ab") as output:
        return subprocess.Popen(
            [*command, f"--workdir={workdir}"],
            stdout=output,
            stderr=output,
            env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        )


def finish(command: list[str], workdir: Path, devices: int) -> None:
    """Runs to the end. Raises RuntimeError with the last output if the program fails."""
    _expect_success(started(command, workdir, devices), workdir)


def stop_at(command: list[str], workdir: Path, devices: int, step: int, number: signal.Signals) -> None:
    """Runs until the row of `step` is written, then sends the signal; SIGTERM must end in exit status 0."""
    process = started(command, workdir, devices)
    while process.poll() is None and not any(row["step"] >= step for row in read_rows(workdir / "metrics.jsonl")):
        time.sleep(0.02)
    if process.poll() is None:
        process.send_signal(number)
    if number == signal.SIGKILL:
        process.wait()
    else:
        _expect_success(process, workdir)


def _expect_success(process: subprocess.Popen, workdir: Path) -> None:
    if process.wait():
        output = (workdir / "output.txt").read_text(errors="replace")[-2000:]
        raise RuntimeError(f"{shlex.join(process.args)} ended with status {process.returncode}:\n{output}")
