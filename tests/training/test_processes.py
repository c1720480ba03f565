"""Which processes a run looks for, and where, from the environment alone."""

import pytest

from jaxslm.training import processes
from tests.training.environment import clear

SLURM = {"SLURM_STEP_NUM_TASKS": "8", "SLURM_PROCID": "5", "SLURM_JOB_ID": "70000", "SLURM_STEP_NODELIST": "n[07-10]"}
SLICES = {"MEGASCALE_NUM_SLICES": "2", "MEGASCALE_SLICE_ID": "1", "MEGASCALE_COORDINATOR_ADDRESS": "s0:8080"}


@pytest.fixture
def given(monkeypatch):
    clear(monkeypatch)

    def give(environment):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)

    return give


@pytest.mark.parametrize(
    "environment, place",
    [
        ({}, None),
        ({"SLURM_NTASKS": "8", "SLURM_PROCID": "0"}, None),  # a shell inside salloc: nobody else will come
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, None),
        ({"JAX_COORDINATOR_ADDRESS": "a:1", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "1"}, ("a:1", 2, 1)),
        (SLURM, (f"n07:{61_440 + 70_000 % 4096}", 8, 5)),
        (SLURM | {"JAX_COORDINATOR_PORT": "99"}, ("n07:99", 8, 5)),
        ({"TPU_WORKER_HOSTNAMES": "a,b", "TPU_WORKER_ID": "1"}, ("a:8476", 2, 1)),
        (SLICES | {"TPU_WORKER_HOSTNAMES": "c,d", "TPU_WORKER_ID": "1"}, ("s0:8476", 4, 3)),
        (SLICES | {"TPU_WORKER_HOSTNAMES": "c"}, ("s0:8476", 2, 1)),  # two slices of one host each
    ],
)
def test_where_a_process_stands(given, environment, place):
    given(environment)
    assert processes.mine() == place


@pytest.mark.parametrize(
    "address, count, index, message",
    [
        ("a:1", "", "0", "JAX_NUM_PROCESSES must be a whole number, not ''"),
        ("a:1", "2", "x", "JAX_PROCESS_ID must be a whole number, not 'x'"),
        ("a:1", "2", "2", "JAX_PROCESS_ID=2 must lie in 0..1"),
        ("a", "2", "0", "JAX_COORDINATOR_ADDRESS='a' must be HOST:PORT"),
    ],
)
def test_mistakes_are_named(given, address, count, index, message):
    given({"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": count, "JAX_PROCESS_ID": index})
    with pytest.raises(ValueError, match=message):
        processes.mine()


@pytest.mark.parametrize(
    "environment, hosts",
    [
        ({}, []),
        ({"JAXSLM_HOSTS": "x,y", "SLURM_STEP_NODELIST": "n[1-2]"}, ["x", "y"]),
        (SLURM, ["n07", "n08", "n09", "n10"]),
        ({"TPU_WORKER_HOSTNAMES": "a,b,c,d"}, ["a", "b", "c", "d"]),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, []),  # of this slice; the other slice's are not known
    ],
)
def test_hosts_in_the_order_of_processes(given, environment, hosts):
    given(environment)
    assert processes.hosts(4) == hosts


@pytest.mark.parametrize(
    "nodes, names",
    [
        ("a", ["a"]),
        ("a,b-1", ["a", "b-1"]),
        ("n[001-003,7],login", ["n001", "n002", "n003", "n7", "login"]),
        ("n[9-11]-ib", ["n9-ib", "n10-ib", "n11-ib"]),
        ("r[0-1]n[1,3]", ["r0n1", "r0n3", "r1n1", "r1n3"]),
    ],
)
def test_node_lists_as_scontrol_shows_them(nodes, names):
    assert processes.node_names(nodes) == names
