"""8-bit products of operands spread over 8 CPU devices, and of the same on one; run by test_quantized_devices.py."""

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxslm.nn.quantized import product_of


def results(kind: str, spread: bool) -> list[np.ndarray]:
    """[y, gradient of x, gradient of the weight]; spread: tokens along one axis of a mesh, features along both."""
    mesh = Mesh(np.reshape(jax.devices()[: 8 if spread else 1], (-1, 2 if spread else 1)), ("fsdp", "tensor"))
    shapes = dict(x=((64, 32), P("fsdp", None)), weight=((32, 48), P("fsdp", "tensor")), d_y=((64, 48), P("fsdp")))
    rng = np.random.default_rng(0)
    x, weight, d_y = (
        jax.device_put(rng.standard_normal(shape, np.float32), NamedSharding(mesh, spec))
        for shape, spec in shapes.values()
    )

    def all_of(x, weight, d_y):
        y, gradients = jax.vjp(product_of(kind), x, weight)
        return y, *gradients(d_y)

    return [np.asarray(result) for result in jax.jit(all_of)(x, weight, d_y)]


if __name__ == "__main__":
    assert jax.device_count() == 8
    one, spread = results("int8", False), results("int8", True)
    print(max(float(np.abs(a - b).max() / np.abs(a).max()) for a, b in zip(one, spread, strict=True)))
