"""A speech encoder as teacher of the first codes of a frame, so that they carry what is said.

SpeechTokenizer (Zhang et al. 2023, trainer/trainer.py) compares features of HuBERT with a projection of the first
level's values, dimension by dimension over time; Mimi (Defossez et al. 2024, section 3.3.2) those of WavLM, averaged to
its own frames, frame by frame.

Legend: B batch, N samples, T frames, D features of the teacher.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxslm.audio import SAMPLE_RATE
from jaxslm.audio.spectra import MelSpectrogram
from jaxslm.codec.losses import distil_by_dimension, distil_by_frame
from jaxslm.codec.model import Reconstruction
from jaxslm.masking import mask_time
from jaxslm.nn.layers import Linear

FORMS = {"dimension": distil_by_dimension, "frame": distil_by_frame}
LOG_MEL = "log_mel"


class LogMel(nnx.Module):
    """A teacher that needs no file: 80 log mel bands, 50 frames a second. It knows nothing of what is said."""

    frame_rate, dim = 50.0, 80

    def __call__(self, samples_BxN: jax.Array, n_samples_B: jax.Array) -> tuple[jax.Array, jax.Array]:
        """(features [B, T, 80], frames [B]) of samples at 16 kHz."""
        spec = MelSpectrogram(SAMPLE_RATE, 1024, SAMPLE_RATE // 50, self.dim, framing="same")
        mel_BxTxD, frames_B = spec(samples_BxN, n_samples_B)
        return jnp.log(jnp.maximum(mel_BxTxD, 1e-5)), frames_B


@dataclass(frozen=True)
class Distillation:
    """form: "dimension" (SpeechTokenizer) or "frame" (Mimi). n_levels: levels that learn, from the first. sample_rate:
    the codec's. pool: frames of the teacher for one of the codec. dim: D.
    """

    form: str
    n_levels: int
    sample_rate: int
    pool: int
    dim: int

    def student(self, codec_dim: int, key: jax.Array) -> Linear:
        """The projection that is compared with the teacher."""
        return Linear(codec_dim, self.dim, key, axes=(None, None), bias=True, std=codec_dim**-0.5)

    def hear(self, teacher: Any, samples_BxN: jax.Array, n_samples_B: jax.Array) -> tuple[jax.Array, jax.Array]:
        """(features [B, T, D] at the codec's frame rate, frames [B]), without gradient."""
        samples, n_B = resample(samples_BxN, n_samples_B, self.sample_rate)
        features_BxTxD, frames_B = teacher(samples, n_B)
        return jax.lax.stop_gradient(pool_frames(features_BxTxD, frames_B, self.pool))

    def loss(self, quantizer: Any, student: Linear, made: Reconstruction, heard: tuple) -> jax.Array:
        """float32; gradients reach the encoder past the codes, and the student."""
        real_BxT = mask_time(made.latents_BxTxD.shape[1], made.frames_B)
        values = quantizer(made.latents_BxTxD, real_BxT, n_levels=self.n_levels).values_BxTxD
        features_BxTxD, frames_B = heard
        return FORMS[self.form](
            student(values.astype(jnp.float32)), features_BxTxD, jnp.minimum(frames_B, made.frames_B)
        )


def resample(samples_BxN: jax.Array, n_samples_B: jax.Array, rate: int) -> tuple[jax.Array, jax.Array]:
    """(samples at 16 kHz, their numbers), through the spectrum of the whole rows: good enough for a teacher's ears."""
    if rate == SAMPLE_RATE:
        return samples_BxN, n_samples_B
    n_old = samples_BxN.shape[1]
    n_new = n_old * SAMPLE_RATE // rate
    spectrum = jnp.fft.rfft(samples_BxN.astype(jnp.float32))[:, : n_new // 2 + 1]
    spectrum = jnp.pad(spectrum, ((0, 0), (0, n_new // 2 + 1 - spectrum.shape[1])))
    lengths_B = n_samples_B * SAMPLE_RATE // rate
    samples = jnp.fft.irfft(spectrum, n=n_new) * (n_new / n_old)
    return jnp.where(mask_time(n_new, lengths_B), samples, 0), lengths_B


def pool_frames(x_BxTxD: jax.Array, frames_B: jax.Array, stride: int) -> tuple[jax.Array, jax.Array]:
    """(means over windows of 2 * stride frames around each stride, ceil(frames / stride)); padding does not count."""
    if stride == 1:
        return x_BxTxD, frames_B
    real = mask_time(x_BxTxD.shape[1], frames_B, 3)
    n_out = -(-x_BxTxD.shape[1] // stride)
    before, after = stride // 2, n_out * stride + stride - stride // 2 - x_BxTxD.shape[1]

    def windows(x):
        blocks = jnp.pad(x, ((0, 0), (before, after), (0, 0))).reshape(len(x), n_out + 1, stride, x.shape[2]).sum(2)
        return blocks[:, :-1] + blocks[:, 1:]

    total, counted = windows(jnp.where(real, x_BxTxD, 0)), windows(real.astype(jnp.float32))
    return total / jnp.maximum(counted, 1), -(-frames_B // stride)
