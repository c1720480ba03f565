"""Centroids on some numbers of CPU devices as hex digests; run by test_kmeans_devices.py in a process of its own."""

import hashlib
import json
import sys

import jax
import numpy as np

from jaxslm.units.kmeans import fit_kmeans, fit_kmeans_minibatch


def frames(n: int, dim: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(200, dim))
    return (centres[rng.integers(0, 200, n)] + 0.7 * rng.normal(size=(n, dim))).astype(np.float32)


def digest(found) -> list:
    arrays = found.centroids.tobytes() + found.counts.tobytes() + np.array(found.inertia).tobytes()
    return [hashlib.sha256(arrays).hexdigest(), found.moved, len(found.inertia)]


if __name__ == "__main__":
    cases = {
        "lloyd": lambda devices: fit_kmeans(frames(20_011, 39), 100, seed=0, iterations=10, devices=devices),
        "emptied": lambda devices: fit_kmeans(
            frames(3_001, 768), 64, seed=0, iterations=5, start_KxD=np.zeros((64, 768)), devices=devices
        ),
        "minibatch": lambda devices: fit_kmeans_minibatch(
            frames(20_011, 39), 100, seed=0, batch_size=2048, epochs=2, devices=devices
        ),
    }
    counts = json.loads(sys.argv[1])
    assert jax.device_count() >= max(counts)
    print(json.dumps({name: [digest(fit(jax.devices()[:n])) for n in counts] for name, fit in cases.items()}))
