"""Whisper's log-mel spectrogram (Radford et al. 2022, section 2.2), as its published feature extractor has it.

Legend: B batch, N samples, F frames of 10 ms, W samples in a window, Q frequencies, M mel bands.
"""

import jax
import jax.numpy as jnp
import numpy as np

from jaxslm.audio import SAMPLE_RATE
from jaxslm.audio.spectra import mel_bands

WINDOW_SAMPLES = 30 * SAMPLE_RATE  # what the model hears at once
HOP = 160
_FFT = 400
_HALF = _FFT // 2
_FLOOR = 1e-10  # of a band's power, before the logarithm
_RANGE = 8.0  # below its loudest band a clip is flat: this many powers of ten


def log_mel(samples_BxN: jax.Array, n_mels: int, n_frames: int = WINDOW_SAMPLES // HOP) -> jax.Array:
    """The first `n_frames` frames of the clips as if silence followed them up to 30 s, float32 [B, F, M].

    Samples are float32, 16 kHz, in [-1, 1], and 0 after the end of each clip; N is at most 480,000. Each clip is scaled
    by its own loudest band among these frames: give two frames more than the clip has, and drop them, to have all its
    sound among them.
    """
    assert samples_BxN.shape[1] <= WINDOW_SAMPLES and n_frames <= WINDOW_SAMPLES // HOP
    n_samples = HOP * n_frames + _HALF
    padded = jnp.pad(samples_BxN, ((0, 0), (0, max(0, n_samples - samples_BxN.shape[1]))))[:, :n_samples]
    if n_frames == WINDOW_SAMPLES // HOP:  # the edges of the window are mirrored
        padded = jnp.concatenate([padded[:, :-_HALF], padded[:, -_HALF - 2 : -2 * _HALF - 2 : -1]], axis=1)
    padded = jnp.concatenate([padded[:, _HALF:0:-1], padded], axis=1)
    blocks = padded[:, : (n_frames + 2) * HOP].reshape(len(padded), -1, HOP)
    frames_BxFxW = jnp.concatenate([blocks[:, :-2], blocks[:, 1:-1], blocks[:, 2:, : _FFT - 2 * HOP]], axis=-1)
    hann_W = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(_FFT) / _FFT)).astype(np.float32)
    power_BxFxQ = jnp.square(jnp.abs(jnp.fft.rfft(frames_BxFxW * hann_W)))
    mels_BxFxM = jnp.matmul(power_BxFxQ, mel_bands(SAMPLE_RATE, _FFT, n_mels), precision="highest")
    logs = jnp.log10(jnp.maximum(mels_BxFxM, _FLOOR))
    return (jnp.maximum(logs, logs.max(axis=(1, 2), keepdims=True) - _RANGE) + 4.0) / 4.0
