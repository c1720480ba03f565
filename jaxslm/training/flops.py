"""Peak arithmetic rate of a device, for model FLOPs utilisation (mfu)."""

import functools
import re
import time

import jax
import jax.numpy as jnp

# Dense bfloat16 FLOP/s of one jax device (vendors' data sheets). A v2/v3 device is half a chip.
PEAK_BF16 = {
    "TPU v2": 22.5e12,
    "TPU v3": 61.5e12,
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5e": 197e12,
    "TPU v5": 459e12,
    "TPU v5p": 459e12,
    "TPU v6 lite": 918e12,
    "TPU v6e": 918e12,
    "Tesla V100": 125e12,
    "NVIDIA A100": 312e12,
    "NVIDIA A10G": 70e12,
    "NVIDIA L4": 121e12,
    "NVIDIA L40S": 362e12,
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA H100": 989e12,
    "NVIDIA H200": 989e12,
    "NVIDIA B200": 2250e12,
}


def peak_flops() -> float:
    """FLOP/s of all devices of the run together; NaN for a device not in the table.

    The host's rate is measured once, by a float32 matrix product; simulated devices of one host share it.
    """
    device = jax.devices()[0]
    if device.platform == "cpu":
        return _measured_cpu() * jax.process_count()
    return peak_of(device.device_kind) * jax.device_count()


def peak_of(device_kind: str) -> float:
    """FLOP/s of one device; NaN if its kind is not in the table."""
    # the longest name that begins the device's: "NVIDIA H100 80GB HBM3" is an H100
    names = [name for name in PEAK_BF16 if re.match(rf"{re.escape(name)}\b", device_kind)]
    return PEAK_BF16[max(names, key=len)] if names else float("nan")


@functools.cache
def _measured_cpu(n: int = 1024, repeats: int = 5) -> float:
    """Best of a few n x n float32 products: tens of milliseconds in all."""
    a = jax.device_put(jnp.ones((n, n), jnp.float32), jax.local_devices()[0])
    product = jax.jit(lambda x: x @ x)
    product(a).block_until_ready()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        product(a).block_until_ready()
        seconds.append(time.perf_counter() - start)
    return 2 * n**3 / min(seconds)
