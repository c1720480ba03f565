"""A codec of a few thousand parameters with its training, for tests."""

import functools

import jax
import jax.numpy as jnp

from jaxslm.codec.adversarial import AdversarialTraining
from jaxslm.codec.codec_generator import CodecGenerator
from jaxslm.codec.model import CodecConfig
from jaxslm.codec.objective import Objective
from jaxslm.sharding import Partitioner, make_partitioner
from jaxslm.tasks.codec import build_model
from jaxslm.training.optimizer import make_optimizer
from jaxslm.training.state import TrainState, make_init

RATE = 16_000
NETWORK = dict(kind="seanet", n_filters=2, ratios=(20,), n_residual=1, residual_kernel=3)
ADAM = dict(
    peak_lr=1e-2, final_lr=1e-2, schedule="constant", warmup_steps=0, b1=0.5, b2=0.9, eps=1e-8, weight_decay=0.0,
    clip_norm=0.0, moment_dtype="float32",
)  # fmt: skip


def config(**quantizer) -> CodecConfig:
    fields = dict(n_levels=2, codebook_size=8, kmeans_iterations=0) | quantizer
    return CodecConfig(RATE, 8, encoder=NETWORK, decoder=NETWORK, quantizer=fields)


def losses(**changes) -> dict:
    return (
        dict(
            balance=True,
            spectral=dict(mel=dict(weight=2.0, form="log_mel", window=64, hop=16, n_mels=8)),
            waveform=dict(weight=0.5, form="l1"),
            adversarial=dict(weight=4.0, form="hinge", average=True, start=0, delay=0),
            feature=dict(weight=3.0, form="relative"),
            commitment=0.7,
            codebook=0.0,
            distil=dict(weight=0.0, form="dimension", teacher="", layer=-1, all_layers=False),
        )
        | changes
    )


def training(distillation=None, average_decay=0.9, **changes) -> AdversarialTraining:
    optimizers = {"codec": make_optimizer(ADAM, 10), "discriminators": make_optimizer(ADAM | {"peak_lr": 3e-3}, 10)}
    return AdversarialTraining(
        CodecGenerator(distillation),
        Objective(losses(**changes), RATE),
        {name: optimizer for name, (optimizer, _) in optimizers.items()},
        {name: schedule for name, (_, schedule) in optimizers.items()},
        average_decay=average_decay,
    )


DISCRIMINATORS = {"kinds": {"stft": {"windows": (64,), "channels": 2}}, "level": False}


def start(training: AdversarialTraining, codec_config: CodecConfig) -> TrainState:
    init, _ = parts_of_state(training, codec_config, make_partitioner({"data": 1}, jax.devices()[:1]))
    return init(jax.random.key(0))


def parts_of_state(training: AdversarialTraining, codec_config: CodecConfig, partitioner: Partitioner):
    """(init, abstract state), as the task makes them."""
    build = functools.partial(build_model, codec_config, training, DISCRIMINATORS)
    return make_init(build, training, partitioner)


def batch(seed: int = 0, rows: int = 3, n: int = 400) -> dict:
    samples = 0.3 * jax.random.normal(jax.random.key(seed), (rows, n))
    lengths = jnp.array([[n]] * (rows - 1) + [[n - 130]], jnp.int32)
    return {"samples": jnp.where(jnp.arange(n) < lengths, samples, 0), "length": lengths}
