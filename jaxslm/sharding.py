"""Where arrays lie: a device mesh and one table from logical axis names to mesh axes.

Parameters name their axes once, beside their definition (`nnx.Param(value, logical_axes=("embed", "ffn"))`);
activations name theirs where it matters (`constrain(x, "batch", "length", None)`). `Partitioner.rules` turns names into
mesh axes, so the same model runs data-parallel, fully sharded, tensor- and sequence-parallel by changing four numbers
in the config.
"""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.experimental.layout import Layout, with_layout_constraint
from jax.experimental.mesh_utils import create_device_mesh
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxslm.spelling import closest

MESH_AXES = ("data", "fsdp", "tensor", "sequence")

DEFAULT_RULES: Mapping[str, str | tuple[str, ...] | None] = {
    # activations
    "batch": ("data", "fsdp"),
    "length": "sequence",
    "activation_embed": None,
    # parameters
    "layers": None,
    "embed": "fsdp",
    "heads": "tensor",
    "kv_heads": "tensor",
    "ffn": "tensor",
    "vocab": "tensor",
    "head_dim": None,
}


def is_param(leaf: Any) -> bool:
    return isinstance(leaf, nnx.Param)


def logical_axes(tree: Any) -> Any:
    """The tree with each `nnx.Param` replaced by its axis names, one a dimension ("layers" first if stacked)."""

    def axes_of(param: nnx.Param) -> tuple[str | None, ...]:
        axes = param.get_metadata()["logical_axes"]
        ndim = len(param.get_value().shape)
        assert ndim - len(axes) in (0, 1), (axes, ndim)
        return ("layers",) * (ndim - len(axes)) + axes

    return jax.tree.map(lambda leaf: axes_of(leaf) if is_param(leaf) else (), tree, is_leaf=is_param)


@dataclass(frozen=True)
class Partitioner:
    """A mesh with the rules that place arrays on it. Make one with `make_partitioner`."""

    mesh: Mesh
    rules: Mapping[str, str | tuple[str, ...] | None] = field(default_factory=lambda: DEFAULT_RULES)

    def spec(
        self, axes: Sequence[str | None], shape: Sequence[int], *, strict: bool = True, name: str = "array"
    ) -> PartitionSpec:
        """Mesh axes of each dimension of an array with these logical axes.

        A dimension its mesh axes do not divide is an error if `strict` (parameters), else replicated (activations).
        Raises ValueError for that, for an unknown logical axis, and for a mesh axis used by two dimensions.
        """
        assert len(axes) == len(shape), (name, axes, shape)
        entries: list[tuple[str, ...] | None] = []
        used: dict[str, str] = {}
        for axis, size in zip(axes, shape, strict=True):
            mesh_axes = self._mesh_axes(axis)
            n_shards = self.n_shards(axis)
            if size % n_shards:
                if strict:
                    raise ValueError(
                        f"{name}: axis '{axis}' of size {size} is not divisible by the {n_shards} shards of mesh axes "
                        f"{'x'.join(mesh_axes)}. Change mesh.{mesh_axes[-1]} or the model size, or replicate it with "
                        f"mesh.rules.{axis}=None."
                    )
                mesh_axes = ()
            for mesh_axis in mesh_axes:
                if mesh_axis in used:
                    raise ValueError(
                        f"{name}: mesh axis '{mesh_axis}' would shard both '{used[mesh_axis]}' and '{axis}'. "
                        "Map one of them to another axis (or None) in mesh.rules."
                    )
                used[mesh_axis] = axis
            entries.append(mesh_axes or None)
        return PartitionSpec(*entries)

    def n_shards(self, axis: str | None) -> int:
        """Pieces into which dimensions with this logical axis are cut."""
        return math.prod(self.mesh.shape[mesh_axis] for mesh_axis in self._mesh_axes(axis))

    def _mesh_axes(self, axis: str | None) -> tuple[str, ...]:
        if axis is None:
            return ()
        if axis not in self.rules:
            raise ValueError(
                f"unknown logical axis '{axis}'; mesh.rules has no entry for it.{closest(axis, self.rules)}"
            )
        rule = self.rules[axis]
        return (rule,) if isinstance(rule, str) else tuple(rule or ())

    def sharding(self, axes: Sequence[str | None], shape: Sequence[int], **kwargs: Any) -> NamedSharding:
        return NamedSharding(self.mesh, self.spec(axes, shape, **kwargs))

    def batch_sharding(self) -> NamedSharding:
        """Sharding of a [batch, length] array."""
        return NamedSharding(
            self.mesh, PartitionSpec(self._mesh_axes("batch") or None, self._mesh_axes("length") or None)
        )

    def shardings(self, tree: Any) -> Any:
        """Shardings in the structure of `tree` (a module, an optimizer state, or `jax.eval_shape` of one).

        Leaves outside any `nnx.Param` (counters, keys) are replicated.
        """

        def of(path, leaf):
            if not is_param(leaf):
                return NamedSharding(self.mesh, PartitionSpec())
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            sharding = self.sharding(logical_axes(leaf), leaf.get_value().shape, name=name)
            return jax.tree.map(lambda _: sharding, leaf)

        return jax.tree_util.tree_map_with_path(of, tree, is_leaf=is_param)

    @property
    def platform(self) -> str:
        """Of the devices that will run it: "cpu", "gpu" or "tpu"; a plan compiles for devices that are not here."""
        return self.mesh.devices.flat[0].platform

    @functools.cached_property
    def constrain(self) -> "Constrain":
        """`constrain(x, *axes)` pins an activation inside jit."""
        return Constrain(self)


