"""Folders and files that one process at a time writes, or that are there whole or not at all."""

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def held(path: Path) -> Iterator[bool]:
    """Whether nobody else writes `path`, which is kept so until the end of the block, or of the process.

    False too if nothing is there or it was renamed meanwhile. True where the file system has no locks.
    """
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        yield False
        return
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            mine = path.exists() and os.path.samestat(os.stat(path), os.fstat(handle))
        except BlockingIOError:
            mine = False
        except OSError:  # a file system without locks
            mine = True
        yield mine
    finally:
        os.close(handle)


@contextlib.contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """An empty folder that becomes `folder` at the end of the block, unless another process was first: then that one's
    stays. Nothing is left of a block that raises."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"{folder.name}.partial-", dir=folder.parent) as scratch:
        new = Path(scratch) / folder.name
        new.mkdir()
        yield new
        try:
            new.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
