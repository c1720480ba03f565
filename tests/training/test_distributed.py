"""Which processes a run looks for, from the environment alone. That they find each other: tests/resume."""

import jax
import pytest

from jaxslm.training import distributed

CLUSTER = ("JAX_COORDINATOR_ADDRESS", "SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE", "TPU_WORKER_HOSTNAMES")


@pytest.fixture
def joined(monkeypatch):
    for name in CLUSTER:
        monkeypatch.delenv(name, raising=False)
    calls = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda **arguments: calls.append(arguments))
    return calls


@pytest.mark.parametrize(
    "environment, arguments",
    [
        ({}, []),
        ({"SLURM_NTASKS": "8", "SLURM_PROCID": "0"}, []),  # a shell inside salloc: nobody else will come
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, []),
        ({"SLURM_STEP_NUM_TASKS": "8", "SLURM_PROCID": "0"}, [{}]),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, [{}]),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, [{}]),
        (
            {"JAX_COORDINATOR_ADDRESS": "a:1", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "1"},
            [dict(coordinator_address="a:1", num_processes=2, process_id=1)],
        ),
    ],
)
def test_who_is_waited_for(joined, monkeypatch, caplog, environment, arguments):
    caplog.set_level("INFO")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    distributed.start(timeout=7)
    assert joined == [a | {"initialization_timeout": 7} for a in arguments]
    assert ("waiting for" in caplog.text and "up to 7 s" in caplog.text) == bool(arguments)


@pytest.mark.parametrize(
    "count, index, message",
    [
        ("", "0", "JAX_NUM_PROCESSES must be a whole number, not ''"),
        ("2", "x", "JAX_PROCESS_ID must be a whole number, not 'x'"),
        ("2", "2", "JAX_PROCESS_ID=2 must lie in 0..1"),
    ],
)
def test_mistakes_are_named(joined, monkeypatch, count, index, message):
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "a:1")
    monkeypatch.setenv("JAX_NUM_PROCESSES", count)
    monkeypatch.setenv("JAX_PROCESS_ID", index)
    with pytest.raises(ValueError, match=message):
        distributed.start()


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
