"""Which processes of a run have come and which have not, before JAX connects them.

JAX's coordination service says neither while it waits, aborts the program when its time is up, and cannot be asked
before all have joined. So process 0 first listens at the coordinator's own address, where no other firewall rule is
needed, until every process has named itself there; then it leaves the port to JAX.

A process sends `jaxslm ID COUNT HOST`; process 0 answers `waiting TEXT` now and then, and at last `go` or `end TEXT`.
"""

import asyncio
import logging
import os
import socket
import time
from collections.abc import Sequence
from contextlib import suppress

log = logging.getLogger(__name__)


def hold(address: str, count: int, index: int, *, timeout: float, hosts: Sequence[str] = (), every: float = 30) -> None:
    """Returns once all `count` processes are there; process 0 listens at `address` (HOST:PORT), the others report.

    Each says every `every` seconds who is missing. `hosts`: where process 0, 1, ... should be running, if known.
    Raises TimeoutError after `timeout` seconds, naming those that did not come, and OSError if the port is taken.
    """
    log.info("waiting for %d processes at %s (this is process %d), for up to %g s", count, address, index, timeout)
    if index == 0:
        asyncio.run(_Call(count, address, hosts).run(timeout, every))
    else:
        asyncio.run(_answer(address, count, index, timeout, every))


class _Call:
    """Process 0's side."""

    def __init__(self, count: int, address: str, hosts: Sequence[str]) -> None:
        self.count, self.address, self.hosts = count, address, hosts
        self.lines = {}  # process -> its asyncio.StreamWriter
        self.seen = {0: socket.gethostname()}
        self.refused = ""
        self.complete = asyncio.Event()
        self.gone = asyncio.Event()  # all have hung up

    async def run(self, timeout: float, every: float) -> None:
        # as JAX's own service, which takes this place
        bind = os.environ.get("JAX_COORDINATOR_BIND_ADDRESS", f":{self.address.rpartition(':')[2]}")
        host, _, port = bind.rpartition(":")
        try:
            server = await asyncio.start_server(self.greet, host.strip("[]") or None, int(port))
        except OSError as error:
            raise OSError(
                f"process 0 cannot listen at port {port} ({error.strerror or error}). If an older run holds it, end "
                "that one; otherwise name another port in JAX_COORDINATOR_ADDRESS, the same for all processes."
            ) from error
        try:
            await self.wait(timeout, every)
            self.say("go")
        except TimeoutError:
            message = self.verdict(timeout)
            self.say(f"end {message}")
            raise TimeoutError(message) from None
        finally:
            server.close()
            with suppress(TimeoutError):  # they hang up first: the port is free at once
                await asyncio.wait_for(self.gone.wait(), 10 if self.lines else 0)
        log.info("all have come: %s", ", ".join(f"{i} on {host}" for i, host in sorted(self.seen.items())))

    async def wait(self, timeout: float, every: float) -> None:
        until = time.monotonic() + timeout
        while not self.complete.is_set():
            left = until - time.monotonic()
            if left <= 0:
                raise TimeoutError
            try:
                await asyncio.wait_for(self.complete.wait(), min(every, left))
            except TimeoutError:
                text = f"still waiting for {self.missing()}{self.refused}"
                log.info("%s", text)
                self.say(f"waiting {text}")

    def missing(self) -> str:
        """Such as `2 of 4 processes: 1 (host b), 3 (host d)`."""
        absent = [i for i in range(self.count) if i and i not in self.lines]
        each = self.count // len(self.hosts) if self.hosts and self.count % len(self.hosts) == 0 else 0
        names = [f"{i} (host {self.hosts[i // each]})" if each else str(i) for i in absent]
        return f"{len(absent)} of {self.count} processes: {', '.join(names)}"

    def verdict(self, timeout: float) -> str:
        return (
            f"after {timeout:g} s still without {self.missing()}{self.refused}. See whether their hosts are up, run "
            f"the same command, and reach {self.address} through the firewall; or allow more time by "
            "JAXSLM_INIT_TIMEOUT=SECONDS."
        )

    def say(self, line: str) -> None:
        for writer in self.lines.values():
            writer.write(f"{line}\n".encode())

    async def greet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        index = None
        with suppress(TimeoutError, ValueError, OSError, asyncio.CancelledError):
            index, theirs, host = _hello(await asyncio.wait_for(reader.readline(), 30))
            if problem := self.refusal(index, theirs, host):
                self.refused = f" ({problem})"
                log.warning("%s", problem)
                writer.write(f"end {problem}\n".encode())
            else:
                if index in self.lines:  # an older connection of that host, which may have died without a word
                    self.lines[index].write(f"end process {index} came a second time from {host}\n".encode())
                self.lines[index], self.seen[index] = writer, host
                if len(self.lines) == self.count - 1:
                    self.complete.set()
                while await reader.read(1000):
                    pass
        if self.lines.get(index) is writer:
            del self.lines[index]  # it ended, and may come again
            if not self.lines:
                self.gone.set()
        with suppress(OSError, asyncio.CancelledError):
            await writer.drain()
            writer.close()

    def refusal(self, index: int, theirs: int, host: str) -> str:
        """Why that process cannot be one of the run; '' if it can."""
        if theirs != self.count:
            return f"process {index} on {host} was told of {theirs} processes, process 0 of {self.count}"
        if not index or index in self.lines and self.seen[index] != host:
            return f"processes on {self.seen[index]} and {host} both are {index}: give each its own JAX_PROCESS_ID"
        return "" if 0 < index < self.count else f"a process {index} came from {host}, there are {self.count}"