@dataclass(frozen=True)
class Constrain:
    """What a model needs to know of the mesh: how to pin activations and how to run a function shard by shard."""

    partitioner: Partitioner | None

    @property
    def platform(self) -> str:
        return self.partitioner.platform if self.partitioner else jax.default_backend()

    def __call__(self, x: jax.Array, *axes: str | None) -> jax.Array:
        """`x` laid out by its logical axes, one a dimension; a dimension that does not divide is replicated."""
        if self._single():
            return x
        return jax.lax.with_sharding_constraint(x, self.partitioner.sharding(axes, x.shape, strict=False))

    def row_major(self, x: jax.Array) -> jax.Array:
        """`x` with its last dimension innermost in memory. Left to itself, the TPU compiler turns activations over
        between the matrix products and kernels that would have them one way and those that would not."""
        if self.platform != "tpu":
            return x
        return with_layout_constraint(x, Layout(major_to_minor=tuple(range(x.ndim))))

    def spec(self, axes: Sequence[str | None], shape: Sequence[int]) -> PartitionSpec:
        """For `shard_map`, by logical axes; every piece must be whole (a ValueError names what does not divide)."""
        return PartitionSpec() if self._single() else self.partitioner.spec(axes, shape)

    def divides(self, axes: Sequence[str | None], shape: Sequence[int]) -> bool:
        """Whether every piece is whole: `spec` would not raise."""
        return self._single() or all(
            size % self.partitioner.n_shards(axis) == 0 for axis, size in zip(axes, shape, strict=True)
        )

    def n_shards(self, axis: str) -> int:
        """Pieces into which the mesh cuts dimensions with this logical axis."""
        return 1 if self._single() else self.partitioner.n_shards(axis)

    def mesh_axes(self, axes: Sequence[str | None], shape: Sequence[int]) -> tuple[tuple[str, ...], ...]:
        """Mesh axes that divide each dimension, as `__call__` lays it out; mesh axes of size 1 divide nothing."""
        if self._single():
            return ((),) * len(axes)
        spec, sizes = self.partitioner.spec(axes, shape, strict=False), self.partitioner.mesh.shape
        names = [(entry,) if isinstance(entry, str) else entry or () for entry in spec]
        return tuple(tuple(axis for axis in entry if sizes[axis] > 1) for entry in names)

    def shard_map(self, function: Callable, in_specs: Sequence[Any], out_specs: Any) -> Callable:
        """`function` on each device's pieces; it sums over mesh axes itself. Hand-written kernels need it, which the
        compiler cannot split by itself."""
        if self._single():
            return function
        mesh = self.partitioner.mesh
        return jax.shard_map(function, mesh=mesh, in_specs=tuple(in_specs), out_specs=out_specs, check_vma=False)

    def _single(self) -> bool:
        return self.partitioner is None or self.partitioner.mesh.size == 1


