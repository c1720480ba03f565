"""Pictures of sound: waveforms, and mel spectrograms in dB, as PNG."""

import functools
import io

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from jaxslm.audio.spectra import MelSpectrogram, mel_bands

N_MELS = 80
RANGE_DB = 80.0  # what lies further below the loudest place is black
_WINDOW_SECONDS, _HOP_SECONDS = 0.032, 0.008
_SHORTEST = 4096  # samples that clips are padded to; longer ones to a power of two, so that few shapes are compiled
_COLUMNS = 1440  # of a waveform: each spans what its samples reach
_TICKS = (250, 500, 1000, 2000, 4000, 8000, 16_000)  # Hz


def mel_db(samples_N: np.ndarray, rate: int) -> np.ndarray:
    """float32 [F, M]: power of 80 mel bands in dB, frames every 8 ms; samples that are not finite count as 0."""
    n = len(samples_N)
    length = max(_SHORTEST, 1 << (n - 1).bit_length())
    samples_N = np.where(np.isfinite(samples_N), samples_N, 0.0)
    padded_1xN = jnp.asarray(np.pad(samples_N, (0, length - n))[None], jnp.float32)
    mels, n_frames_1 = _mels(padded_1xN, jnp.array([n]), _spectrogram(rate))
    return np.asarray(10 * np.log10(np.maximum(mels[0], 1e-10)))[: int(n_frames_1[0])]


@functools.cache
def _spectrogram(rate: int) -> MelSpectrogram:
    window, hop = (max(round(seconds * rate), 4) for seconds in (_WINDOW_SECONDS, _HOP_SECONDS))
    return MelSpectrogram(rate, window, hop, N_MELS, n_fft=4 * window, power=2)


@jax.jit(static_argnums=2)
def _mels(samples_BxN, n_samples_B, spectrogram: MelSpectrogram):
    return spectrogram(samples_BxN, n_samples_B)


def draw_spectrogram(mels_FxM: np.ndarray, rate: int, loudest: float) -> bytes:
    """The PNG of one `mel_db`; `loudest` dB is white, so that pictures of one original can be compared."""
    figure = Figure(figsize=(3.4, 2.3), layout="constrained")
    _draw_mels(figure.subplots(), mels_FxM, rate, loudest)
    return png(figure)


def draw_sound(samples_N: np.ndarray, rate: int) -> bytes:
    """The PNG of a clip's waveform and, below it on the same time axis, its mel spectrogram."""
    mels_FxM = mel_db(samples_N, rate)
    figure = Figure(figsize=(7.2, 3.4), layout="constrained")
    wave, bands = figure.subplots(2, sharex=True, height_ratios=(1, 2))
    starts_C = np.unique(np.linspace(0, len(samples_N), _COLUMNS, endpoint=False).astype(int))
    finite_N = np.where(np.isfinite(samples_N), samples_N, 0.0)
    edges = [np.asarray(end.reduceat(finite_N, starts_C)) for end in (np.minimum, np.maximum)]
    wave.fill_between(starts_C / rate, *edges, color="#3b5b92", linewidth=0.6)
    peak = max(float(np.abs(finite_N).max()), 1e-3)
    wave.set_ylim(-peak, peak)
    wave.set_yticks([-peak, 0, peak], [f"{-peak:.2g}", "0", f"{peak:.2g}"])
    wave.tick_params(labelsize=8, length=2, labelbottom=False)
    wave.spines[["top", "right", "bottom"]].set_visible(False)
    _draw_mels(bands, mels_FxM, rate, float(mels_FxM.max()))
    bands.set_xlim(0, max(len(samples_N) / rate, _HOP_SECONDS))
    return png(figure)


def _draw_mels(axes: Axes, mels_FxM: np.ndarray, rate: int, loudest: float) -> None:
    seconds = len(mels_FxM) * _HOP_SECONDS
    axes.imshow(
        mels_FxM.T,
        origin="lower",
        aspect="auto",
        interpolation="nearest",
        cmap="magma",
        vmin=loudest - RANGE_DB,
        vmax=loudest,
        extent=(0, seconds, 0, N_MELS),
    )
    bands_QxM = mel_bands(rate, _spectrogram(rate).n_fft, N_MELS)
    peaks_M = bands_QxM.argmax(axis=0) * rate / _spectrogram(rate).n_fft
    ticks = [hertz for hertz in _TICKS if hertz <= rate / 2]
    places = [np.interp(hertz, peaks_M, np.arange(N_MELS) + 0.5) for hertz in ticks]
    axes.set_yticks(places, [f"{hertz / 1000:g}" for hertz in ticks], fontsize=8)
    axes.set_ylabel("kHz", fontsize=8)
    axes.set_xlabel("s", fontsize=8)
    axes.tick_params(labelsize=8, length=2)
    axes.spines[:].set_visible(False)


def png(figure: Figure) -> bytes:
    """A figure as the bytes of a PNG file."""
    FigureCanvasAgg(figure)
    file = io.BytesIO()
    figure.savefig(file, dpi=100, format="png")
    return file.getvalue()
