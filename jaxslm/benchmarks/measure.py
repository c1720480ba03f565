"""What every benchmark reports, in one form."""

from collections.abc import Iterable, Mapping
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
