"""Steps compiled for described TPUs: memory and cycles are what arithmetic says they must be."""

import importlib.util
import math
from collections import Counter
from types import SimpleNamespace

import pytest

from jaxslm.configure import load_config
from jaxslm.planning.chips import GIB, Chip, described_devices, ici_of
from jaxslm.planning.outline import outline
from jaxslm.planning.plan import attention_scores, make_plan
from jaxslm.planning.report import as_text
from jaxslm.planning.suggest import IN_FULL, REMATS, candidates, suggest
from jaxslm.sharding import make_partitioner

needs_libtpu = pytest.mark.skipif(
    not importlib.util.find_spec("libtpu"), reason="libtpu (the tpu extra) is not installed"
)
SHAPE = {
    "mesh.fsdp": "-1", "mesh.data": "1", "model.d_model": "256", "model.n_heads": "2", "model.n_kv_heads": "2",
    "model.d_ff": "512", "model.dtype": "bfloat16", "model.remat": "full", "data.units.clusters": "20",
    "data.context_length": "256", "data.batch_size": "8",
}  # fmt: skip


def config(**overrides):
    changes = SHAPE | {name.replace("__", "."): str(value) for name, value in overrides.items()}
    return load_config("configs/spiritlm_7b.py:tiny", list(changes.items()))


def planned(topology="v5e:2x2", num_slices=1, **overrides):
    return make_plan(config(**overrides), described_devices(topology, num_slices), topology)


@pytest.fixture(scope="module")
def four_layers():
    return planned(model__n_layers=4)


