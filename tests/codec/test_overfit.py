"""That a codec learns: a few spoken seconds by heart."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxslm.audio.io import resample
from jaxslm.codec.model import CodecConfig
from jaxslm.evaluation.codec_metrics import si_sdr
from jaxslm.training.optimizer import make_optimizer
from tests.codec import tiny_codec

pytest.importorskip("espeakng_loader", reason="the demo extra is not installed")
NETWORK = dict(kind="seanet", n_filters=16, ratios=(2, 4, 5), n_residual=1, residual_kernel=3)
STEPS = 800


def spoken() -> jax.Array:
    """[4, 16000] float32: beginnings of sentences in four voices."""
    from jaxslm.data.sources.demo import VOICES
    from jaxslm.data.sources.espeak import Synthesizer

    synthesizer, clips = Synthesizer(), []
    texts = (
        "the cat opens the old door",
        "seven birds fly over a river",
        "who sold my green coat",
        "rain falls all night",
    )
    for text, (voice, pitch) in zip(texts, VOICES.values(), strict=False):
        samples, _ = synthesizer.speak(text, voice, pitch=pitch)
        clips.append(resample(samples, synthesizer.rate, tiny_codec.RATE)[2000:][: tiny_codec.RATE])
    return jnp.asarray(np.stack(clips))


@pytest.mark.slow  # some minutes
def test_a_codec_learns_four_seconds_by_heart():
    training = tiny_codec.training(
        balance=False,
        spectral=dict(mel=dict(weight=1.0, form="encodec")),
        waveform=dict(weight=100.0, form="l2"),
        adversarial=dict(weight=0.0, form="hinge", average=True, start=0, delay=0),
        feature=dict(weight=0.0, form="relative"),
    )
    optimizer, schedule = make_optimizer(tiny_codec.ADAM | dict(peak_lr=2e-3, schedule="cosine", final_lr=1e-5), STEPS)
    training = dataclasses.replace(training, optimizers={"codec": optimizer}, schedules={"codec": schedule})
    quantizer = dict(n_levels=4, codebook_size=64, decay=0.95)
    state = tiny_codec.start(training, CodecConfig(tiny_codec.RATE, 64, NETWORK, NETWORK, quantizer))
    samples = spoken()
    batch = {"samples": samples, "length": jnp.full((4, 1), samples.shape[1], jnp.int32)}
    step = jax.jit(training.step, static_argnums=3, donate_argnums=0)
    for _ in range(STEPS):
        state, metrics = step(state, batch, None, False)
    codec = state.model["codec"]
    made = np.asarray(codec(samples, batch["length"][:, 0]).samples_BxN)
    scores = [si_sdr(original, fake, tiny_codec.RATE) for original, fake in zip(np.asarray(samples), made, strict=True)]
    assert np.mean(scores) > 5
    assert all(metrics[f"usage/level_{n}"] > 0.9 for n in range(1, 5))
