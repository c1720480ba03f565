"""The masked stage trained on some numbers of CPU devices; run by test_acoustic_devices.py in a process of its own."""

import functools
import json
import sys

import jax
import numpy as np

from jaxslm.acoustic.durations import DurationConfig
from jaxslm.acoustic.masked import MaskedConfig
from jaxslm.sharding import make_partitioner
from jaxslm.tasks.acoustic import build_model, make_loss
from jaxslm.training.optimizer import make_optimizer
from jaxslm.training.state import make_init
from jaxslm.training.step import make_train_step, put_batch
from tests.codec.tiny_codec import ADAM

ROWS, FRAMES, UNITS, LEVELS, CODES = 8, 24, 8, 2, 16


def batch(seed: int) -> dict[str, np.ndarray]:
    """The last row is almost empty."""
    rng = np.random.default_rng(seed)
    frames_B = rng.integers(12, FRAMES + 1, ROWS)
    frames_B[-1] = 2
    codes = rng.integers(0, CODES, (ROWS, FRAMES, LEVELS))
    n_runs = (frames_B + 1) // 2
    durations = np.where(np.arange(FRAMES // 2) < n_runs[:, None], rng.integers(1, 4, (ROWS, FRAMES // 2)), 0)
    made = dict(
        units=rng.integers(0, UNITS, (ROWS, FRAMES)),
        codes=codes,
        frames=frames_B[:, None],
        runs=rng.integers(0, UNITS, (ROWS, FRAMES // 2)),
        durations=durations,
        n_runs=n_runs[:, None],
    )
    draw = rng.integers(0, 2**32, (ROWS, 2), dtype=np.uint32)
    return {name: values.astype(np.int32) for name, values in made.items()} | dict(draw=draw)


def train(n_devices: int) -> list:
    """Metrics of three steps and the parameters after them; on 8 devices matrices lie in halves."""
    partitioner = make_partitioner({"data": -1, "fsdp": min(2, n_devices)})
    config = MaskedConfig(UNITS, LEVELS, CODES, d_model=16, n_layers=2, n_heads=2, d_ff=32, conv_kernel=3)
    build = functools.partial(build_model, config, DurationConfig(dim=8, hidden=8))
    optimizer, schedule = make_optimizer(ADAM, 10)
    init, abstract = make_init(build, optimizer, partitioner)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)
    loss = make_loss(0.3, partitioner)
    step = make_train_step(loss, optimizer, schedule, objectives=["level1", "level2"], state_shardings=shardings)
    state, found = init(jax.random.key(0)), []
    halves = [leaf for leaf in jax.tree.leaves(state.model) if not leaf.sharding.is_fully_replicated]
    assert bool(halves) == (n_devices > 1)
    for seed in range(3):
        state, metrics = step(state, put_batch(batch(seed), partitioner.batch_sharding()))
        found.append({name: float(value) for name, value in metrics.items()})
    return [found, [np.asarray(leaf).tolist() for leaf in jax.tree.leaves(state.model)]]


if __name__ == "__main__":
    n_devices = int(sys.argv[1])
    assert jax.device_count() == n_devices
    print(json.dumps(train(n_devices)))