@needs_libtpu
def test_memory_of_a_chip(four_layers):
    plan = four_layers
    assert (plan.chips, plan.hosts, dict(plan.mesh), plan.chip.name) == (4, 1, dict(fsdp=4), "v5e")
    norms = (2 * 4 + 1) * 256  # replicated
    shards = plan.model_parameters - norms
    assert plan.memory.parameters == 4 * (shards // 4 + norms)
    assert plan.memory.optimizer == pytest.approx(2 * plan.memory.parameters, rel=1e-3)  # two moments
    # Beside the batch: counters, the key, metrics. The new state takes the place of the old, or it would be here.
    assert 0 <= plan.memory.batch - 6 * 4 * (8 * 256 // 4) < 100_000
    assert plan.memory.temporaries > 0 and plan.memory.fits
    assert plan.host.checkpoint == pytest.approx(12 * plan.model_parameters, rel=1e-3)


@needs_libtpu
def test_cycles_grow_by_the_layer(four_layers):
    """Loops are counted as often as they run: what two more layers add is the same from 4 to 6 as from 6 to 8; and
    without a loop, where nothing is sliced out of stacks, it is less, but not by much."""
    six, eight = planned(model__n_layers=6), planned(model__n_layers=8)
    added = six.cycles - four_layers.cycles
    assert eight.cycles - six.cycles == pytest.approx(added, rel=0.05)
    assert added > four_layers.cycles / 10
    unrolled = planned(model__n_layers=4, model__scan_unroll=4)
    assert 0.6 * four_layers.cycles < unrolled.cycles < four_layers.cycles


@needs_libtpu
def test_parameters_are_gathered_along_fsdp(four_layers):
    travelled = Counter()
    for each in four_layers.collectives:
        travelled[each.kind] += each.bytes
    layers, tables = 4 * (4 * 256 * 256 + 3 * 256 * 512), 2 * 256 * 512
    # In bfloat16: layers forward and backward, or summed instead where that is small enough to be; and both tables.
    assert travelled["all-gather"] + travelled["all-reduce"] == pytest.approx(2 * 3 * layers + 4 * tables, rel=0.3)
    assert {each.axes for each in four_layers.collectives} == {"fsdp"}
    assert not any(each.across for each in four_layers.collectives)


@needs_libtpu
def test_kernels_are_counted(four_layers):
    """Splash attention: the forward pass twice (remat) and the backward pass, in each of 4 layers."""
    flops = 4 * (2 * 2 + 5) * 2 * 2 * 2 * 256 * 128 * 128  # layers, products, two a multiply-add, rows, heads, lengths
    assert four_layers.kernel_seconds == pytest.approx(flops / (197e12 * 0.4), rel=1e-6)


@needs_libtpu
def test_what_the_compiler_refuses_is_a_plan_that_does_not_fit():
    plan = planned(
        model__remat="none", model__d_model=1024, model__n_heads=8, model__n_kv_heads=8, model__d_ff=16_384,
        model__n_layers=8, data__batch_size=64, data__context_length=4096,
    )  # fmt: skip
    assert not plan.memory.fits and 60 * GIB < plan.memory.temporaries < 80 * GIB
    assert math.isnan(plan.step_seconds) and math.isnan(plan.mfu) and math.isnan(plan.communication_seconds)
    assert "--config.model.remat=full" in as_text(plan)


@needs_libtpu
@pytest.mark.parametrize("mesh", [dict(fsdp=4), dict(fsdp=2, sequence=2), dict(fsdp=2, tensor=2)])
def test_kernels_of_any_mesh_share_the_work(mesh):
    """Queries of a shard see half of all keys, whichever axis of theirs is cut."""
    devices = described_devices("v5e:2x2")
    made = config(data__context_length=1024, **{f"mesh__{axis}": size for axis, size in mesh.items()})
    program = outline(made, make_partitioner(made.mesh, devices))
    assert attention_scores(program) * 4 == 8 * 2 * 1024 * 512 * 128


@needs_libtpu
def test_suggestions_put_what_is_fastest_first():
    heard = []
    small = config(model__n_layers=2, data__batch_size=4)
    devices = described_devices("v5e:2x2")
    plans = suggest(small, devices, "v5e:2x2", tried=lambda *what: heard.append(what))
    tried = [plan for _, _, plan in heard[: len(list(candidates(small, devices)))]]
    assert len(plans) == IN_FULL == len(heard) - len(tried)
    assert plans[0].step_seconds == min(plan.step_seconds for plan in plans)
    again = sorted(tried, key=lambda plan: plan.step_seconds)[:IN_FULL]
    assert sorted(map(str, (p.settings for p in again))) == sorted(map(str, (p.settings for p in plans)))
    kernels = {plan.settings["remat"]: plan.kernel_seconds for plan in tried}
    # Where the context is kept, the forward kernel does not run again: 2 + 5 products instead of 2 + 2 + 5.
    assert kernels["context,attended"] == pytest.approx(kernels["full"] * 7 / 9, rel=1e-6)
    assert set(kernels) == set(REMATS)
    assert len(set(kernels.values())) == 2


def test_candidates_keep_the_batch_whole():
    with pytest.raises(ValueError, match="data.batch_size=3 cannot be dealt out to 4 chips: make it a multiple"):
        suggest(config(data__batch_size=3), [SimpleNamespace(device_kind="TPU v5 lite")] * 4, "v5e:2x2", tried=print)


@needs_libtpu
def test_meshes_that_do_not_divide_the_model_are_left_out():
    odd = config(model__n_layers=1, data__batch_size=4, model__n_heads=4, model__n_kv_heads=4, model__d_ff=510)
    heard = []
    suggest(odd, described_devices("v5e:2x2"), "v5e:2x2", tried=lambda *what: heard.append(what[2]))
    assert {plan.mesh["fsdp"] for plan in heard} == {4, 2} and not any(plan.mesh.get("tensor") == 4 for plan in heard)


@needs_libtpu
@pytest.mark.parametrize("topology", ["v5e:8x8", "v6e:8x8", "v5p:2x4x4"])
def test_an_axis_may_be_part_of_a_side_of_the_slice(topology):
    """jax.make_mesh refuses tensor=2 on a v6e:8x8."""
    devices = described_devices(topology)
    mesh = make_partitioner(dict(data=1, fsdp=-1, tensor=2), devices).mesh
    assert mesh.shape["fsdp"] == len(devices) // 2 and len(set(mesh.devices.flat)) == len(devices)
    assert all(sum(abs(x - y) for x, y in zip(a.coords, b.coords, strict=True)) == 1 for a, b in _pairs(mesh))


def _pairs(mesh):
    return mesh.devices.reshape(-1, 2)


def test_without_times_nothing_is_suggested():
    with pytest.raises(ValueError, match="--suggest compares planned times"):
        suggest(config(), described_devices("local"), "local", tried=print)


def test_links_of_a_slice():
    """Along a side without a ring the chips at its ends have half of the links; v5p below a cube of 4x4x4 has none."""
    v5e, v5p = Chip("v5e", 197e12, ici=180e9), Chip("v5p", 459e12, ici=540e9)
    assert [ici_of(v5e, f"v5e:{shape}") for shape in ("16x16", "8x16", "8x8", "1x8")] == [180e9, 135e9, 90e9, 45e9]
    assert [ici_of(v5p, f"v5p:{shape}") for shape in ("4x4x8", "2x4x4", "2x2x1")] == [540e9, 270e9, 180e9]
    assert ici_of(v5e, "local") == 180e9


@pytest.mark.parametrize("topology", ["v5e", "v5e:8", "h100:8x8", "v5e:8x8x", "", "v4:2x2x1", "v5e:2x2x2", "v5p:4x4"])
def test_wrong_topologies_are_named(topology):
    with pytest.raises(ValueError, match=f"--topology={topology} is not CHIP:SHAPE with a chip of v5e, v5p, v6e"):
        described_devices(topology)


@needs_libtpu
def test_a_shape_that_no_slice_has_is_named():
    with pytest.raises(ValueError, match="--topology=v5e:3x7: .*shapes are those of the chip's slices"):
        described_devices("v5e:3x7")


def test_slices_must_be_some():
    with pytest.raises(ValueError, match="--num_slices=0: a pod has 1 slice or more"):
        described_devices("v5e:2x2", 0)
    with pytest.raises(ValueError, match="--topology=local is what is here: leave --num_slices out"):
        described_devices("local", 2)
