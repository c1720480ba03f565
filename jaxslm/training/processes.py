"""Where this process stands among those of its run, and on which hosts they are, from the environment alone."""

import os
import re

# Of the ports between TPU VMs, Google's default firewall opens 8476 but not the 8482 of newer JAX (jax #35905).
TPU_PORT = 8476


def mine() -> tuple[str, int, int] | None:
    """(address HOST:PORT of process 0, number of processes, index of this one); None for a run of one, or Open MPI.

    JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID; else what srun sets for a step of several tasks;
    else what GKE sets for TPU slices. JAX_COORDINATOR_PORT changes the port of the last two.
    """
    address = os.environ.get("JAX_COORDINATOR_ADDRESS", "")
    if address:
        count, index = _whole("JAX_NUM_PROCESSES"), _whole("JAX_PROCESS_ID")
        if not re.fullmatch(r".+:\d+", address):
            raise ValueError(f"JAX_COORDINATOR_ADDRESS='{address}' must be HOST:PORT of process 0, such as host:8476.")
        if not 0 <= index < count:
            raise ValueError(f"JAX_PROCESS_ID={index} must lie in 0..{count - 1} (JAX_NUM_PROCESSES={count}).")
        return address, count, index
    tasks = os.environ.get("SLURM_STEP_NUM_TASKS", "1")  # set by srun only: a shell inside salloc is one process
    if tasks != "1" and "SLURM_PROCID" in os.environ:
        # above the ports that Linux hands out, and another for each job on the host
        port = os.environ.get("JAX_COORDINATOR_PORT") or 61_440 + int(os.environ["SLURM_JOB_ID"]) % 4096
        nodes = node_names(os.environ["SLURM_STEP_NODELIST"])
        return f"{nodes[0]}:{port}", int(tasks), int(os.environ["SLURM_PROCID"])
    return _of_slices()


def _of_slices() -> tuple[str, int, int] | None:
    hosts = os.environ.get("TPU_WORKER_HOSTNAMES", "").split(",")
    slices = int(os.environ.get("MEGASCALE_NUM_SLICES") or 1)
    if len(hosts) * slices == 1:
        return None
    first = os.environ.get("MEGASCALE_COORDINATOR_ADDRESS", "").split(":")[0] or hosts[0]
    port = os.environ.get("JAX_COORDINATOR_PORT") or TPU_PORT
    index = int(os.environ.get("MEGASCALE_SLICE_ID") or 0) * len(hosts) + int(os.environ.get("TPU_WORKER_ID") or 0)
    return f"{first}:{port}", len(hosts) * slices, index


def hosts(count: int) -> list[str]:
    """Hosts in the order of their processes, the same number on each; empty if not known.

    JAXSLM_HOSTS (comma-separated; launch/tpu_pod.sh sets it), the nodes of the Slurm step, or of a single TPU slice.
    """
    named = os.environ.get("JAXSLM_HOSTS", "")
    if named:
        return named.split(",")
    if "SLURM_STEP_NODELIST" in os.environ:
        return node_names(os.environ["SLURM_STEP_NODELIST"])
    workers = os.environ.get("TPU_WORKER_HOSTNAMES", "").split(",")
    return workers if len(workers) == count else []


def node_names(nodes: str) -> list[str]:
    """Slurm's `a[01-02,7],b` as a01, a02, a7, b."""
    names = []
    for word in re.findall(r"(?:[^,\[]|\[[^\]]*\])+", nodes):
        before, ranges, after = re.fullmatch(r"([^\[]*)(?:\[([^\]]*)\])?(.*)", word).groups()
        if ranges is None:
            names.append(word)
            continue
        for part in ranges.split(","):
            first, _, last = part.partition("-")
            for number in range(int(first), int(last or first) + 1):
                names += [f"{before}{number:0{len(first)}d}{rest}" for rest in node_names(after) or [""]]
    return names


def _whole(name: str) -> int:
    value = os.environ.get(name, "")
    if not value.isdecimal():
        raise ValueError(f"JAX_COORDINATOR_ADDRESS is set, so {name} must be a whole number, not '{value}'.")
    return int(value)
