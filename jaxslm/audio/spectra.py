"""Spectra that a loss can be differentiated through: short-time Fourier transforms and mel bands.

Batches are padded at the end. Where `n_samples_B` is given, every row is framed and mirrored at its own end, so that
its frames are those it has alone; None says that all rows are full.

Legend: B batch, N samples, F frames, W samples of a transform, Q frequencies, M mel bands.
"""

import functools
import warnings
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from jaxslm.masking import mask_time


def mirror(samples_BxN: jax.Array, before: int, after: int, n_samples_B: jax.Array | None = None) -> jax.Array:
    """[B, before + N + after]: each row mirrored at its first and last sample, as often as it takes to fill up.

    A row of n real samples is right up to before + n + after; what lies beyond repeats it and means nothing.
    """
    if n_samples_B is None:
        return jnp.pad(samples_BxN, ((0, 0), (before, after)), mode="reflect")
    last_Bx1 = jnp.maximum(n_samples_B - 1, 0)[:, None]
    place = jnp.abs(jnp.arange(-before, samples_BxN.shape[1] + after))[None, :] % jnp.maximum(2 * last_Bx1, 1)
    return jnp.take_along_axis(samples_BxN, jnp.minimum(place, 2 * last_Bx1 - place), axis=1)


def stft(samples_BxN: jax.Array, n_fft: int, hop: int, window: int | None = None) -> jax.Array:
    """Complex64 [B, F, Q] of the frames within the samples: F = (N - n_fft) // hop + 1, Q = n_fft / 2 + 1.

    A periodic Hann window of `window` samples (n_fft when None) lies in the middle of each frame, as in `torch.stft`
    with center=False. Raises ValueError where there is not one frame.
    """
    if samples_BxN.shape[1] < n_fft:
        raise ValueError(f"{samples_BxN.shape[1]} samples are less than one window of {n_fft}: use longer segments")
    # A frame is a row of blocks of one hop, not a gather: its gradient is a sum of blocks.
    n_frames = (samples_BxN.shape[1] - n_fft) // hop + 1
    per_frame = -(-n_fft // hop)
    n_blocks = n_frames + per_frame - 1
    padded = jnp.pad(samples_BxN, ((0, 0), (0, max(0, n_blocks * hop - samples_BxN.shape[1]))))
    blocks = padded[:, : n_blocks * hop].reshape(len(padded), n_blocks, hop)
    frames = jnp.concatenate([blocks[:, r : r + n_frames] for r in range(per_frame)], axis=-1)[..., :n_fft]
    return jnp.fft.rfft(frames.astype(jnp.float32) * _hann(window or n_fft, n_fft))


def inverse_stft(spectrum_BxFxQ: jax.Array, hop: int, n_frames_B: jax.Array | None = None) -> jax.Array:
    """float32 [B, F * hop]: frames of n_fft = 2 (Q - 1) samples, a multiple of `hop`, under a periodic Hann window each
    and added up, divided by the sum of the squared windows, without the (n_fft - hop) / 2 outermost samples.

    As `torch.istft` does it, but for those ends ("same" padding, vocos/spectral_ops.py); imaginary parts of the first
    and last frequency count for nothing. Frames beyond `n_frames_B` of a row are left out.
    """
    n_frames, n_fft = spectrum_BxFxQ.shape[1], 2 * (spectrum_BxFxQ.shape[2] - 1)
    per_frame, cut = n_fft // hop, (n_fft - hop) // 2
    assert n_fft % hop == 0 and n_fft > hop, (n_fft, hop)
    window = _hann(n_fft, n_fft)
    lowest_or_highest = np.isin(np.arange(spectrum_BxFxQ.shape[2]), (0, n_fft // 2))
    spectrum = jnp.where(lowest_or_highest, spectrum_BxFxQ.real, spectrum_BxFxQ)
    frames_BxFxW = jnp.fft.irfft(spectrum, n_fft) * window
    real_BxFx1 = jnp.ones((1, n_frames, 1)) if n_frames_B is None else mask_time(n_frames, n_frames_B, 3)

    def added_up(frames_BxFxW):
        """Blocks of one hop: what frame f has r hops from its start goes to block f + r."""
        blocks = frames_BxFxW.reshape(len(frames_BxFxW), n_frames, per_frame, hop)
        shifted = (jnp.pad(blocks[:, :, r], ((0, 0), (r, per_frame - 1 - r), (0, 0))) for r in range(per_frame))
        return sum(shifted).reshape(len(blocks), -1)[:, cut : cut + n_frames * hop]

    weight = jnp.maximum(added_up(real_BxFx1 * window**2), 1e-11)
    return added_up(jnp.where(real_BxFx1, frames_BxFxW, 0)) / weight


@dataclass(frozen=True)
class MelSpectrogram:
    """How a mel spectrogram is made; calling it makes one.

    window, hop: samples. n_fft: samples of a transform, `window` when None; a longer one is padded with zeros.
    power: of the magnitudes, 1 or 2. unit_energy: the window is divided by its 2-norm (torchaudio's `normalized`).
    htk, equal_area: the mel scale and the height of its triangles (`librosa.filters.mel` with htk, norm="slaney").
    framing: "centre", frame i around sample i hop, mirrored ends, 1 + N // hop frames;
      "same", (n_fft - hop) / 2 samples mirrored at both ends and zeros up to a whole hop, ceil(N / hop) frames;
      "whole", as "same" without those zeros, N // hop frames.
    """

    sample_rate: int
    window: int
    hop: int
    n_mels: int
    n_fft: int | None = None
    power: int = 1
    f_min: float = 0.0
    f_max: float | None = None
    htk: bool = False
    equal_area: bool = True
    unit_energy: bool = False
    framing: str = "centre"

    def __call__(self, samples_BxN: jax.Array, n_samples_B: jax.Array | None = None):
        """(float32 [B, F, M], int32 [B] frames of each row, or None when all are full)."""
        n_fft = self.n_fft or self.window
        framed, n_frames_B = framed_samples(samples_BxN, n_fft, self.hop, self.framing, n_samples_B)
        spectrum = stft(framed, n_fft, self.hop, self.window)
        values = jnp.square(spectrum.real) + jnp.square(spectrum.imag)
        if self.unit_energy:
            values = values / np.float32(np.square(_hann(self.window, n_fft)).sum())
        if self.power == 1:
            values = root(values)
        bands = mel_bands(self.sample_rate, n_fft, self.n_mels, self.f_min, self.f_max, self.htk, self.equal_area)
        return jnp.matmul(values, bands, precision="highest"), n_frames_B


def framed_samples(samples_BxN, n_fft: int, hop: int, framing: str, n_samples_B: jax.Array | None = None):
    """(samples whose whole frames are the frames of `framing`, int32 [B] frames of each row or None).

    framing: "centre", "same", "whole" as in `MelSpectrogram`; "mirrored" is "same" with a mirrored last hop.
    """
    n = samples_BxN.shape[1]
    if framing == "centre":
        return mirror(samples_BxN, n_fft // 2, n_fft // 2, n_samples_B), _map(lambda n: n // hop + 1, n_samples_B)
    if framing not in ("same", "whole", "mirrored"):
        raise ValueError(f"framing is '{framing}': use centre, same, whole or mirrored")
    pad = (n_fft - hop) // 2
    fill = 0 if framing == "whole" else -n % hop
    samples = mirror(samples_BxN, pad, pad + fill, n_samples_B)
    if framing == "same" and n_samples_B is None:
        samples = samples.at[:, n + 2 * pad :].set(0.0)
    elif framing == "same":
        samples = jnp.where(mask_time(samples.shape[1], n_samples_B + 2 * pad), samples, 0.0)
    up = 0 if framing == "whole" else hop - 1
    return samples, _map(lambda n: (n + up) // hop, n_samples_B)


def root(power: jax.Array) -> jax.Array:
    """The square root, with a gradient of 0 at 0."""
    positive = power > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, power, 1.0)), 0.0)


@functools.cache
def mel_bands(
    sample_rate: int,
    n_fft: int,
    n_mels: int,
    f_min: float = 0.0,
    f_max: float | None = None,
    htk: bool = False,
    equal_area: bool = True,
) -> np.ndarray:
    """float32 [Q, M]: triangles on Slaney's or HTK's mel scale, up to `f_max` or half the sampling rate."""
    import librosa  # here: a second to import, and of use to few

    norm = "slaney" if equal_area else None
    with warnings.catch_warnings():  # more bands than frequencies: published losses have them, and they stay 0
        warnings.filterwarnings("ignore", message="Empty filters")
        bands = librosa.filters.mel(
            sr=sample_rate, n_fft=n_fft, n_mels=n_mels, fmin=f_min, fmax=f_max, htk=htk, norm=norm
        )
    return np.ascontiguousarray(bands.T)


@functools.cache
def _hann(window: int, n_fft: int) -> np.ndarray:
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    before = (n_fft - window) // 2
    return np.pad(hann, (before, n_fft - window - before)).astype(np.float32)


def _map(count, n_samples_B):
    return None if n_samples_B is None else jnp.where(n_samples_B > 0, count(n_samples_B), 0)
