"""A process that never comes is named by those that wait, at process 0 and at the others."""

import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from jaxslm.training import roll_call

HOSTS = ["ash", "birch", "cedar"]


@pytest.fixture
def address():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def outcome(address, count, index, timeout=20.0, **settings):
    """'' if the roll call ends well, else what it raised."""
    try:
        roll_call.hold(address, count, index, timeout=timeout, **settings)
    except OSError as error:
        return f"{type(error).__name__}: {error}"
    return ""


def together(*calls):
    with ThreadPoolExecutor(len(calls)) as pool:
        return [future.result(40) for future in [pool.submit(outcome, *call[0], **call[1]) for call in calls]]


def test_all_come_and_the_port_is_free_again(address, caplog):
    caplog.set_level("INFO")
    for _ in range(2):  # the same command at once again, as after a preemption
        assert together(*[((address, 3, index), {}) for index in (2, 1, 0)]) == ["", "", ""]
    here = socket.gethostname()
    assert f"all have come: 0 on {here}, 1 on {here}, 2 on {here}" in caplog.text
    with socket.socket() as jax_service:
        jax_service.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        jax_service.bind(("127.0.0.1", int(address.split(":")[1])))


def test_who_did_not_come_is_named_everywhere(address, caplog):
    caplog.set_level("INFO")
    settings = dict(timeout=2, hosts=HOSTS, every=0.5)
    zero, two = together(((address, 3, 0), settings), ((address, 3, 2), settings | dict(timeout=20)))
    assert zero == two and zero.startswith(
        "TimeoutError: after 2 s still without 1 of 3 processes: 1 (host birch). See"
    )
    assert address in zero and "firewall" in zero and "JAXSLM_INIT_TIMEOUT" in zero
    waiting = [record.getMessage() for record in caplog.records if record.getMessage().startswith("still waiting")]
    assert waiting.count("still waiting for 1 of 3 processes: 1 (host birch)") >= 2  # of process 0 and of process 2


def test_hosts_of_several_processes_each(address):
    assert "3 of 4 processes: 1 (host a), 2 (host b), 3 (host b)." in outcome(address, 4, 0, 0.2, hosts=["a", "b"])
    assert "2 of 3 processes: 1, 2." in outcome(address, 3, 0, 0.2, hosts=["a", "b"])  # not known after all


def test_without_process_0(address, caplog):
    caplog.set_level("INFO")
    said = outcome(address, 2, 1, 2, every=0.5)
    assert f"process 1 did not reach process 0 at {address} in 2 s (refused: that host is up" in said
    assert f"still waiting for process 0 at {address}" in caplog.text


def test_one_that_ends_may_come_again(address):
    """Process 1 hangs up while process 2 is still missing; it is missed then, and welcome later."""
    with ThreadPoolExecutor(3) as pool:
        zero = pool.submit(outcome, address, 3, 0)
        early = connected(address)
        early.sendall(b"jaxslm 1 3 birch\n")
        early.close()
        two = pool.submit(outcome, address, 3, 2)
        assert not threading.Event().wait(1) and not two.done()
        assert outcome(address, 3, 1) == ""
        assert [zero.result(20), two.result(20)] == ["", ""]


@pytest.mark.parametrize(
    "line, answer",
    [
        (b"jaxslm 1 8 elm\n", b"end process 1 on elm was told of 8 processes, process 0 of 2\n"),
        (b"jaxslm 7 2 elm\n", b"end a process 7 came from elm, there are 2\n"),
        (b"GET / HTTP/1.1\r\n", b""),
        (b"\xff" * 100_000, b""),
    ],
)
def test_strangers_are_refused_and_do_not_count(address, line, answer):
    with ThreadPoolExecutor(1) as pool:
        zero = pool.submit(outcome, address, 2, 0, 20, every=0.5)
        stranger = connected(address)
        stranger.sendall(line)
        try:
            assert stranger.makefile("rb").readline() == answer
        except ConnectionResetError:
            assert not answer
        assert not zero.done()
        assert outcome(address, 2, 1) == "" and zero.result(20) == ""


def test_two_processes_of_one_name(address):
    with ThreadPoolExecutor(1) as pool:
        zero = pool.submit(outcome, address, 3, 0, 3)
        first, second, again = (connected(address) for _ in range(3))
        first.sendall(b"jaxslm 1 3 elm\n")
        threading.Event().wait(0.3)
        second.sendall(b"jaxslm 1 3 oak\n")
        assert (
            second.makefile("rb").readline().startswith(b"end processes on elm and oak both are 1: give each its own")
        )
        again.sendall(b"jaxslm 1 3 elm\n")  # it restarted, the old connection lingers
        assert first.makefile("rb").readline() == b"end process 1 came a second time from elm\n"
        for connection in (first, second, again):
            connection.close()
        assert "elm and oak both are 1" in zero.result(20)


def test_a_taken_port_is_named(address):
    host, port = address.split(":")
    with socket.create_server((host, int(port))):
        said = outcome(address, 2, 0)
    assert f"process 0 cannot listen at port {port}" in said and "JAX_COORDINATOR_ADDRESS" in said


def connected(address):
    host, port = address.split(":")
    for _ in range(200):
        try:
            return socket.create_connection((host, int(port)))
        except ConnectionRefusedError:
            threading.Event().wait(0.05)
    raise AssertionError(f"nobody listens at {address}")
