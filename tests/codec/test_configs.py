"""Every codec config, full and tiny, as far as it can be seen without computing: sizes, and the shapes of a step."""

import functools

import jax
import jax.numpy as jnp
import pytest

from jaxslm.codec.identity import codec_sha256
from jaxslm.codec.model import Codec, CodecConfig
from jaxslm.configure import load_config
from jaxslm.sharding import make_partitioner
from jaxslm.tasks import codec as task
from jaxslm.tasks.codec_teacher import open_teacher
from jaxslm.training.state import make_init
from tests.codec.dilations import dilates_inputs

# millions of parameters without codebooks learnt as means, frames a second, bits a second
CONFIGS = {
    "soundstream_16k": (12.9, 50, 4000),
    "encodec_24k": (14.8, 75, 24_000),
    "dac_16k": (74.2, 50, 6000),
    "mimi_24k": (79.3, 12.5, 1100),
    "speechtokenizer_16k": (102.9, 50, 4000),
    "wavtokenizer_24k": (71.8, 75, 900),
    "bigcodec_16k": (159.4, 80, 1040),
    "small_16k": (15.7, 50, 4000),
    "spectral_16k": (14.0, 50, 2000),
}


@pytest.mark.parametrize("size", ["", ":tiny"])
@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_is_the_published_size_and_trains(name, size):
    config = load_config(f"configs/{name}.py{size}")
    codec_config = CodecConfig(sample_rate=config.data.sample_rate, **config.model.to_dict())
    codec = jax.eval_shape(functools.partial(Codec, codec_config), jax.random.key(0))
    millions, frame_rate, bits = CONFIGS[name]
    assert codec.frame_rate == frame_rate
    n_parameters = sum(leaf.size for leaf in jax.tree.leaves(codec.with_codebooks(None)))
    if size:
        assert n_parameters < 4e6
        assert len(codec_sha256(jax.tree.map(lambda leaf: jnp.ones(leaf.shape, leaf.dtype), codec))) == 64
    else:
        assert n_parameters / 1e6 == pytest.approx(millions, abs=0.06)
        k = codec_config.parts[2].codebook_size
        assert codec.n_codebooks * frame_rate * (k.bit_length() - 1) == pytest.approx(bits, abs=1)

    distillation = teacher = None
    if config.losses.distil.weight:
        with config.unlocked():
            config.losses.distil.teacher = "log_mel"  # published teachers are files
        distillation, teacher = open_teacher(config.losses.distil, codec)
    training = task.make_training(config, codec_config.sample_rate, distillation)
    build = functools.partial(task.build_model, codec_config, training, config.discriminators.to_dict())
    _, state = make_init(build, training, make_partitioner({"data": 1}, jax.devices()[:1]))
    n = round(config.data.seconds * codec_config.sample_rate)
    batch = {"samples": jax.ShapeDtypeStruct((4, n), jnp.float32), "length": jax.ShapeDtypeStruct((4, 1), jnp.int32)}
    step = functools.partial(training.step, contest=True)
    if size:
        lowered = jax.jit(step).lower(state, batch, teacher)
        assert not dilates_inputs(lowered.as_text())
        after, metrics = lowered.out_info
    else:
        after, metrics = jax.eval_shape(step, state, batch, teacher)
    assert [leaf.shape for leaf in jax.tree.leaves(after)] == [leaf.shape for leaf in jax.tree.leaves(state)]
    assert {"loss", "loss/adversarial", "loss/feature", "loss/discriminators", "grad_norm"} <= set(metrics)
    assert ("loss/distil" in metrics) == (name in ("mimi_24k", "speechtokenizer_16k"))
