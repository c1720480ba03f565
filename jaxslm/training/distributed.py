"""Start-up of several processes, agreement between them, and the signal to stop."""

import logging
import os
import secrets
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxslm.training import processes, roll_call

log = logging.getLogger(__name__)


def start() -> None:
    """Joins the other processes of the run, if there are any, saying whom it waits for. Call before any other JAX call.

    Several processes are recognised by JAX_COORDINATOR_ADDRESS (with JAX_NUM_PROCESSES and JAX_PROCESS_ID), a Slurm
    step of several tasks, Open MPI, or TPU slices as GKE describes them; elsewhere nothing happens. Two settings, in
    seconds: JAXSLM_INIT_TIMEOUT, how long other hosts may take to start (1800; JAX's own 300 are too few for a pod),
    and JAXSLM_HEARTBEAT_TIMEOUT, after which a process that is no longer heard of ends the others (100).

    Raises ValueError for a wrong setting and TimeoutError naming the processes that did not come.
    """
    timeout, heartbeat = _seconds("JAXSLM_INIT_TIMEOUT", 1800), _seconds("JAXSLM_HEARTBEAT_TIMEOUT", 100)
    arguments = dict(initialization_timeout=timeout, heartbeat_timeout_seconds=heartbeat)
    place = processes.mine()
    if place:
        address, count, index = place
        arguments.update(coordinator_address=address, num_processes=count, process_id=index)
        if count > 1:
            roll_call.hold(address, count, index, timeout=timeout, hosts=processes.hosts(count))
        jax.distributed.initialize(**arguments)
    elif os.environ.get("OMPI_COMM_WORLD_SIZE", "1") != "1":
        with _saying(f"waiting for the other processes of Open MPI, for up to {timeout} s", every=30):
            jax.distributed.initialize(**arguments)
    else:
        return
    log.info(
        "process %d of %d: all have joined, %d devices", jax.process_index(), jax.process_count(), jax.device_count()
    )


def _seconds(name: str, default: int) -> int:
    value = os.environ.get(name, str(default))
    if not value.isdecimal() or int(value) < 1:
        raise ValueError(f"{name} must be a whole number of seconds, not '{value}'.")
    return int(value)


@contextmanager
def _saying(text: str, every: float) -> Iterator[None]:
    done = threading.Event()

    def say() -> None:
        log.info("%s", text)
        while not done.wait(every):
            log.info("still %s", text)

    threading.Thread(target=say, daemon=True).start()
    try:
        yield
    finally:
        done.set()


def advice(error: BaseException) -> str:
    """What to do when a collective failed, '' for other errors: JAX names a connection, not the process behind it."""
    if not isinstance(error, jax.errors.JaxRuntimeError) or not jax.distributed.is_initialized():
        return ""
    return (
        "\nIf another process of this run has ended, its own output says why. Start all of them again by the same "
        "command: the run goes on from its last checkpoint."
    )


def stopped_status() -> int:
    """The exit status of a run that was asked to stop before its last step: JAXSLM_STOPPED_STATUS, by default 0.

    The launch scripts set it where a scheduler takes 0 for the end of the run and would not start it again.
    """
    value = os.environ.get("JAXSLM_STOPPED_STATUS", "0")
    if not value.isdecimal() or int(value) > 255:
        raise ValueError(f"JAXSLM_STOPPED_STATUS must be an exit status from 0 to 255, not '{value}'.")
    return int(value)


def agree(value: int) -> int:
    """Process 0's `value`, on every process."""
    return int(multihost_utils.broadcast_one_to_all(value)) if jax.process_count() > 1 else value


def share_of(folder: Path) -> dict[str, int | str]:
    """`process_index`, `process_count` and `run` (a name of its own) for work that is shared through a folder's files.

    Processes that do not all see the same folder, or cannot write there, do all of the work, each in its own. Every
    process must ask.
    """
    alone = dict(process_index=0, process_count=1)
    if jax.process_count() == 1:
        return alone
    run = f"{agree(secrets.randbelow(2**31)):08x}"
    mark = folder / f"shared-{run}"
    with suppress(OSError):  # what is prepared in a read-only folder can be used
        folder.mkdir(parents=True, exist_ok=True)
        if jax.process_index() == 0:
            mark.touch()
    barrier("mark made")
    seen = multihost_utils.process_allgather(np.asarray(mark.exists()))
    if seen.any() and jax.process_index() == 0:
        mark.unlink()
    if not seen.all():
        log.warning("not all processes see %s of process 0: each does all of the work in its own", folder)
        return alone
    return dict(process_index=jax.process_index(), process_count=jax.process_count(), run=run)


def barrier(name: str) -> None:
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


class StopSignal:
    """Whether SIGTERM (or Ctrl-C) asked the run to save and end. A context manager; use it on the main thread.

    Once `jax.distributed` runs, JAX's own handler hears SIGTERM on any process and names one step at which all stop;
    without it JAX hears nothing, so this installs a handler. A second Ctrl-C ends the program at once.
    """

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> "StopSignal":
        self._synced = jax.distributed.is_initialized()
        self._before = {}
        if not self._synced:
            self._before = {s: signal.signal(s, self._handle) for s in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: object) -> None:
        self.asked = True
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, self._before[signal.SIGINT])

    def reached(self, step: int) -> bool:
        """True at the step after which to save and end; the same step on every process, which must all ask at each."""
        if self._synced and multihost_utils.reached_preemption_sync_point(step):
            self.asked = True
        return self.asked
