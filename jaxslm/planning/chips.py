"""What accelerators can do, and devices of machines that are not here."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

import jax

from jaxslm.sharding import slice_of
from jaxslm.training.flops import peak_of


@dataclass(frozen=True)
class Chip:
    """One jax device. Bytes and bytes/s are decimal; 0 where nothing is known.

    peak_flops: in bfloat16. hbm: what a program can have of it, less than the data sheet's. flops_per_cycle: of the
    matrix units, by which `peak_flops` gives the clock that the compiler's cycles are of. ici: into one chip over all
    of its links, where all are there: see `ici_of`. dcn: into one chip from other slices. Both of the scaling book,
    chapter 2.
    """

    name: str
    peak_flops: float
    hbm: float = 0.0
    hbm_bandwidth: float = 0.0
    flops_per_cycle: float = 0.0
    ici: float = 0.0
    dcn: float = 0.0

    @property
    def clock(self) -> float:
        """Cycles a second."""
        return self.peak_flops / self.flops_per_cycle if self.flops_per_cycle else float("nan")


GIB = 2**30
CHIPS = {  # by jax's device_kind; Google's system architecture pages, and NVIDIA's data sheets
    "TPU v5 lite": dict(name="v5e", hbm=15.75 * GIB, hbm_bandwidth=819e9, flops_per_cycle=2**17, ici=180e9, dcn=3.1e9),
    "TPU v5": dict(name="v5p", hbm=95.74 * GIB, hbm_bandwidth=2765e9, flops_per_cycle=2**18, ici=540e9, dcn=6.2e9),
    "TPU v6 lite": dict(
        name="v6e", hbm=31.25 * GIB, hbm_bandwidth=1640e9, flops_per_cycle=2**19, ici=360e9, dcn=12.5e9
    ),
    "NVIDIA H100 80GB HBM3": dict(name="h100", hbm=79 * GIB, hbm_bandwidth=3350e9, ici=450e9, dcn=50e9),
    "NVIDIA H200": dict(name="h200", hbm=139 * GIB, hbm_bandwidth=4800e9, ici=450e9, dcn=50e9),
}
TPUS = dict(v5e=2, v5p=3, v6e=2)  # sides of a slice
RINGS = dict(v5e=16, v6e=16)  # along a side of so many chips the last is linked to the first
CUBE = 4  # of v5p: slices of whole cubes have rings along every side, smaller ones none


def chip_of(device: jax.Device) -> Chip:
    """Facts about a device; of an unknown kind its name alone."""
    kind = device.device_kind
    return Chip(**dict(name=kind) | CHIPS.get(kind, {}), peak_flops=peak_of(kind))


def described_devices(topology: str, num_slices: int = 1) -> Sequence[jax.Device]:
    """Devices of a topology such as "v5e:8x8" (a chip and the shape of a slice), on any machine with libtpu; of "local"
    those present.

    Raises ValueError naming what is wrong with the description, or what is missing here.
    """
    if num_slices < 1:
        raise ValueError(f"--num_slices={num_slices}: a pod has 1 slice or more")
    if topology == "local":
        if num_slices > 1:
            raise ValueError("--topology=local is what is here: leave --num_slices out")
        return jax.devices()
    kind, _, shape = topology.partition(":")
    if kind not in TPUS or not re.fullmatch(r"[1-9]\d*" + r"x[1-9]\d*" * (TPUS[kind] - 1), shape):
        raise ValueError(
            f"--topology={topology} is not CHIP:SHAPE with a chip of {', '.join(TPUS)} and a shape such as 8x8 (v5p: "
            "2x4x4), nor 'local' for the devices here (of GPUs, on the node itself)"
        )
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # no metadata server to wait for
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # only the compiler is used
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")  # or libtpu is alarmed
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", f"{kind}-1")
    from jax.experimental import topologies

    more = dict(num_slices=num_slices) if num_slices > 1 else {}
    try:
        return topologies.get_topology_desc(platform="tpu", topology_name=topology, **more).devices
    except Exception as error:  # of several types, by what libtpu says
        cause = str(error).partition("\n")[0]
        raise ValueError(
            f"--topology={topology}: {cause}. TPU programs are compiled by libtpu (pip install 'jaxslm[tpu]'); shapes "
            "are those of the chip's slices, as in v5e:8x8, v5p:2x4x4, v6e:8x8"
        ) from error


def ici_of(chip: Chip, topology: str) -> float:
    """Bytes/s into a chip over the links that every chip of the slice has. Along a side without a ring, those at its
    ends have half of the links, and the others wait for them; along a side of one chip there are none."""
    kind, _, shape = topology.partition(":")
    if kind not in TPUS:
        return chip.ici
    sides = [int(side) for side in shape.split("x")]
    whole_cubes = all(side % CUBE == 0 for side in sides)
    rings = [whole_cubes if kind == "v5p" else side == RINGS[kind] for side in sides]
    links = sum((2 if ring else 1) for side, ring in zip(sides, rings, strict=True) if side > 1)
    return chip.ici * links / (2 * len(sides))


def hosts_of(devices: Sequence[jax.Device]) -> int:
    """Processes that a run on these devices has."""
    return len({device.process_index for device in devices})


def slices_of(devices: Sequence[jax.Device]) -> int:
    return len({slice_of(device) for device in devices})