def _hello(line: bytes) -> tuple[int, int, str]:
    """Raises ValueError for what no process of a run says, such as a port scanner."""
    word, index, count, host = line.decode("ascii", "replace").split()
    if word != "jaxslm":
        raise ValueError(line)
    return int(index), int(count), host


async def _answer(address: str, count: int, index: int, timeout: float, every: float) -> None:
    """The other processes' side: until process 0 is reached, try; then process 0 says when to go or to end."""
    host, _, port = address.rpartition(":")
    until, next_word = time.monotonic() + timeout, time.monotonic() + every
    trouble = ""
    while time.monotonic() < until:
        try:
            reader, writer = await asyncio.wait_for(asyncio.open_connection(host.strip("[]"), int(port)), 10)
            try:
                writer.write(f"jaxslm {index} {count} {socket.gethostname()}\n".encode())
                if await _heard(reader, every):
                    return
                trouble = "it hung up"
            finally:
                writer.close()
        except TimeoutError:
            trouble = "no answer: is that host up, and the port open in the firewall?"
        except _EndError as end:
            raise TimeoutError(str(end)) from None
        except ConnectionRefusedError:
            trouble = "refused: that host is up, process 0 does not listen yet"
        except OSError as error:
            trouble = error.strerror or str(error)
        if time.monotonic() >= next_word:
            log.info("still waiting for process 0 at %s (%s)", address, trouble)
            next_word += every
        await asyncio.sleep(1)
    raise TimeoutError(
        f"process {index} did not reach process 0 at {address} in {timeout:g} s ({trouble}). See whether that host is "
        "up, runs the same command, and lets the port through its firewall; or allow more time by "
        "JAXSLM_INIT_TIMEOUT=SECONDS."
    )


class _EndError(Exception):
    """Process 0 ended the roll call."""


async def _heard(reader: asyncio.StreamReader, every: float) -> bool:
    """Whether process 0 said `go`; False if it hung up. It speaks every `every` seconds, or is lost: TimeoutError."""
    while line := await asyncio.wait_for(reader.readline(), 2 * every + 30):
        word, _, text = line.decode("utf-8", "replace").strip().partition(" ")
        if word == "go":
            return True
        if word == "end":
            raise _EndError(text)
        if word != "waiting":
            return False  # something else listens there
        log.info("%s", text)
    return False
