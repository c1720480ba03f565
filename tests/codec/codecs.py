"""Codecs small enough for tests."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp

from jaxslm.codec.model import Codec, CodecConfig
from jaxslm.training.checkpoint import Checkpoints
from jaxslm.training.state import TrainState


def small_codec(seed=0, sample_rate=16_000, causal=True, **quantizer) -> Codec:
    """Hops of 8 samples, 3 levels of 16 codes, random weights."""
    network = dict(kind="seanet", n_filters=4, ratios=(2, 4), n_residual=1, causal=causal)
    quantizer = dict(n_levels=3, codebook_size=16, kmeans_iterations=0) | quantizer
    config = CodecConfig(sample_rate=sample_rate, dim=8, encoder=network, decoder=network, quantizer=quantizer)
    return Codec(config, jax.random.key(seed)).folded()


def write_run(workdir: Path, seed=0) -> Path:
    """A workdir as a training run leaves it, of `small_codec(seed)`."""
    workdir.mkdir(parents=True)
    codec = Codec(small_codec().config, jax.random.key(seed))
    (workdir / "codec.json").write_text(json.dumps(codec.config.to_json()))
    zero = jnp.zeros((), jnp.int32)
    model = {"codec": codec, "student": None, "discriminators": None, "average": None}
    checkpoints = Checkpoints(workdir / "checkpoints", keep=1)
    checkpoints.save(3, TrainState(model, {}, zero, jnp.zeros(2, jnp.uint32), zero, zero))
    checkpoints.finish()
    return workdir
