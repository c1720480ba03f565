"""What every benchmark reports, in one form, and sides that take steps in turn in processes of their own."""

import json
import math
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


def jax_device() -> dict[str, Any]:
    """Of the first device of this process: "device", its name; "peak_flops" (bfloat16) and "hbm_bandwidth" of the chip,
    None where unknown; "device_peak_memory_mib", the most that arrays and programs held, None on a CPU."""
    import jax

    from jaxslm.planning.chips import chip_of

    device = jax.local_devices()[0]
    chip = chip_of(device)
    peak = (device.memory_stats() or {}).get("peak_bytes_in_use")
    return dict(
        device=device.device_kind,
        peak_flops=chip.peak_flops if math.isfinite(chip.peak_flops) else None,
        hbm_bandwidth=chip.hbm_bandwidth or None,
        device_peak_memory_mib=peak and peak / 2**20,
    )


def torch_device() -> dict[str, Any]:
    """ "device" and "device_peak_memory_mib" as `jax_device` has them."""
    import torch

    if not torch.cuda.is_available():
        return dict(device="cpu", device_peak_memory_mib=None)
    return dict(device=torch.cuda.get_device_name(), device_peak_memory_mib=torch.cuda.max_memory_allocated() / 2**20)


def same_device(ours: Mapping[str, Any], peer: Mapping[str, Any]) -> str:
    """The device of two sides, by what `Side.finish` gave; RuntimeError if they ran on two."""
    if ours["device"] != peer["device"]:
        raise RuntimeError(
            f"ours ran on {ours['device']}, the peer on {peer['device']}: install both jax and torch for the GPU, or "
            "set CUDA_VISIBLE_DEVICES= and JAX_PLATFORMS=cpu"
        )
    return ours["device"]


def peak_memory_mib(side: Mapping[str, Any]) -> float | None:
    """Of the device, by what `Side.finish` gave; on a CPU of the process."""
    return side["device_peak_memory_mib"] or side["peak_memory_mib"]


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

    def finish(self) -> dict:
        """Ends the process; returns what it says of itself: "peak_memory_mib", of its resident memory, and `about`."""
        said = self._ask("stop")
        self.process.wait()
        return said


def serve(steps: Iterable[Callable[[], dict]], about: Callable[[], dict] = dict) -> None:
    """Takes the next of `steps` whenever the process that made this one a `Side` asks. Making a step is not timed.

    about: asked at the end, for `Side.finish`; of the CPU there is nothing more to say.
    """
    steps = iter(steps)
    for request in sys.stdin:
        if request.strip() != "step":
            print(json.dumps(dict(peak_memory_mib=own_peak_memory_mib()) | about()), flush=True)
            return
        step = next(steps)
        start, cpu_start = time.perf_counter(), time.process_time()
        given = step()
        seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
        print(json.dumps(dict(seconds=seconds, cpu_seconds=cpu_seconds) | given), flush=True)
