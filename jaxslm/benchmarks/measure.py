"""What every benchmark reports, in one form, and sides that take steps in turn in processes of their own."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any


def report(
    bench: str,
    *,
    ours: float,
    peer: float | None,
    unit: str,
    shapes: Mapping[str, Any],
    packages: Iterable[str],
    peak_memory_mib: Mapping[str, float | None] | None = None,
    **details: Any,
) -> dict[str, Any]:
    """The dict that `launch/bench.py` prints. `ours` and `peer` are speeds in `unit`, `ratio` is ours over peer; None
    where there is no peer or nothing was measured. `packages` are those whose versions matter."""
    return {
        "bench": bench,
        "ours": ours,
        "peer": peer,
        "ratio": None if peer is None else ours / peer,
        "unit": unit,
        "peak_memory_mib": {"ours": None, "peer": None} | dict(peak_memory_mib or {}),
        "shapes": dict(shapes),
        "versions": {name: version(name) for name in packages},
        "details": details,
    }


def own_peak_memory_mib() -> float | None:
    """The most memory that this process has held, in MiB; None where /proc does not tell.

    Not getrusage: its peak starts from that of the process that spawned this one.
    """
    path = Path("/proc/self/status")
    if not path.exists():
        return None
    status = dict(line.split(":", 1) for line in path.read_text().splitlines())
    return int(status["VmHWM"].split()[0]) / 1024


class Side:
    """A process that takes one step when told to: its peak memory is its own, and its idle threads disturb nobody.

    module: run with `argv`; it calls `serve`.
    """

    def __init__(self, module: str, argv: Sequence[str], environment: Mapping[str, str] | None = None):
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, *argv],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | dict(environment or {}),
        )

    def _ask(self, request: str) -> dict:
        self.process.stdin.write(request + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError(f"worker ended with exit code {self.process.wait()}; its error is above.")
        return json.loads(answer)

    def step(self) -> dict:
        """ "seconds" and "cpu_seconds" of a step, and what it gave."""
        return self._ask("step")

    def finish(self) -> float | None:
        """Ends the process; returns the peak of its resident memory in MiB."""
        peak = self._ask("stop")["peak_memory_mib"]
        self.process.wait()
        return peak


def serve(steps: Iterable[Callable[[], dict]]) -> None:
    """Takes the next of `steps` whenever the process that made this one a `Side` asks. Making a step is not timed."""
    steps = iter(steps)
    for request in sys.stdin:
        if request.strip() != "step":
            print(json.dumps(dict(peak_memory_mib=own_peak_memory_mib())), flush=True)
            return
        step = next(steps)
        start, cpu_start = time.perf_counter(), time.process_time()
        given = step()
        seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
        print(json.dumps(dict(seconds=seconds, cpu_seconds=cpu_seconds) | given), flush=True)
