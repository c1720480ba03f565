"""Meshes over several slices: of devices made up here, and of TPU topologies as libtpu describes them."""

from dataclasses import dataclass

import numpy as np
import pytest

from jaxslm.sharding import make_partitioner


@dataclass(frozen=True)
class Device:
    id: int
    slice_index: int
    platform: str = "cpu"
    device_kind: str = "made up"
    process_index: int = 0
    client: None = None


def mixed(platform: str = "cpu") -> list[Device]:
    """Eight devices in two slices, in no order."""
    return [Device(n, n // 4, platform) for n in (5, 0, 7, 2, 1, 6, 3, 4)]


def slices(mesh) -> np.ndarray:
    return np.vectorize(lambda device: device.slice_index)(mesh.devices)


def assert_data_goes_over_slices(mesh, n_slices: int):
    """Along data the slice changes, slowest; along the other axes never."""
    found = slices(mesh)
    assert (found == found[:, :1, :1, :1]).all()
    each = mesh.shape["data"] // n_slices
    assert found[:, 0, 0, 0].tolist() == [n for n in range(n_slices) for _ in range(each)]


@pytest.mark.parametrize("sizes", [dict(data=2, fsdp=4), dict(data=4, fsdp=1, tensor=2), dict(data=8)])
def test_data_goes_over_slices(sizes):
    assert_data_goes_over_slices(make_partitioner(sizes, mixed()).mesh, 2)


def test_what_goes_between_slices_but_data_is_refused():
    message = r"mesh.data=1 is not a multiple of the 2 slices.* Set mesh.data=2, and mesh.fsdp=-1"
    with pytest.raises(ValueError, match=message):
        make_partitioner(dict(data=1, fsdp=-1), mixed())


def test_gpus_shard_parameters_over_nodes_if_asked():
    found = slices(make_partitioner(dict(data=1, fsdp=4, tensor=2), mixed("gpu")).mesh)
    assert found[0, :, :, 0].tolist() == [[0, 0], [0, 0], [1, 1], [1, 1]]


@pytest.mark.parametrize("topology", ["v5e:2x2", "v5e:4x4", "v5p:2x2x1"])
@pytest.mark.parametrize("sizes", [dict(data=2, fsdp=-1), dict(data=4, fsdp=-1, tensor=2), dict(data=2, sequence=-1)])
def test_described_slices(topology, sizes):
    pytest.importorskip("libtpu", reason="slices are described by libtpu")
    from jaxslm.planning.chips import described_devices

    assert_data_goes_over_slices(make_partitioner(sizes, described_devices(topology, 2)).mesh, 2)
