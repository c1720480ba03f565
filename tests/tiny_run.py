"""What a training run leaves behind, as far as generation and scoring read it: a model that has learnt nothing."""

import json
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np

from jaxslm.models.decoder import Decoder, DecoderConfig
from jaxslm.tokenizer import load_tokenizer
from jaxslm.training.checkpoint import Checkpoints
from jaxslm.units.inventory import UnitInventory
from jaxslm.vocabulary import build_vocabulary

SHAPE = dict(d_model=16, n_layers=1, n_heads=2, n_kv_heads=2, d_ff=32)


def write_run(folder: Path, *, data: Mapping = {}, scale: float = 1.0, **settings) -> UnitInventory:
    """A run of bytes and 20 MFCC units in a context of 64, at step 3, its weights times `scale`."""
    centroids = np.random.default_rng(0).normal(size=(20, 39)).astype(np.float32)
    inventory = UnitInventory("mfcc", 0, 50.0, centroids, 20)
    inventory.save(folder / "units")
    vocabulary = build_vocabulary(load_tokenizer("byte"), 20, inventory.sha256)
    config = dict(model=SHAPE, data=dict(tokenizer="byte", context_length=64, **data), **settings)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "vocabulary.json").write_text(json.dumps(vocabulary.to_json()))
    checkpoints = Checkpoints(folder / "checkpoints", keep=1)
    model = Decoder(DecoderConfig(vocabulary.padded_size, **SHAPE), jax.random.key(0))
    checkpoints.save(3, {"model": jax.tree.map(lambda x: scale * x, model), "step": np.int32(3)})
    checkpoints.finish()
    return inventory
