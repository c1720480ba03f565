"""39-dimensional MFCC: the features whose k-means labels HuBERT learns from in its first iteration.

Follows Kaldi's `compute-mfcc-feats` as `torchaudio.compliance.kaldi.mfcc(use_energy=False)` has it, with two
`compute_deltas` on top (fairseq, `examples/hubert/simple_kmeans/dump_mfcc_feature.py`). Every second frame is kept, so
that frame t lies where HuBERT's frame t lies: 25 ms from sample 320 t.

Shape letters: N samples, F frames of 10 ms, T frames of 20 ms, W samples in a window, Q frequencies, M mel bands, C
cepstra.
"""

import jax
import jax.numpy as jnp
import numpy as np

from jaxslm.audio import SAMPLE_RATE

FRAME_RATE = 50.0
FRAME_CENTRE = 0.0125  # of frame 0, in seconds
DIM = 39

_HOP = 160
_WINDOW = 400
_FFT = 512
_CHUNK = 256  # frames of 10 ms a call: one compiled program serves clips of any length
_MELS = 23
_CEPSTRA = 13
_LOW_HZ = 20.0
_LIFTER = 22.0
_PREEMPHASIS = 0.97
_FLOOR = np.finfo(np.float32).eps  # of a mel band's energy, before the logarithm


def mfcc_39(samples_N: np.ndarray) -> np.ndarray:
    """13 cepstra with their first and second differences, float32 [T, 39] at 50 Hz, T = (N - 400) // 320 + 1.

    Args:
      samples_N: float samples in [-1, 1] at 16 kHz.
    Raises:
      ValueError: fewer samples than one window of 25 ms.
    """
    if len(samples_N) < _WINDOW:
        raise ValueError(f"{len(samples_N)} samples are less than one window of {_WINDOW}: leave such clips out")
    n_frames = (len(samples_N) - _WINDOW) // _HOP + 1
    firsts = range(0, n_frames, _CHUNK)
    padded_N = np.zeros((len(firsts) * _CHUNK + 2) * _HOP, np.float32)
    used = min(len(samples_N), len(padded_N))
    padded_N[:used] = samples_N[:used]
    cepstra = [_cepstra(padded_N[_HOP * first : _HOP * (first + _CHUNK + 2)]) for first in firsts]
    static_FxC = np.concatenate(cepstra)[:n_frames]
    first_FxC = _differences(static_FxC)
    return np.concatenate([static_FxC, first_FxC, _differences(first_FxC)], axis=1)[::2]


@jax.jit
def _cepstra(samples_N: jax.Array) -> jax.Array:
    """Cepstra of one chunk of frames, [_CHUNK, C]; a frame depends on nothing but its own window."""
    blocks = samples_N.reshape(-1, _HOP)
    frames_FxW = jnp.concatenate([blocks[:-2], blocks[1:-1], blocks[2:, : _WINDOW - 2 * _HOP]], axis=1)
    frames_FxW -= frames_FxW.mean(axis=1, keepdims=True)
    before_FxW = jnp.concatenate([frames_FxW[:, :1], frames_FxW[:, :-1]], axis=1)
    frames_FxW = (frames_FxW - _PREEMPHASIS * before_FxW) * _povey_window()
    power_FxQ = jnp.square(jnp.abs(jnp.fft.rfft(frames_FxW, _FFT)))
    mels_FxM = jnp.log(jnp.maximum(jnp.matmul(power_FxQ, _mel_bands(), precision="highest"), _FLOOR))
    return jnp.matmul(mels_FxM, _cosines(), precision="highest")


def _differences(values_FxC: np.ndarray) -> np.ndarray:
    """Slope over five frames, the edges repeated (as `torchaudio.functional.compute_deltas`)."""
    padded = np.pad(values_FxC, ((2, 2), (0, 0)), mode="edge")
    return (padded[3:-1] - padded[1:-3] + 2 * (padded[4:] - padded[:-4])) / 10


def _povey_window() -> np.ndarray:
    return (np.hanning(_WINDOW) ** 0.85).astype(np.float32)


def _mel_bands() -> np.ndarray:
    """[Q, M]: triangles of equal width on the mel scale, up to half the sampling rate."""

    def mel(hertz):
        return 1127.0 * np.log1p(np.asarray(hertz) / 700.0)

    edges = np.linspace(mel(_LOW_HZ), mel(SAMPLE_RATE / 2), _MELS + 2)
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    bins_Qx1 = mel(np.arange(_FFT // 2 + 1) * SAMPLE_RATE / _FFT)[:, None]
    rising, falling = (bins_Qx1 - left) / (centre - left), (right - bins_Qx1) / (right - centre)
    return np.maximum(0.0, np.minimum(rising, falling)).astype(np.float32)


def _cosines() -> np.ndarray:
    """[M, C]: orthonormal DCT-II with Kaldi's liftering."""
    order, band = np.arange(_CEPSTRA), np.arange(_MELS)[:, None]
    basis = np.cos(np.pi / _MELS * (band + 0.5) * order) * np.sqrt(np.where(order == 0, 1, 2) / _MELS)
    return (basis * (1 + 0.5 * _LIFTER * np.sin(np.pi * order / _LIFTER))).astype(np.float32)