no_constraint = Constrain(None)


def make_partitioner(
    mesh_config: Mapping[str, Any] | None = None, devices: Sequence[jax.Device] | None = None
) -> Partitioner:
    """Partitioner of `mesh_config` = {data, fsdp, tensor, sequence: sizes, one may be -1; rules: overrides}.

    Sizes default to 1, data to -1 (the devices that remain). On several slices of a TPU pod `data` goes over slices
    first. Raises ValueError when the sizes do not make up the devices at hand, or data is no multiple of the slices.
    """
    config = dict(mesh_config or {})
    rules = dict(DEFAULT_RULES) | dict(config.pop("rules", None) or {})
    for axis in config:
        if axis not in MESH_AXES:
            raise ValueError(
                f"mesh has no axis '{axis}'; the axes are {', '.join(MESH_AXES)}.{closest(axis, MESH_AXES)}"
            )
    devices = list(devices if devices is not None else jax.devices())
    sizes = {axis: int(config.get(axis, -1 if axis == "data" else 1)) for axis in MESH_AXES}
    asked = ", ".join(f"{axis}={size}" for axis, size in sizes.items())
    if list(sizes.values()).count(-1) > 1 or any(size == 0 or size < -1 for size in sizes.values()):
        raise ValueError(f"mesh sizes are positive and at most one is -1, got {asked}.")
    known = math.prod(size for size in sizes.values() if size != -1)
    sizes = {axis: len(devices) // known if size == -1 else size for axis, size in sizes.items()}
    if math.prod(sizes.values()) != len(devices):
        raise ValueError(
            f"mesh ({asked}) does not make up the {len(devices)} devices present. The product of data, fsdp, tensor "
            "and sequence must be that number; set one of them to -1 to take what remains."
        )
    return Partitioner(Mesh(_arranged(devices, sizes), MESH_AXES, axis_types=(AxisType.Auto,) * len(MESH_AXES)), rules)


def slice_of(device: jax.Device) -> int:
    """Which slice of a TPU pod, or node of GPUs, a device is in: those of one are joined by the fast network."""
    return getattr(device, "slice_index", 0)


def _arranged(devices: Sequence[jax.Device], sizes: Mapping[str, int]) -> np.ndarray:
    """Devices in the shape of the mesh: over slices the slice changes along `data` alone, and slowest.

    FSDP may go over nodes of GPUs, whose networks are fast enough, and does only where `data` is no multiple of them.
    """
    slices = sorted({slice_of(device) for device in devices})
    by_slice = [[device for device in devices if slice_of(device) == each] for each in slices]
    if sizes["data"] % len(slices):
        if devices[0].platform == "gpu":
            in_order = sorted(devices, key=lambda device: (slice_of(device), device.id))
            return np.array(in_order).reshape(tuple(sizes.values()))
        raise ValueError(
            f"mesh.data={sizes['data']} is not a multiple of the {len(slices)} slices that the devices are in: data "
            f"parallelism alone goes between slices. Set mesh.data={len(slices)}, and mesh.fsdp=-1 for the rest."
        )
    within = sizes | {"data": sizes["data"] // len(slices)}
    # Not jax.make_mesh, which refuses a v6e:8x8 with tensor=2: an axis that is part of a side of the slice.
    parts = [create_device_mesh(tuple(within.values()), part, allow_split_physical_axes=True) for part in by_slice]
    return np.concatenate(parts, axis=0)
