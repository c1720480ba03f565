"""The folder of a run: what its JSON files say, and whether a restarted run still means the same."""

import contextlib
import datetime
import json
import logging
import platform
import shlex
import subprocess
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

from jaxslm.locking import held
from jaxslm.training.distributed import agree
from jaxslm.training.task import Task

log = logging.getLogger(__name__)

# These say how far, how often and on what the run goes, not what it computes.
FREE_TO_CHANGE = ("steps", "log_every", "init_from", "checkpoint", "eval", "export", "mesh", "workers", "profile_steps")
PROVENANCE_FILE = "provenance.json"
HARDWARE_FILE = "hardware.json"


def prepare(workdir: str | Path) -> Path:
    """The absolute folder, made if need be."""
    if "://" in str(workdir):
        raise ValueError(
            f"--workdir={workdir} is not a folder. Mount the bucket (gcsfuse, s3fs) and name the mounted folder."
        )
    folder = Path(workdir).expanduser().absolute()
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"--workdir={folder} is a file; name a folder.")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextlib.contextmanager
def alone(workdir: Path) -> Iterator[None]:
    """Keeps other runs out of the workdir: what they clean up may be a checkpoint that this one writes. As far as its
    file system has locks: on NFS and mounted buckets, those of this host.

    Every process of the run asks. Raises ValueError in all of them if another run is there.
    """
    with contextlib.ExitStack() as stack:
        mine = jax.process_index() > 0 or stack.enter_context(held(workdir))
        if not agree(int(mine)):
            raise ValueError(
                f"another process trains in {workdir}: wait until it has ended, or name another folder by --workdir"
            )
        yield


def write_json(path: Path, content: Any) -> None:
    """Process 0 writes; the file is never half there."""
    if jax.process_index() == 0:
        new = path.with_name(f"{path.name}.new")
        new.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        new.replace(path)


def write_provenance(folder: Path, command: Sequence[str]) -> None:
    """Notes what was run, with which version: `PROVENANCE_FILE`."""
    versions = {name: metadata.version(name) for name in ("jaxslm", "jax", "flax", "optax")}
    write_json(folder / PROVENANCE_FILE, {"command": shlex.join(command), "commit": _commit(), "versions": versions})


def write_hardware(folder: Path, step: int) -> None:
    """Notes on what the run starts, or goes on after `step` steps: `HARDWARE_FILE`, an entry for each start.

    `host` and the versions are those of process 0, which writes.
    """
    device = jax.devices()[0]
    start = {
        "step": step,
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "platform": device.platform,
        "device_kind": device.device_kind,
        "device_count": jax.device_count(),
        "process_count": jax.process_count(),
        "host": platform.node(),
        "system": platform.platform(),
        "python": platform.python_version(),
    }
    start |= {name: metadata.version(name) for name in ("jax", "jaxlib")}
    write_json(folder / HARDWARE_FILE, [*read_hardware(folder), start])


def read_hardware(folder: Path) -> list[dict[str, Any]]:
    """What `write_hardware` noted of each start; [] if nothing, or nothing that can be read."""
    try:
        starts = json.loads((folder / HARDWARE_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return [start for start in starts if isinstance(start, dict)] if isinstance(starts, list) else []


def _commit() -> str:
    """Of the checkout this runs from; '' if it is installed."""
    here = Path(__file__).resolve().parents[2]
    if not (here / ".git").exists():
        return ""
    try:
        asked = subprocess.run(
            ["git", "-C", str(here), "rev-parse", "HEAD"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return asked.stdout.strip()


def check_artifacts(task: Task, folder: Path) -> None:
    """Raises ValueError if the checkpoints in `folder` mean something else than `task` would make of them."""
    for name, current in task.artifacts.items():
        path = folder / name
        if not path.exists():
            raise ValueError(
                f"{path} is missing, so its checkpoints cannot be understood. Put it back, or use a new --workdir."
            )
        task.check_artifact(name, json.loads(path.read_text()), current)


def check_config(path: Path, current: dict[str, Any]) -> None:
    """Reports what changed since the run was last started and is not free to change."""
    if not path.exists():
        return
    saved, now = dict(flat(json.loads(path.read_text()))), dict(flat(current))
    for name in saved | now:
        old, new = saved.get(name, "(not there)"), now.get(name, "(not there)")
        if old != new and not set(name.split(".")) & set(FREE_TO_CHANGE):
            log.warning("config.%s was %s when this run was last started and is %s now", name, old, new)


def flat(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """("model.d_model", 256) of each value of nested dicts."""
    if isinstance(config, dict) and config:
        for name, value in config.items():
            yield from flat(value, f"{prefix}.{name}" if prefix else name)
    else:
        yield prefix, config
