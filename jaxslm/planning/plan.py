"""What a training step will need and take on devices that are not here, by compiling it for them.

Memory, collectives and cycles are the compiler's. Two things it does not tell are assumed, and said so in every report:
KERNEL_EFFICIENCY, and that communication that the compiler starts beside other work hides behind that of the same loop
as far as there is any; what it does not start so is added.
"""

import dataclasses
import math
import re
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
from ml_collections import ConfigDict

from jaxslm.planning.chips import Chip, chip_of, hosts_of, ici_of, slices_of
from jaxslm.planning.outline import outline
from jaxslm.planning.program_text import Instruction, Work, work_by_loop
from jaxslm.sharding import make_partitioner
from jaxslm.tasks.lm_program import Program

KERNEL_EFFICIENCY = 0.4  # of the peak, counting the causal half alone: what attention kernels are taken to reach
KERNEL_PRODUCTS = {"fwd": 2, "dkv": 5}  # matrix products in each kernel of splash attention, backward fused


@dataclass(frozen=True)
class Memory:
    """Bytes of one chip. `batch` counts whatever else goes in, or comes out in memory of its own. `temporaries` are
    activations, gradients and workspace in one: the compiler lays them out together. `capacity` is 0 where it is not
    known."""

    parameters: int
    optimizer: int
    batch: int
    temporaries: int
    program: int
    capacity: int
    host: int  # offloaded tensors

    @property
    def peak(self) -> int:
        return self.parameters + self.optimizer + self.batch + self.temporaries + self.program

    @property
    def fits(self) -> bool:
        return not self.capacity or self.peak <= self.capacity


@dataclass(frozen=True)
class Collective:
    """bytes: of the arrays gathered or summed, whole, in one step of one chip; across: between slices."""

    kind: str
    axes: str
    bytes: int
    calls: int
    across: bool


@dataclass(frozen=True)
class Host:
    """What one process has to do; bytes a step, and bytes of a checkpoint that it writes and holds while writing."""

    chips: int
    batch: int
    tokens_per_s: float
    checkpoint: int
    offloaded: int


@dataclass(frozen=True)
class Plan:
    """See `make_plan`; seconds are of a step. NaN where the compiler estimates no cycles: off TPUs, and of a program
    that it refuses."""

    topology: str
    chip: Chip
    chips: int
    slices: int
    hosts: int
    mesh: Mapping[str, int]
    settings: Mapping[str, Any]
    model_parameters: int
    memory: Memory
    cycles: float
    collectives: Sequence[Collective]
    compute_seconds: float
    kernel_seconds: float
    communication_seconds: float
    blocking_seconds: float
    step_seconds: float
    tokens_per_s: float
    mfu: float
    host: Host
    compile_seconds: float


def make_plan(
    config: ConfigDict, devices: Sequence[jax.Device], topology: str, *, options: Mapping[str, str] | None = None
) -> Plan:
    """Compiles the training step of `config` for `devices` and reads off what it needs. No array is made.

    The program lands in JAX's compilation cache, if there is one; one that the compiler refuses for its size has memory
    and no time. `options` go before the step's own compiler options. Raises ValueError as `outline`.
    """
    partitioner = make_partitioner(config.mesh, devices)
    program = outline(config, partitioner)
    start = time.perf_counter()
    lowered = program.step.lower(program.abstract_state, program.abstract_batch)
    chip, mesh = chip_of(devices[0]), dict(partitioner.mesh.shape)
    try:
        compiled = lowered.compile(options)
        memory, loops = _memory(program, compiled, chip), work_by_loop(compiled.as_text(), mesh)
    except jax.errors.JaxRuntimeError as error:
        memory, loops = _refused_memory(program, chip, error), {}
    seconds = time.perf_counter() - start
    slices = slices_of(devices)
    crossing = _crossing_axes(partitioner.mesh) if slices > 1 else set()
    scores = attention_scores(program)
    chip = dataclasses.replace(chip, ici=ici_of(chip, topology))
    times = [_seconds(work, chip, crossing, scores) for work in loops.values()]
    known = bool(loops) and chip.flops_per_cycle > 0
    compute, kernels, hidden, blocking = (sum(each) for each in zip(*times, strict=True)) if loops else [math.nan] * 4
    step = sum(max(t[0] + t[1], t[2]) + t[3] for t in times) if known else math.nan
    tokens = math.prod(program.abstract_batch["tokens"].shape)
    hosts = hosts_of(devices)
    return Plan(
        topology=topology,
        chip=chip,
        chips=len(devices),
        slices=slices,
        hosts=hosts,
        mesh={name: size for name, size in mesh.items() if size > 1} or {"data": 1},
        settings=_settings(config, program, len(devices), mesh),
        model_parameters=sum(math.prod(x.shape) for x in jax.tree.leaves(program.abstract_state.model)),
        memory=memory,
        cycles=sum(work.cycles for work in loops.values()) if known else math.nan,
        collectives=_collectives(loops.values(), crossing),
        compute_seconds=compute if known else math.nan,
        kernel_seconds=kernels,
        communication_seconds=hidden + blocking,
        blocking_seconds=blocking,
        step_seconds=step,
        tokens_per_s=tokens / step,
        mfu=program.flops_per_step / (step * chip.peak_flops * len(devices)),
        host=Host(
            chips=len(devices) // hosts,
            batch=sum(math.prod(x.shape) * x.dtype.itemsize for x in program.abstract_batch.values()) // hosts,
            tokens_per_s=tokens / step / hosts,
            checkpoint=sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(program.abstract_state))
            // hosts,
            offloaded=memory.host * len(devices) // hosts,
        ),
        compile_seconds=seconds,
    )


