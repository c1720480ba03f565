"""Nearest centroids and sums over clusters, on any number of devices with the same bits.

A floating-point sum depends on its order. Frames are therefore cut into a fixed number of shards, each of which is
summed frame by frame, and the sums of the shards are added as a binary tree: a device makes a subtree of it and devices
exchange the rest, so 1, 2, 4, 8 and 16 devices add the same numbers in the same order.

Shape letters: N frames, S shards, C chunks in a shard, B frames in a chunk, D features, K clusters.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

SHARDS = 16  # a power of two; no more devices than this are used
CHUNK = 512  # frames a step: distances take [K, 512], 32 MiB at 16,384 clusters
_AXIS = "frames"


class Sums(NamedTuple):
    """Of the frames nearest to each centroid: their sums and number (int32); and the inertia of all frames."""

    sums_KxD: jax.Array
    counts_K: jax.Array
    inertia: jax.Array


class Frames(NamedTuple):
    """Frames on their devices, [S, C, B, D] float32, zeros where real_SxCxB is 0."""

    frames_SxCxBxD: jax.Array
    real_SxCxB: jax.Array


def nearest(frames_BxD: jax.Array, centroids_KxD: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Nearest centroid, int32 [B], the first of equally near ones, and the squared distance to it, float32 [B].

    Products are in full float32: with bfloat16 products the nearest centroid would change.
    """
    squares_Kx1 = jnp.sum(jnp.square(centroids_KxD), axis=1, keepdims=True)
    half_KxB = squares_Kx1 / 2 - jnp.matmul(centroids_KxD, frames_BxD.T, precision="highest")
    least_B = half_KxB.min(axis=0)
    # XLA does not vectorise argmin on CPUs; two passes over rows of frames take a quarter of its time.
    row_Kx1 = jnp.arange(len(centroids_KxD), dtype=jnp.int32)[:, None]
    ids_B = jnp.min(jnp.where(half_KxB == least_B, row_Kx1, len(centroids_KxD) - 1), axis=0)
    return ids_B, jnp.maximum(2 * least_B + jnp.sum(jnp.square(frames_BxD), axis=1), 0)


def add_by_scatter(sums_KxD: jax.Array, ids_B: jax.Array, frames_BxD: jax.Array) -> jax.Array:
    return sums_KxD.at[ids_B].add(frames_BxD)


def add_by_product(sums_KxD: jax.Array, ids_B: jax.Array, frames_BxD: jax.Array) -> jax.Array:
    members_KxB = (jnp.arange(len(sums_KxD))[:, None] == ids_B).astype(jnp.float32)
    return sums_KxD + jnp.matmul(members_KxB, frames_BxD, precision="highest")


def _add(sums_KxD: jax.Array, ids_B: jax.Array, frames_BxD: jax.Array) -> jax.Array:
    """On a GPU rows are scattered by atomic additions, in another order every time; a product has one order."""
    return jax.lax.platform_dependent(sums_KxD, ids_B, frames_BxD, cuda=add_by_product, default=add_by_scatter)


def _shard_sums(frames_CxBxD: jax.Array, real_CxB: jax.Array, centroids_KxD: jax.Array) -> Sums:
    def add(sums: Sums, chunk):
        frames_BxD, real_B = chunk
        ids_B, distances_B = nearest(frames_BxD, centroids_KxD)
        counts_K = sums.counts_K.at[ids_B].add(real_B.astype(jnp.int32))
        inertia = sums.inertia + jnp.sum(distances_B * real_B)
        return Sums(_add(sums.sums_KxD, ids_B, frames_BxD), counts_K, inertia), None

    k = len(centroids_KxD)
    zero = Sums(jnp.zeros(centroids_KxD.shape), jnp.zeros(k, jnp.int32), jnp.zeros(()))
    return jax.lax.scan(add, zero, (frames_CxBxD, real_CxB))[0]


