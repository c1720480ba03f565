"""A run of the masked stage on tones, of a few thousand parameters, and the codec it needs."""

from pathlib import Path

import jax

from jaxslm.codec.model import Codec
from jaxslm.configure import load_config
from jaxslm.tasks import acoustic as task
from jaxslm.tasks.codec_files import keep_codec
from jaxslm.training import loop
from tests.codec import tiny_codec
from tests.data import tones


def make_codec(folder: Path, seed: int = 0, **quantizer) -> Path:
    """A codec of random weights, kept as runs keep one."""
    codec = jax.jit(lambda key: Codec(tiny_codec.config(**quantizer), key))(jax.random.key(seed))
    keep_codec(codec, "tiny", folder)
    return folder


def config(folder: Path, **changes):
    tones.write_corpus(folder / "tones", count=8, speaker="one")
    made = load_config("configs/soundstorm.py:tiny")
    with made.unlocked():
        made.data.sources = tones.config(folder / "tones")["sources"]
        made.data.units = dict(encoder="mfcc", clusters=6, seed=1)
        made.data.update(codec=str(make_codec(folder / "codec")), cache=str(folder / "cache"), batch_size=2)
        made.data.seconds = 0.2  # 160 frames of 20 samples
        made.model.update(d_model=16, n_layers=1, n_heads=2, d_ff=32, conv_kernel=3)
        made.durations.update(dim=8, hidden=8)
        made.samples.utterances = 2
        made.checkpoint.every = made.eval.every = made.steps = 2
        made.eval.batches = 1
        made.update(changes)
    return made


def train(folder: Path, workdir: Path, **changes):
    made = config(folder, **changes)
    loop.run(task.make(made, workdir), made, workdir)
    return made
