"""Tries settings of a config on described devices: which of those that fit would train fastest?"""

import copy
from collections.abc import Callable, Iterator, Sequence

import jax
from ml_collections import ConfigDict

from jaxslm.planning.chips import chip_of, slices_of
from jaxslm.planning.plan import Plan, make_plan
from jaxslm.training.compiled import compiler_options

REMATS = (  # less and less to compute again, more and more to keep
    "full",
    "context,attended",
    "query,key,value,context,attended",
    "query,key,value,context,attended,gate,up",
)
ROWS = (1, 2, 4, 8, 16)  # a chip and part of the batch
QUICK = {"xla_tpu_scoped_vmem_limit_kib": "16384"}  # compiles in a third of the time, to some 10 % more cycles
IN_FULL = 3  # of the fastest are compiled as training does


def candidates(config: ConfigDict, devices: Sequence[jax.Device]) -> Iterator[ConfigDict]:
    """Configs with the same global batch, on meshes of data, fsdp and tensor, of different memory and speed.

    More rows a chip than there are in the batch are left out; fewer mean parts of a batch, one after the other.
    """
    chips, slices, batch = len(devices), slices_of(devices), config.data.batch_size
    for tensor in (1, 2, 4):
        if chips % (tensor * slices) or config.model.n_kv_heads % tensor:
            continue
        for rows in ROWS:
            shards = chips // tensor
            parts, left = divmod(batch, shards * rows)
            if left or not parts:
                continue
            for remat in dict.fromkeys((config.model.remat, *REMATS)):
                changed = copy.deepcopy(config)
                with changed.unlocked():
                    changed.mesh.update(data=slices, fsdp=-1, tensor=tensor, sequence=1)
                    changed.optimizer.accumulate_steps = parts
                    changed.model.remat = remat
                yield changed


def suggest(
    config: ConfigDict, devices: Sequence[jax.Device], topology: str, *, tried: Callable[[int, int, Plan], None]
) -> list[Plan]:
    """Plans, the fastest of those that fit first. `tried` hears of each: which of how many.

    All candidates are compiled by QUICK options; those that are fastest so, again as training compiles them, and only
    these are returned, if any fits. Larger batches and costlier remat are left out where a smaller or cheaper one does
    not fit, and meshes that do not divide the model. Raises ValueError if none is left, or if the compiler estimates no
    times for these devices.
    """
    if not chip_of(devices[0]).flops_per_cycle:
        raise ValueError("--suggest compares planned times, which there are for described TPUs: --topology=v5e:8x8")
    todo = list(candidates(config, devices))
    if not todo:
        raise ValueError(
            f"data.batch_size={config.data.batch_size} cannot be dealt out to {len(devices)} chips: make it a multiple"
        )
    options = {name: value for name, value in QUICK.items() if name in (compiler_options(devices) or {})}
    found, too_large, refused = [], [], None
    for number, changed in enumerate(todo, 1):
        if any(_needs_no_less(changed, other) for other in too_large):
            continue
        try:
            plan = make_plan(changed, devices, topology, options=options)
        except ValueError as error:
            refused = error
            continue
        found.append((changed, plan))
        if not plan.memory.fits:
            too_large.append(changed)
        tried(number, len(todo), plan)
    if not found:
        raise refused
    found.sort(key=lambda pair: _rank(pair[1]))
    fastest = [changed for changed, plan in found[:IN_FULL] if plan.memory.fits]
    if not fastest or not options:
        return [plan for _, plan in found]
    plans = []
    for number, changed in enumerate(fastest, 1):
        plans.append(make_plan(changed, devices, topology))
        tried(number, len(fastest), plans[-1])
    return sorted(plans, key=_rank)


def _rank(plan: Plan) -> tuple[bool, float]:
    return not plan.memory.fits, plan.step_seconds if plan.memory.fits else plan.memory.peak


def _needs_no_less(one: ConfigDict, other: ConfigDict) -> bool:
    """Whether `one` keeps at least as much as `other`, on the same mesh."""
    if one.mesh.tensor != other.mesh.tensor:
        return False
    parts = one.optimizer.accumulate_steps <= other.optimizer.accumulate_steps
    known = one.model.remat in REMATS and other.model.remat in REMATS
    return parts and known and REMATS.index(one.model.remat) >= REMATS.index(other.model.remat)
