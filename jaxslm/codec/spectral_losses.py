"""Distances between spectra at several resolutions, as the published codecs define them.

Each takes (fake_BxN, real_BxN, ..., n_samples_B) and gives a float32 scalar: the mean over the frames of all rows, each
framed at its own end. n_samples_B None says that all rows are full.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jaxslm.audio.spectra import MelSpectrogram, framed_samples, root, stft
from jaxslm.codec.losses import masked_mean

DAC_BANDS = {32: 5, 64: 10, 128: 20, 256: 40, 512: 80, 1024: 160, 2048: 320}  # mels of each window


def soundstream_mel(
    fake, real, sample_rate: int, n_samples_B=None, *, windows: Sequence[int] = (64, 128, 256, 512, 1024, 2048),
    power: int = 2, unit_energy: bool = False,
) -> jax.Array:  # fmt: skip
    """SoundStream, equation 4: |S - S'|_1 + sqrt(w / 2) |log S - log S'|_2 over 64 mels, summed over windows.

    What the paper leaves open is as in lucidrains/audiolm-pytorch (mel power, HTK's scale, transforms of at least 512
    samples, a mean over frames) but for the floor of the logarithm, 1e-5. There the first term is thousands of times
    the second, and the loudest frames count for all; with power=1 and unit_energy=True they are of one size.
    """
    total = 0.0
    for w in windows:
        spec = MelSpectrogram(
            sample_rate, w, w // 4, 64, n_fft=max(w, 512), power=power, htk=True, equal_area=False,
            unit_energy=unit_energy,
        )  # fmt: skip
        (x, n_B), (y, _) = spec(fake, n_samples_B), spec(real, n_samples_B)
        logs = jnp.log(jnp.maximum(x, 1e-5)) - jnp.log(jnp.maximum(y, 1e-5))
        norms = root(jnp.square(logs).sum(axis=-1))
        total += masked_mean(jnp.abs(x - y).sum(axis=-1), n_B) + (w / 2) ** 0.5 * masked_mean(norms, n_B)
    return total


def encodec_mel(
    fake, real, sample_rate: int, n_samples_B=None, *, windows: Sequence[int] = (64, 128, 256, 512, 1024)
) -> jax.Array:
    """audiocraft's msspec with its published settings: L1 of mel powers + L2 of their log10, over 64 mels from 64 Hz,
    averaged over windows and the two. (Its range 6..11 leaves 2048 out, which the paper has.)
    """
    total = 0.0
    for w in windows:
        spec = MelSpectrogram(
            sample_rate, w, w // 4, 64, power=2, f_min=64.0, htk=True, equal_area=False, unit_energy=True,
            framing="same",
        )  # fmt: skip
        (x, n_B), (y, _) = spec(fake, n_samples_B), spec(real, n_samples_B)
        logs = jnp.log10(1e-5 + x) - jnp.log10(1e-5 + y)
        total += masked_mean(jnp.abs(x - y), n_B) + masked_mean(jnp.square(logs), n_B)
    return total / (2 * len(windows))


def log_mel_l1(fake, real, spec: MelSpectrogram, n_samples_B=None, *, floor: float = 1e-5) -> jax.Array:
    """L1 of natural log mels. HiFi-GAN and SpeechTokenizer: framing="whole", SpeechTokenizer with htk=True;
    WavTokenizer: n_mels=100, htk=True, equal_area=False, floor 1e-7.
    """
    (x, n_B), (y, _) = spec(fake, n_samples_B), spec(real, n_samples_B)
    return masked_mean(jnp.abs(jnp.log(jnp.maximum(x, floor)) - jnp.log(jnp.maximum(y, floor))), n_B)


def dac_mel(fake, real, sample_rate: int, n_samples_B=None, *, bands: dict[int, int] | None = None) -> jax.Array:
    """DAC (conf/final/44khz.yml): L1 of log10 mels, summed over windows. bands: {window: mels}."""
    specs = [MelSpectrogram(sample_rate, w, w // 4, mels) for w, mels in (bands or DAC_BANDS).items()]
    return sum(log_mel_l1(fake, real, spec, n_samples_B) for spec in specs) / jnp.log(10.0)


def multi_resolution_stft(
    fake,
    real,
    n_samples_B=None,
    *,
    scales: Sequence[tuple[int, int, int]] = ((1024, 120, 600), (2048, 240, 1200), (512, 50, 240)),
) -> jax.Array:
    """Parallel WaveGAN (Yamamoto et al. 2020): spectral convergence + L1 of log magnitudes, averaged over scales
    (n_fft, hop, window); the convergence is that of the whole batch.
    """
    total = 0.0
    for n_fft, hop, window in scales:
        (x, n_B), (y, _) = (_magnitudes(s, n_fft, hop, window, n_samples_B) for s in (fake, real))
        off, size = masked_mean(jnp.square(x - y), n_B), masked_mean(jnp.square(y), n_B)
        total += root(off) / jnp.maximum(root(size), 1e-8) + masked_mean(jnp.abs(jnp.log(x) - jnp.log(y)), n_B)
    return total / len(scales)


def _magnitudes(samples, n_fft, hop, window, n_samples_B):
    framed, n_B = framed_samples(samples, n_fft, hop, "centre", n_samples_B)
    spectrum = stft(framed, n_fft, hop, window)
    return jnp.sqrt(jnp.maximum(jnp.square(spectrum.real) + jnp.square(spectrum.imag), 1e-7)), n_B