def _settings(config: ConfigDict, program: Program, chips: int, mesh: Mapping[str, int]) -> dict[str, Any]:
    rows = config.data.batch_size
    return dict(
        rows_per_chip=rows / chips,
        rows_at_once=rows // program.accumulate_steps // (mesh["data"] * mesh["fsdp"]),
        context_length=config.data.context_length,
        batch_size=rows,
        vocabulary=program.model_config.vocab_size,
        remat=config.model.remat,
        quantization=config.model.quantization,
        attention=config.model.attention,
        accumulate_steps=config.optimizer.accumulate_steps,
        moment_dtype=config.optimizer.moment_dtype,
        loss_chunks=config.loss_chunks,
        scan_unroll=config.model.scan_unroll,
    )


def _memory(program: Program, compiled: Any, chip: Chip) -> Memory:
    analysis = compiled.memory_analysis()
    memory = _state_memory(program, chip)
    results = analysis.output_size_in_bytes - analysis.alias_size_in_bytes
    rest = analysis.argument_size_in_bytes - memory.parameters - memory.optimizer + results
    return dataclasses.replace(
        memory,
        batch=rest,
        temporaries=analysis.temp_size_in_bytes,
        program=analysis.generated_code_size_in_bytes,
        host=analysis.host_temp_size_in_bytes,
    )


def _refused_memory(program: Program, chip: Chip, error: Exception) -> Memory:
    """Of a program whose temporaries alone are larger than the chip, by what the compiler says. Else raises `error`."""
    found = re.search(r"HLO temporaries \((\d+(?:\.\d+)?)([MG])\)", str(error))
    if "RESOURCE_EXHAUSTED" not in str(error) or not found:
        raise error
    size = float(found[1]) * dict(M=2**20, G=2**30)[found[2]]
    return dataclasses.replace(_state_memory(program, chip), temporaries=int(size))


def _state_memory(program: Program, chip: Chip) -> Memory:
    def of(tree: Any) -> int:
        leaves = jax.tree.leaves(tree)
        return sum(math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in leaves)

    state = program.abstract_state
    model, optimizer, batch = of(state.model), of(state.opt_state), of(program.abstract_batch)
    return Memory(model, optimizer, batch, temporaries=0, program=0, capacity=int(chip.hbm), host=0)


def _crossing_axes(mesh: jax.sharding.Mesh) -> set[str]:
    """Mesh axes along which the slice changes."""
    crossing = set()
    for position, name in enumerate(mesh.axis_names):
        line = mesh.devices[tuple(slice(None) if i == position else 0 for i in range(mesh.devices.ndim))]
        if slices_of(line) > 1:
            crossing.add(name)
    return crossing


def _seconds(work: Work, chip: Chip, crossing: set[str], scores: float) -> tuple[float, float, float, float]:
    """(what the compiler estimates, kernels, communication that can hide behind both, communication that cannot) of one
    loop; for `scores` see attention_scores."""
    flops = sum(KERNEL_PRODUCTS[part] * 2 * scores * kernel.times for kernel in work.kernels if (part := _part(kernel)))

    def travel(collectives: Counter) -> float:
        seconds = 0.0
        for (kind, axes), size in collectives.items():
            rate = chip.dcn if crossing & set(axes.split("+")) else chip.ici
            seconds += size * (2 if kind == "all-reduce" else 1) / rate if rate else 0.0
        return seconds

    compute = work.cycles / chip.clock if chip.flops_per_cycle else 0.0
    blocking = travel(work.blocking)
    return compute, flops / (chip.peak_flops * KERNEL_EFFICIENCY), travel(work.collectives) - blocking, blocking


def attention_scores(program: Program) -> float:
    """Multiply-adds of a chip's product of queries and keys in one layer; a query sees half of the keys.

    By arithmetic: what the kernels return differs from version to version.
    """
    model, mesh = program.model_config, program.partitioner.mesh.shape
    rows, context = program.abstract_batch["tokens"].shape
    queries = (rows // program.accumulate_steps, context, model.n_heads, model.head_dim)
    axes = program.partitioner.constrain.mesh_axes(("batch", "length", "heads", None), queries)
    return math.prod(queries) / math.prod(mesh[axis] for axis in sum(axes, ())) * context / 2


def _part(kernel: Instruction) -> str | None:
    return next((part for part in KERNEL_PRODUCTS if f"splash_mha_{part}" in kernel.name), None)


def _collectives(works: Sequence[Work], crossing: set[str]) -> list[Collective]:
    size, calls = Counter(), Counter()
    for work in works:
        size += work.collectives
        calls += work.calls
    found = [Collective(*key, int(n), calls[key], bool(crossing & set(key[1].split("+")))) for key, n in size.items()]
    return sorted(found, key=lambda each: -each.bytes)
