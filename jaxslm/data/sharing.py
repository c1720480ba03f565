"""Several processes that make one folder: who makes which shard, and waiting for one another through the files there.

No network is needed, so a preparation can also be shared by programs that know nothing of each other but the folder.
"""

from __future__ import annotations

import collections
import contextlib
import fcntl
import logging
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar

logger = logging.getLogger(__name__)

SCRATCH, FAILED = "partial-", ".failed-"
_SAY_AFTER, _SAY_EVERY = 5.0, 60.0  # seconds
_WAITING = 64  # calls that `Behind` holds at most

Item = TypeVar("Item")


class Part(NamedTuple):
    """Process `index` of `count`. notes: where they say that they failed; old: what earlier runs said there."""

    index: int = 0
    count: int = 1
    notes: Path | None = None
    old: frozenset[tuple[Path, int]] = frozenset()

    def has(self, shard: int) -> bool:
        return shard % self.count == self.index

    def check(self) -> None:
        """Raises RuntimeError if another process of this run has failed."""
        for note, _ in sorted(_failures(self.notes) - self.old if self.notes else ()):
            raise RuntimeError(f"process {note.suffix.removeprefix(FAILED)} failed: {note.read_text(encoding='utf-8')}")


def _failures(notes: Path) -> frozenset[tuple[Path, int]]:
    found = set()
    for note in notes.parent.glob(f"{notes.name}{FAILED}*"):
        with contextlib.suppress(FileNotFoundError):  # taken back at this moment
            found.add((note, note.stat().st_mtime_ns))
    return frozenset(found)


@contextlib.contextmanager
def telling(notes: Path, part: Part) -> Iterator[Part]:
    """Tells the other processes if this one fails, by a file NOTES.failed-INDEX, so that they wait no longer.

    Yields the part with what it needs to be told.
    """
    if part.count == 1:
        yield part
        return
    old, note = _failures(notes), Path(f"{notes}{FAILED}{part.index}")
    note.unlink(missing_ok=True)
    try:
        yield part._replace(notes=notes, old=old)
    except BaseException as error:
        with contextlib.suppress(OSError):
            note.write_text(str(error).split("\n")[0] or type(error).__name__, encoding="utf-8")
        raise


@contextlib.contextmanager
def alone(folder: Path, part: Part) -> Iterator[None]:
    """Waits for other programs that make the same part of the folder, and sweeps up what one that was killed left."""
    with open(f"{folder}.lock{f'-{part.index}' if part.index else ''}", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logger.warning("waiting for another process that prepares %s", folder)
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError:  # files cannot be locked here, so somebody else's scratch cannot be told from a dead one's
            yield
            return
        sweep(folder, f"{SCRATCH}{part.index}-*")
        yield


def sweep(folder: Path, pattern: str = f"{SCRATCH}*") -> None:
    """Removes scratch folders in `folder` and in those directly below it."""
    for stale in (*folder.glob(pattern), *folder.glob(f"*/{pattern}")):
        shutil.rmtree(stale, ignore_errors=True)


@contextlib.contextmanager
def scratch(folder: Path, part: Part) -> Iterator[Path]:
    """A folder inside `folder` for files that are not whole yet."""
    path = folder / f"{SCRATCH}{part.index}-{uuid.uuid4().hex[:8]}"
    path.mkdir(parents=True)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def wait(
    items: Iterable[Item], ready: Callable[[Item], bool], name: Callable[[Item], str], folder: Path, part: Part
) -> None:
    """Until all items are ready, saying which are waited for. Raises RuntimeError if another process fails."""
    left, start, pause, said = list(items), time.monotonic(), 0.02, -_SAY_EVERY
    while left := [item for item in left if not ready(item)]:
        part.check()
        waited = time.monotonic() - start
        if waited > _SAY_AFTER and waited - said > _SAY_EVERY:
            said, more = waited, f" and {len(left) - 3} more" if len(left) > 3 else ""
            names = ", ".join(map(name, left[:3]))
            logger.info("waiting for other processes to make %s%s in %s (do they see it?)", names, more, folder)
        time.sleep(pause)
        pause = min(1.5 * pause, 2.0)


class Behind:
    """A context manager whose calls are made in their order by a thread behind the caller's.

    An error of one comes out at a later call or at the end, and no call after it is made.
    """

    def __init__(self):
        self._pool, self._calls, self._failed = ThreadPoolExecutor(1), collections.deque(), False

    def __enter__(self) -> Behind:
        return self

    def __call__(self, function: Callable, *arguments) -> None:
        while len(self._calls) >= _WAITING or (self._calls and self._calls[0].done()):
            self._calls.popleft().result()
        self._calls.append(self._pool.submit(self._run, function, *arguments))

    def _run(self, function: Callable, *arguments) -> None:
        if self._failed:
            return
        try:
            function(*arguments)
        except BaseException:
            self._failed = True
            raise

    def __exit__(self, kind, *_) -> None:
        if kind is not None:
            self._failed = True  # what waits would go into a folder that is given up
        self._pool.shutdown()
        for call in self._calls if kind is None else ():
            call.result()


def ahead(items: Iterator[Item]) -> Iterator[Item]:
    """The items, each made by a thread while the one before is used."""
    end = object()
    with ThreadPoolExecutor(1) as pool:
        coming: Future = pool.submit(next, items, end)
        while (item := coming.result()) is not end:
            coming = pool.submit(next, items, end)
            yield item
