import math
from types import SimpleNamespace

import jax
import pytest

from jaxslm.training import flops


@pytest.mark.parametrize(
    "kind, peak",
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA L4", 121e12),
        ("TPU v5 lite", 197e12),
        ("TPU v5p", 459e12),
        ("TPU v6 lite", 918e12),
        ("NVIDIA L40", math.nan),  # not in the table, and no L4
        ("something new", math.nan),
    ],
)
def test_peak_by_device_kind(monkeypatch, kind, peak):
    monkeypatch.setattr(jax, "devices", lambda: [SimpleNamespace(platform="gpu", device_kind=kind)])
    monkeypatch.setattr(jax, "device_count", lambda: 3)
    assert flops.peak_flops() == pytest.approx(3 * peak, nan_ok=True)


def test_cpu_is_measured():
    assert 1e8 < flops.peak_flops() < 1e14
