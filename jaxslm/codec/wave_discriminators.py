"""Sub-discriminators of the waveform, folded by periods or at lower rates.

Legend: B batch, N samples, T time, F frequency or period, C channels.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx

from jaxslm.audio.spectra import mirror
from jaxslm.codec.plane_conv import PlaneConv
from jaxslm.codec.scores import Layers, Scores, masked, scores


@dataclass(frozen=True)
class PeriodConfig:
    """HiFi-GAN's and DAC's MPD. BigCodec has channels of half the size."""

    periods: tuple[int, ...] = (2, 3, 5, 7, 11)
    channels: tuple[int, ...] = (32, 128, 512, 1024, 1024)
    slope: float = 0.1


# (channels, kernel, stride, groups) of each layer but the last
HIFIGAN_SCALE = (
    (128, 15, 1, 1),
    (128, 41, 2, 4),
    (256, 41, 2, 16),
    (512, 41, 4, 16),
    (1024, 41, 4, 16),
    (1024, 41, 1, 16),
    (1024, 5, 1, 1),
)
SOUNDSTREAM_SCALE = (
    (16, 15, 1, 1),
    (64, 41, 4, 4),
    (256, 41, 4, 16),
    (1024, 41, 4, 64),
    (1024, 41, 4, 256),
    (1024, 5, 1, 1),
)


@dataclass(frozen=True)
class ScaleConfig:
    """HiFi-GAN's MSD; with layers=SOUNDSTREAM_SCALE SoundStream's (MelGAN's). Each scale has half the rate of the one
    before it. All have weight norm, where HiFi-GAN has spectral norm on the first.
    """

    n_scales: int = 3
    layers: tuple[tuple[int, int, int, int], ...] = HIFIGAN_SCALE
    slope: float = 0.1


class PeriodSub(nnx.Module):
    """Samples folded into rows of `period`, convolved over time only."""

    def __init__(self, period: int, config: PeriodConfig, key: jax.Array):
        keys = jax.random.split(key, len(config.channels) + 1)
        dims = list(zip((1, *config.channels), config.channels, keys, strict=False))
        last = len(dims) - 1
        convs = [PlaneConv(i, o, (5, 1), k, stride=(1 if n == last else 3, 1)) for n, (i, o, k) in enumerate(dims)]
        self.layers = Layers(convs, config.slope)
        self.post = PlaneConv(config.channels[-1], 1, (3, 1), keys[-1])
        self.period = period

    def __call__(self, samples_BxN: jax.Array, n_samples_B: jax.Array | None = None) -> Scores:
        p = self.period
        samples = mirror(samples_BxN, 0, -samples_BxN.shape[1] % p, n_samples_B)
        n_B = None if n_samples_B is None else -(-n_samples_B // p)
        x = masked(samples.reshape(len(samples), -1, p, 1), n_B)
        return scores(self.layers, self.post, x, n_B)


class ScaleSub(nnx.Module):
    """The waveform at 1 / 2 ** `halvings` of its rate, convolved over time."""

    def __init__(self, halvings: int, config: ScaleConfig, key: jax.Array):
        keys = jax.random.split(key, len(config.layers) + 1)
        d_ins = (1, *(channels for channels, *_ in config.layers))
        convs = [
            PlaneConv(d_in, channels, (kernel, 1), k, stride=(stride, 1), groups=groups)
            for d_in, (channels, kernel, stride, groups), k in zip(d_ins, config.layers, keys, strict=False)
        ]
        self.layers = Layers(convs, config.slope)
        self.post = PlaneConv(d_ins[-1], 1, (3, 1), keys[-1])
        self.halvings = halvings

    def __call__(self, samples_BxN: jax.Array, n_samples_B: jax.Array | None = None) -> Scores:
        samples, n_B = samples_BxN, n_samples_B
        for _ in range(self.halvings):
            samples, n_B = _halved(samples, n_B)
        return scores(self.layers, self.post, samples[..., None, None], n_B)


def _halved(samples_BxN: jax.Array, n_B):
    """Means of 4 samples every 2, zeros at the ends (torch.nn.AvgPool1d(4, 2, padding=2)); n // 2 + 1 of them."""
    n_out = samples_BxN.shape[1] // 2 + 1
    pairs = jnp.pad(samples_BxN, ((0, 0), (2, 2 + samples_BxN.shape[1] % 2)))
    pairs = pairs.reshape(len(pairs), -1, 2).sum(axis=2) / 4
    halved = pairs[:, :n_out] + pairs[:, 1 : n_out + 1]
    n_B = None if n_B is None else jnp.where(n_B > 0, n_B // 2 + 1, 0)
    return masked(halved, n_B), n_B
