"""The step of EnCodec's adversarial training that `codec.py` measures: ours, and that of codec_torch.py."""

from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxslm.audio.spectra import mel_bands
from jaxslm.benchmarks import codec_models as models
from jaxslm.codec.adversarial import AdversarialTraining
from jaxslm.codec.codec_generator import CodecGenerator
from jaxslm.codec.objective import Objective
from jaxslm.training.optimizer import make_optimizer
from jaxslm.training.state import TrainState

RATE = 24_000
LR, BETAS, EPS = 3e-4, (0.5, 0.9), 1e-8
AVERAGE_DECAY = 0.99
Step = Callable[[np.ndarray], dict[str, float]]


def clips(batch: int) -> Iterator[np.ndarray]:
    """Tones in noise, float32 [batch, RATE]."""
    rng, time = np.random.default_rng(0), np.arange(RATE) / RATE
    while True:
        pitch = rng.uniform(80, 400, (batch, 1))
        tones = np.sin(2 * np.pi * pitch * time) * np.sin(np.pi * time)
        yield (0.3 * tones + 0.01 * rng.normal(size=tones.shape)).astype(np.float32)


def our_step(batch: int, small: bool) -> Step:
    """`step(samples_BxN)`: its losses."""
    mel = dict(weight=2.0, form="encodec", windows=models.mel_windows(small))
    losses = dict(
        balance=True,
        spectral=dict(mel=mel),
        waveform=dict(weight=0.1, form="l1"),
        adversarial=dict(weight=4.0, form="hinge", average=True, start=0, delay=0),
        feature=dict(weight=4.0, form="mean"),
        commitment=1.0,
        codebook=0.0,
        distil=dict(weight=0.0),
    )
    adam = dict(peak_lr=LR, final_lr=LR, schedule="constant", warmup_steps=0, b1=BETAS[0], b2=BETAS[1], eps=EPS)
    optimizer, schedule = make_optimizer(adam | dict(weight_decay=0.0, clip_norm=0.0, moment_dtype="float32"), 1000)
    names, objective = ("codec", "discriminators"), Objective(losses, RATE)
    moving = dict(optimizers=dict.fromkeys(names, optimizer), schedules=dict.fromkeys(names, schedule))
    training = AdversarialTraining(CodecGenerator(), objective, **moving, average_decay=AVERAGE_DECAY)
    codec = models.make_codec(models.configs(small)["encodec"])
    model = dict(codec=codec, student=None, discriminators=models.make_discriminators(small))
    model["average"] = codec.with_codebooks(None)
    key = jax.random.key_data(jax.random.key(0))
    state = TrainState(model, training.init(model), jnp.int32(0), key, jnp.int32(0), jnp.int32(0))
    states = [jax.tree.map(jnp.array, state)]  # the state is donated: no two of its buffers may be one
    compiled = jax.jit(lambda state, batch: training.step(state, batch, None, True), donate_argnums=0)
    lengths = np.full((batch, 1), RATE, np.int32)

    def step(samples_BxN: np.ndarray) -> dict[str, float]:
        states[0], metrics = jax.block_until_ready(compiled(states[0], dict(samples=samples_BxN, length=lengths)))
        return {name.removeprefix("loss/"): float(v) for name, v in metrics.items() if name.startswith("loss/")}

    return step


def peer_step(folder: Path, small: bool) -> Step:
    """The same from the weights in `folder`."""
    import torch
    import transformers

    from jaxslm.benchmarks import codec_torch as peers

    codec = transformers.EncodecModel.from_pretrained(folder / "encodec").train()
    for name, parameter in codec.named_parameters():
        if "bias_hh" in name:  # ours has one bias
            parameter.requires_grad_(False)
    quantizer = peers.Quantizer(
        np.stack([level.codebook.embed.numpy() for level in codec.quantizer.layers]), decay=0.99
    )
    subs = [
        peers.StftSub(window, models.discriminator_arrays(folder, i), (1, 2, 4), models.SLOPE)
        for i, window in enumerate(models.windows(small))
    ]
    mel = peers.Mel({w: mel_bands(RATE, w, 64, 64.0, None, True, False) for w in models.mel_windows(small)})
    adam = dict(lr=LR, betas=BETAS, eps=EPS, fused=True)
    training = peers.Training(codec, quantizer, subs, mel, adam, AVERAGE_DECAY)
    return lambda samples_BxN: training.step(torch.from_numpy(samples_BxN))
