"""The processes that read utterances, and what becomes of an utterance that kills its process."""

from __future__ import annotations

import collections
import contextlib
import itertools
import logging
import multiprocessing
import signal
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from jaxslm.data.reading import Reading, Result, read_pieces
from jaxslm.data.report import Report
from jaxslm.data.sources import RawUtterance

logger = logging.getLogger(__name__)

POOL_AFTER = 5.0  # seconds of work: less is done before worker processes have started
PENDING = 8  # utterances in flight a worker, so that a source of arrays is not held in memory


def read_utterances(
    raws: Iterable[RawUtterance], reading: Reading, workers: int, *, careful: bool = False
) -> Iterator[list[Result]]:
    """What `read_pieces` makes of each, in the order of `raws`, the same for any number of worker processes.

    One on which a worker process dies is left out. careful: nothing is read in this process, which would die too.
    """
    raws, spent = iter(raws), 0.0
    for raw in raws:
        if careful or (workers > 1 and spent > POOL_AFTER):
            yield from _read_by_processes(itertools.chain([raw], raws), reading, workers)
            return
        start = time.perf_counter()
        results = read_pieces(raw, reading)
        spent += time.perf_counter() - start
        yield results


def _read_by_processes(raws: Iterator[RawUtterance], reading: Reading, workers: int) -> Iterator[list[Result]]:
    pending, died = collections.deque(), True
    while died:
        died = False
        with _processes(workers) as pool:
            try:
                for raw in raws:
                    pending.append((raw, None))
                    pending[-1] = raw, pool.submit(read_pieces, raw, reading)
                    if len(pending) >= PENDING * workers:
                        yield pending[0][1].result()
                        pending.popleft()
                while pending:
                    yield pending[0][1].result()
                    pending.popleft()
            except BrokenProcessPool:
                died = True
        if died:
            logger.warning("a process that reads was killed: %d utterances are read one by one", len(pending))
            yield from _read_one_by_one([raw for raw, _ in pending], reading)
            pending.clear()


def _processes(workers: int) -> ProcessPoolExecutor:
    context = multiprocessing.get_context("spawn")  # JAX's threads do not survive a fork
    return ProcessPoolExecutor(workers, context, initializer=signal.signal, initargs=(signal.SIGINT, signal.SIG_IGN))


def _read_one_by_one(raws: list[RawUtterance], reading: Reading) -> Iterator[list[Result]]:
    """By one process at a time, so that an utterance which kills it, a fresh one too, is known."""
    with contextlib.ExitStack() as pools:
        pool = None
        for raw in raws:
            for fresh in (pool is None, True):
                if fresh:
                    pools.close()
                    pool = pools.enter_context(_processes(1))
                    _check_start(pool)
                try:
                    yield pool.submit(read_pieces, raw, reading).result()
                    break
                except BrokenProcessPool:
                    pool = None
                    if fresh:
                        yield [_killer(raw)]
                        break


def _check_start(pool: ProcessPoolExecutor) -> None:
    try:
        pool.submit(int).result()
    except BrokenProcessPool as error:
        cure = (
            "a script that prepares needs `if __name__ == '__main__':` around what it runs; or prepare with workers=1"
        )
        raise RuntimeError(f"processes that read die before they have read anything; {cure}") from error


def _killer(raw: RawUtterance) -> Result:
    report = Report(log=False)
    cure = "convert its audio with `ffmpeg -i INPUT output.flac`, cut it or remove it; or give the program more memory"
    report.left_out(raw.where, "the process that reads it is killed (a broken file, or too little memory)", cure)
    return raw, None, report.entries
