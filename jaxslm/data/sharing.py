"""Several processes that make one folder: who makes which shard, and waiting for one another through the files there.

No network is needed, so a preparation can also be shared by programs that have only the folder and the name of their
run in common.
"""

from __future__ import annotations

import collections
import contextlib
import logging
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar

from jaxslm.data.shards import disk_errors
from jaxslm.locking import held

logger = logging.getLogger(__name__)

SCRATCH, RUN = "partial-", ".run-"
_FAILED = "failed"
_FORGET = 30 * 86_400.0  # seconds after which nobody of a run can still want to read what its processes told each other
_POLL = 0.2
_SAY_AFTER, _SAY_EVERY = 5.0, 60.0  # seconds
_WAITING = 64  # calls that `Behind` holds at most

Item = TypeVar("Item")


class OtherFailed(RuntimeError):
    """Another process of this run has failed."""


class Part(NamedTuple):
    """Process `index` of `count`. notes: the folder in which the processes of this run tell each other things."""

    index: int = 0
    count: int = 1
    notes: Path | None = None

    def has(self, shard: int) -> bool:
        return shard % self.count == self.index

    def check(self) -> None:
        """Raises OtherFailed if another process of this run has failed, whenever that was."""
        for note in sorted(self.notes.glob(f"{_FAILED}-*")) if self.notes else ():
            raise OtherFailed(f"process {note.name.partition('-')[2]} failed: {note.read_text(encoding='utf-8')}")

    def tell(self, what: str, text: str) -> None:
        """Writes the note `what` of this process, whole or not at all."""
        note = self.notes / f"{what}-{self.index}"
        new = note.with_name(f".{note.name}")
        with disk_errors(note):
            new.write_text(text, encoding="utf-8")
            os.replace(new, note)

    def all_say(self, what: str, yes: bool) -> bool:
        """Whether all processes say yes; waits until they have said. `what` is asked once a run."""
        if self.notes is None:
            return yes
        self.tell(what, str(yes))
        notes = [self.notes / f"{what}-{index}" for index in range(self.count)]
        wait(notes, Path.is_file, lambda note: note.name, self.notes, self)
        return all(note.read_text(encoding="utf-8") == str(True) for note in notes)


@contextlib.contextmanager
def telling(cache: Path, index: int, count: int, run: str) -> Iterator[Part]:
    """The part of a process that tells the others of its run if it fails, so that they wait no longer.

    Notes lie in a folder that is named by the run: those of another run are not seen, and a process that comes late
    finds what was written before it began. Folders of former runs are removed after a month.
    """
    if count == 1:
        yield Part()
        return
    if not run:
        raise ValueError("several processes share the work, and `run` is empty: give all of them one new name")
    for notes in cache.glob(f"{RUN}*"):
        with contextlib.suppress(FileNotFoundError):  # removed by another process
            if time.time() - notes.stat().st_mtime > _FORGET:
                shutil.rmtree(notes, ignore_errors=True)
    part = Part(index, count, cache / f"{RUN}{run}")
    part.notes.mkdir(parents=True, exist_ok=True)
    try:
        yield part
    except OtherFailed:
        raise
    except BaseException as error:
        with contextlib.suppress(OSError):
            part.tell(_FAILED, str(error).split("\n")[0] or type(error).__name__)
        raise


@contextlib.contextmanager
def alone(folder: Path, part: Part) -> Iterator[bool]:
    """Waits for other programs that make the same part of the folder, and sweeps up what one that was killed left.

    Yields whether there was such. Raises OtherFailed. Where nothing can be written nobody is waited for.
    """
    lock, said = Path(f"{folder}.lock{f'-{part.index}' if part.index else ''}"), False
    with contextlib.suppress(OSError):  # of a read-only folder a complete preparation can be used
        lock.touch()
    while lock.exists():
        with held(lock) as mine:
            if mine:
                with held(lock) as again:  # files cannot be locked here, so scratch may be of a living one
                    unlocked = again
                mine = f"{SCRATCH}{part.index}-*"
                yield not unlocked and sweep(folder, mine, f"*/{mine}")
                return
        if not said:
            logger.warning("waiting for another process that prepares %s", folder)
        said = True
        part.check()
        time.sleep(_POLL)
    yield False


def sweep(folder: Path, *patterns: str) -> bool:
    """Removes the scratch folders of these patterns in `folder`, by default all; True if there were any."""
    stale = [path for pattern in patterns or (f"{SCRATCH}*",) for path in folder.glob(pattern)]
    for path in stale:
        shutil.rmtree(path, ignore_errors=True)
    return bool(stale)


@contextlib.contextmanager
def scratch(folder: Path, part: Part) -> Iterator[Path]:
    """A folder inside `folder` for files that are not whole yet."""
    path = folder / f"{SCRATCH}{part.index}-{uuid.uuid4().hex[:8]}"
    with disk_errors(path):
        path.mkdir(parents=True)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def wait(
    items: Iterable[Item], ready: Callable[[Item], bool], name: Callable[[Item], str], folder: Path, part: Part
) -> None:
    """Until all items are ready, saying which are waited for. Raises OtherFailed."""
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
