"""Quantizers trained on some numbers of CPU devices; run by test_quantizer_devices.py in a process of its own."""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxslm.codec.quantizer_config import QuantizerConfig
from jaxslm.codec.quantizers import make_quantizer

B, T, D = 16, 40, 12
KINDS = {
    "ratio": dict(n_levels=2, restart_every=2),
    "absolute": dict(n_levels=2, restart="absolute"),
    "split": dict(kind="split_rvq", n_levels=3, projection="shared", codebook_dim=6, dropout=1.0, restart_every=2),
}


def train(n_devices: int, options: dict) -> list:
    """Codes, and all arrays of the state, after four batches whose last items are padding alone."""
    mesh = Mesh(np.array(jax.devices()[:n_devices]), ("data",), axis_types=(AxisType.Auto,))
    split, whole = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in (("data",), ()))
    quantizer = make_quantizer(QuantizerConfig(dim=D, codebook_size=64, **options), jax.random.key(0))
    model, state = quantizer.with_codebooks(None), jax.device_put(quantizer.codebooks, whole)

    @jax.jit
    def step(state, z, real, key):
        return model.with_codebooks(state)(z, real, key=key, train=True)

    rng = np.random.default_rng(0)
    for i in range(4):
        z = rng.normal(size=(B, T, D)).astype(np.float32) + 2
        real = np.arange(T) < rng.integers(T // 2, T, B)[:, None]
        real[-3:] = False  # on 8 devices, one of them has no frame at all
        z = np.where(real[..., None], z, 1e3).astype(np.float32)
        key = jax.random.key(i)
        found = step(state, jax.device_put(z, split), jax.device_put(real, split), key)
        assert found.values_BxTxD.sharding.is_equivalent_to(split, 3) or n_devices == 1
        state = found.codebooks
    codes = jnp.where(real[..., None], found.codes_BxTxQ, 0)
    arrays = [*jax.tree.leaves(state), found.commitment, *jax.tree.leaves(found.metrics)]
    return [np.asarray(codes).tolist(), [np.asarray(array).tolist() for array in arrays]]


if __name__ == "__main__":
    n_devices = int(sys.argv[1])
    assert jax.device_count() == n_devices
    print(json.dumps({name: train(n_devices, options) for name, options in KINDS.items()}))
