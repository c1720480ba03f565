"""Scores of a likelihood suite on meshes of 8 CPU devices; run by test_scoring_devices.py in a process of its own."""

import json
from types import SimpleNamespace

import jax
import numpy as np

from jaxslm.evaluation.scoring import Tokens
from jaxslm.models.decoder import Decoder
from jaxslm.sharding import make_partitioner
from jaxslm.tasks.likelihood import make_scorer
from tests.models.llama import tiny_config

LENGTHS = (9, 30, 31, 90, 200, 600, 1100)
CASES = [  # mesh, devices, attention, context
    (dict(data=1), 1, "xla", 384),
    (dict(data=8), 8, "auto", 384),
    (dict(data=2, fsdp=2, tensor=2), 8, "blocked", 1024),
    (dict(data=2, sequence=3), 6, "auto", 384),
    (dict(fsdp=2, sequence=4), 8, "blocked", 384),
]


def scores(mesh: dict, devices: int, attention: str, context: int) -> list[float]:
    partitioner = make_partitioner(dict(data=1, fsdp=1, tensor=1, sequence=1) | mesh, jax.devices()[:devices])
    config = tiny_config(n_layers=1, initializer_range=0.2, attention=attention)
    shardings = partitioner.shardings(jax.eval_shape(lambda key: Decoder(config, key), jax.random.key(0)))
    model = jax.jit(lambda key: Decoder(config, key), out_shardings=shardings)(jax.random.key(0))
    settings = dict(loss_chunks=4, optimizer=dict(z_loss=0.0), data=dict(context_length=context))
    rng = np.random.default_rng(0)
    given = [Tokens(rng.integers(0, 100, n).astype(np.int32), rng.random(n) < 0.7) for n in LENGTHS]
    scorer = make_scorer(settings, SimpleNamespace(size=100), partitioner, rows=8)
    return scorer(model, scorer.batches(given)).tolist()


if __name__ == "__main__":
    print(json.dumps([scores(*case) for case in CASES]))