def _tree(leaf: Callable[[Frames], Sums], frames: Frames) -> Sums:
    """Sum of `leaf` over the first axis, whose length is a power of two, as a binary tree."""
    n = len(frames.real_SxCxB)
    if n == 1:
        return leaf(jax.tree.map(lambda x: x[0], frames))
    halves = jax.tree.map(lambda x: x.reshape(2, n // 2, *x.shape[1:]), frames)
    both = jax.lax.map(lambda half: _tree(leaf, half), halves)
    return jax.tree.map(lambda x: x[0] + x[1], both)


def _across_devices(sums: Sums, n_devices: int) -> Sums:
    """The rest of the tree: every device ends with the sums of all, bit for bit the same (a + b is b + a)."""
    for level in range(n_devices.bit_length() - 1):
        pairs = [(i, i ^ (1 << level)) for i in range(n_devices)]
        sums = jax.tree.map(lambda x, pairs=pairs: x + jax.lax.ppermute(x, _AXIS, pairs), sums)
    return sums


def make_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """One axis over a power of two of the devices, at most SHARDS of them; by default over those of this process."""
    devices = list(devices if devices is not None else jax.local_devices())
    n = 1 << (min(len(devices), SHARDS).bit_length() - 1)
    return Mesh(np.array(devices[:n]), (_AXIS,), axis_types=(AxisType.Auto,))


def place(frames_NxD: np.ndarray, mesh: Mesh) -> Frames:
    """Puts each device's share of the frames there, without a copy of all of them on the host."""
    n, dim = frames_NxD.shape
    rows = max(1, math.ceil(n / SHARDS))
    n_chunks = math.ceil(rows / CHUNK)
    size = math.ceil(math.ceil(rows / n_chunks) / 8) * 8
    rows, sharding = n_chunks * size, NamedSharding(mesh, PartitionSpec(_AXIS))

    def share(index):
        first, last, _ = index[0].indices(SHARDS)
        padded_PxD = np.zeros(((last - first) * rows, dim), np.float32)
        own_NxD = frames_NxD[first * rows : last * rows]
        padded_PxD[: len(own_NxD)] = own_NxD
        return padded_PxD.reshape(last - first, n_chunks, size, dim)

    real_SxCxB = (np.arange(SHARDS * rows) < n).astype(np.float32).reshape(SHARDS, n_chunks, size)
    placed = jax.make_array_from_callback((SHARDS, n_chunks, size, dim), sharding, share)
    return Frames(placed, jax.device_put(real_SxCxB, sharding))


@functools.partial(jax.jit, static_argnames="mesh")
def cluster_sums(frames: Frames, centroids_KxD: jax.Array, mesh: Mesh) -> Sums:
    """Sums over the frames nearest to each centroid; the same bits on any mesh of `make_mesh`."""

    def own(frames: Frames, centroids_KxD: jax.Array) -> Sums:
        sums = _tree(lambda shard: _shard_sums(*shard, centroids_KxD), frames)
        return _across_devices(sums, mesh.size)

    split, whole = PartitionSpec(_AXIS), PartitionSpec()
    mapped = jax.shard_map(own, mesh=mesh, in_specs=(split, whole), out_specs=whole, check_vma=False)
    return mapped(frames, centroids_KxD)


@functools.partial(jax.jit, static_argnames="mesh")
def distances(frames: Frames, centroids_KxD: jax.Array, mesh: Mesh) -> jax.Array:
    """Squared distance of each frame to its nearest centroid, [S, C, B]; 0 for padding."""

    def own(frames: Frames, centroids_KxD: jax.Array) -> jax.Array:
        flat = (frames.frames_SxCxBxD.reshape(-1, *frames.frames_SxCxBxD.shape[2:]),)
        found = jax.lax.map(lambda chunk: nearest(chunk[0], centroids_KxD)[1], flat)
        return found.reshape(frames.real_SxCxB.shape) * frames.real_SxCxB

    split, whole = PartitionSpec(_AXIS), PartitionSpec()
    mapped = jax.shard_map(own, mesh=mesh, in_specs=(split, whole), out_specs=split, check_vma=False)
    return mapped(frames, centroids_KxD)
