"""What a reconstruction is worth beside its original, and what its codes cost.

Legend: N samples, T frames, Q levels, K codes of a level.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxslm.codec.spectral_losses import dac_mel, multi_resolution_stft
from jaxslm.evaluation import perceptual
from jaxslm.evaluation.perceptual import Metric, Scores, measure

DEAD_SHARE = 0.1  # of an even share: a code that gets less is dead, as while training (codec/codebooks.py)
_SHORTEST = 4096  # samples that spectra are padded to; longer clips to a power of two, so that few shapes are compiled


def si_sdr(original_N: np.ndarray, reconstruction_N: np.ndarray, rate: int = 0) -> float:
    """Scale-invariant signal-to-distortion ratio in dB (Le Roux et al. 2019, equation 3), means taken out before.

    Raises ValueError where there is none: one of the two is silent, or they are the same up to their scale.
    """
    original, reconstruction = (x - x.mean() for x in np.asarray([original_N, reconstruction_N], np.float64))
    energy, size = np.square(original).sum(), np.square(reconstruction).sum()
    if energy == 0 or size == 0:
        raise ValueError(f"the {'reconstruction' if energy else 'original'} is silent")
    target = (reconstruction * original).sum() / energy * original
    kept, lost = np.square(target).sum(), np.square(reconstruction - target).sum()
    if lost <= 1e-14 * size:  # the rounding of float32 samples
        raise ValueError("it is infinite: the reconstruction is the original but for its scale")
    if kept == 0:
        raise ValueError("it is minus infinite: the reconstruction has nothing of the original")
    return 10 * math.log10(kept / lost)


def mel_distance(original_N: np.ndarray, reconstruction_N: np.ndarray, rate: int) -> float:
    """DAC's: L1 of log10 mels, summed over windows of 32 to 2048 samples."""
    return float(_mel(*_padded(original_N, reconstruction_N), rate))


def stft_distance(original_N: np.ndarray, reconstruction_N: np.ndarray, rate: int = 0) -> float:
    """Parallel WaveGAN's: spectral convergence and L1 of natural log magnitudes, averaged over three resolutions."""
    return float(_stft(*_padded(original_N, reconstruction_N)))


@jax.jit(static_argnums=3)
def _mel(fake_1xN, real_1xN, n_1, rate: int):
    return dac_mel(fake_1xN, real_1xN, rate, n_1)


@jax.jit
def _stft(fake_1xN, real_1xN, n_1):
    return multi_resolution_stft(fake_1xN, real_1xN, n_1)


def _padded(original_N: np.ndarray, reconstruction_N: np.ndarray) -> tuple[jax.Array, jax.Array, jax.Array]:
    n = len(original_N)
    more = max(_SHORTEST, 1 << (n - 1).bit_length()) - n
    fake, real = (jnp.asarray(np.pad(x, (0, more))[None], jnp.float32) for x in (reconstruction_N, original_N))
    return fake, real, jnp.array([n])


METRICS: dict[str, Metric] = {
    "si_sdr": si_sdr,
    "mel": mel_distance,
    "stft": stft_distance,
    **perceptual.BY_PACKAGES,
}
TITLES = {
    "si_sdr": "SI-SDR (dB)", "mel": "mel distance", "stft": "STFT distance", "pesq": "PESQ-wb", "stoi": "STOI",
    "visqol": "ViSQOL", "speaker": "speaker likeness",
}  # fmt: skip


def choose_metrics(names: Sequence[str] = ()) -> tuple[list[str], dict[str, str]]:
    """(metrics to measure, {metric: what to install for it} of the others); all where none is named.

    Raises ValueError for a name that is not one of METRICS, and one that is named but not installed.
    """
    if unknown := [name for name in names if name not in METRICS]:
        raise ValueError(f"unknown metric {', '.join(unknown)}: choose of {', '.join(METRICS)}")
    absent = {name: cure for name in names or METRICS if (cure := perceptual.missing(name))}
    if names and absent:
        raise ValueError("; ".join(absent.values()))
    return [name for name in names or METRICS if name not in absent], absent


def measure_clip(original_N: np.ndarray, reconstruction_N: np.ndarray, rate: int, names: Sequence[str]) -> Scores:
    """Scores of one reconstruction, as long as its original, by these METRICS."""
    return measure({name: METRICS[name] for name in names}, original_N, reconstruction_N, rate)


def summarize(scores: dict[str, Scores]) -> dict[str, dict]:
    """By metric over the clips that have it: mean, median, "clips" of them; "failed", {clip: why} of the others."""
    table = {}
    for name in {name: None for each in scores.values() for name in each.values}:
        got = [each.values[name] for each in scores.values() if name in each.values and name not in each.failures]
        failed = {id: each.failures[name] for id, each in scores.items() if name in each.failures}
        mean, median = (float(np.mean(got)), float(np.median(got))) if got else (None, None)
        table[name] = dict(mean=mean, median=median, clips=len(got), failed=failed)
    return table


def bitrate(codebook_sizes: Sequence[int], frame_rate: float) -> float:
    """Bits a second of codes written without any model of them: sum log2(K) * frame_rate."""
    return float(np.log2(codebook_sizes).sum() * frame_rate)


class CodeCounts:
    """How often each code of each level occurs over a corpus.

    The entropies of few frames are too low: they can be no more than log2 of the frames.
    """

    def __init__(self, codebook_sizes: Sequence[int]):
        self.counts = [np.zeros(size, np.int64) for size in codebook_sizes]

    def add(self, codes_TxQ: np.ndarray) -> None:
        for counts_K, ids_T in zip(self.counts, codes_TxQ.T, strict=True):
            counts_K += np.bincount(ids_T, minlength=len(counts_K))

    def first(self, n: int) -> "CodeCounts":
        """The counts of the first n codes of a frame."""
        counts = CodeCounts(())
        counts.counts = self.counts[:n]
        return counts

    def entropy_bitrate(self, frame_rate: float) -> float:
        """Bits a second of codes written by an ideal code for each level: sum H(code) * frame_rate."""
        return sum(_entropy(counts_K) for counts_K in self.counts) * frame_rate

    def levels(self) -> list[dict[str, float]]:
        """Of each level: "size" K, "usage" (share of the codes that occur), "perplexity" (K where all occur alike),
        "dead" (share of the codes that occur less than a tenth as often as if all did alike) and "entropy" in bits.
        """
        return [
            dict(
                size=len(counts_K),
                usage=float(np.mean(counts_K > 0)),
                perplexity=2 ** _entropy(counts_K),
                dead=float(np.mean(counts_K < DEAD_SHARE * counts_K.mean())),
                entropy=_entropy(counts_K),
            )
            for counts_K in self.counts
        ]


def _entropy(counts_K: np.ndarray) -> float:
    """Bits."""
    shares = counts_K[counts_K > 0] / max(counts_K.sum(), 1)
    return float(-(shares * np.log2(shares)).sum()) + 0.0
