"""Folders that one process at a time writes."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def held(folder: Path) -> Iterator[bool]:
    """Whether nobody else writes `folder`, which is kept so until the end of the block, or of the process.

    False too if the folder is not there or was renamed meanwhile. True where the file system has no locks.
    """
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        yield False
        return
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            mine = folder.exists() and os.path.samestat(os.stat(folder), os.fstat(handle))
        except BlockingIOError:
            mine = False
        except OSError:  # a file system without locks
            mine = True
        yield mine
    finally:
        os.close(handle)
