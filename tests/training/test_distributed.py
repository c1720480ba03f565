"""What a process does before it trains. That processes find each other: tests/resume, tests/end_to_end."""

import jax
import pytest

from jaxslm.training import distributed, roll_call
from tests.training.environment import clear


@pytest.fixture
def joined(monkeypatch):
    """What JAX is asked to join, after what roll call."""
    clear(monkeypatch)
    calls = []
    monkeypatch.setattr(roll_call, "hold", lambda *arguments, **named: calls.append((*arguments, named)))
    monkeypatch.setattr(jax.distributed, "initialize", lambda **arguments: calls.append(arguments))
    return calls


def test_a_run_of_one_joins_nobody(joined):
    distributed.start()
    assert joined == []


def test_the_roll_is_called_before_jax_connects(joined, monkeypatch):
    for name, value in {
        "JAX_COORDINATOR_ADDRESS": "a:1", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "1", "JAXSLM_HOSTS": "a,b",
        "JAXSLM_INIT_TIMEOUT": "7", "JAXSLM_HEARTBEAT_TIMEOUT": "9",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    distributed.start()
    assert joined == [
        ("a:1", 2, 1, dict(timeout=7, hosts=["a", "b"])),
        dict(
            coordinator_address="a:1",
            num_processes=2,
            process_id=1,
            initialization_timeout=7,
            heartbeat_timeout_seconds=9,
        ),
    ]


def test_open_mpi_is_left_to_jax(joined, monkeypatch, caplog):
    caplog.set_level("INFO")
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    distributed.start()
    assert joined == [dict(initialization_timeout=1800, heartbeat_timeout_seconds=100)]
    assert "waiting for the other processes of Open MPI, for up to 1800 s" in caplog.text


@pytest.mark.parametrize("name", ["JAXSLM_INIT_TIMEOUT", "JAXSLM_HEARTBEAT_TIMEOUT"])
@pytest.mark.parametrize("value", ["0", "5m", ""])
def test_seconds_are_whole(joined, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=f"{name} must be a whole number of seconds, not '{value}'"):
        distributed.start()


@pytest.mark.parametrize("value", ["", "256", "-1"])
def test_an_exit_status_is_one(monkeypatch, value):
    assert distributed.stopped_status() == 0
    monkeypatch.setenv("JAXSLM_STOPPED_STATUS", value)
    with pytest.raises(ValueError, match=f"JAXSLM_STOPPED_STATUS must be an exit status from 0 to 255, not '{value}'"):
        distributed.stopped_status()


def test_advice_is_for_failed_collectives_of_several_processes(monkeypatch):
    failed = jax.errors.JaxRuntimeError("UNKNOWN: Connection reset by peer")
    assert distributed.advice(failed) == ""
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
    assert "goes on from its last checkpoint" in distributed.advice(failed)
    assert distributed.advice(ValueError("a typing mistake")) == ""


@pytest.mark.parametrize("writable", [True, False])
def test_work_is_shared_by_a_new_name_where_all_can_write(monkeypatch, tmp_path, caplog, writable):
    (tmp_path / "file").touch()
    folder = tmp_path / ("cache" if writable else "file/cache")
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    for name in ("agree", "barrier"):
        monkeypatch.setattr(distributed, name, lambda value: value)
    monkeypatch.setattr(distributed.multihost_utils, "process_allgather", lambda seen: seen)
    shares = [distributed.share_of(folder) for _ in range(2)]
    if writable:
        assert shares[0].pop("run") != shares[1].pop("run")
        assert shares == [dict(process_index=0, process_count=2)] * 2 and not list(folder.iterdir())
    else:
        assert shares == [dict(process_index=0, process_count=1)] * 2
        assert f"not all processes see {folder}" in caplog.text
