"""Sub-discriminators of complex spectra, whose real and imaginary parts are two channels.

Legend: B batch, N samples, T time, F frequency or period, C channels.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx

from jaxslm.audio.spectra import framed_samples, stft
from jaxslm.codec.plane_conv import PlaneConv
from jaxslm.codec.scores import Layers, Scores, apply, finish, masked, scores


@dataclass(frozen=True)
class StftConfig:
    """EnCodec's MS-STFT, in the five scales of audiocraft; hops are a quarter of a window. audiocraft has slope 0.3."""

    windows: tuple[int, ...] = (2048, 1024, 512, 256, 128)
    channels: int = 32
    dilations: tuple[int, ...] = (1, 2, 4)
    slope: float = 0.2


@dataclass(frozen=True)
class ResidualStftConfig:
    """SoundStream's STFT discriminator: strides (1, 2) and (2, 2) over (time, frequency) in turn.

    multipliers: of the channels, by residual unit. The slope is not in the paper.
    """

    window: int = 1024
    channels: int = 32
    multipliers: tuple[int, ...] = (2, 2, 1, 2, 1, 2)
    slope: float = 0.3


@dataclass(frozen=True)
class BandConfig:
    """DAC's complex multi-band MRD; bands are fractions of half the sampling rate."""

    windows: tuple[int, ...] = (2048, 1024, 512)
    bands: tuple[tuple[float, float], ...] = ((0.0, 0.1), (0.1, 0.25), (0.25, 0.5), (0.5, 0.75), (0.75, 1.0))
    channels: int = 32
    slope: float = 0.1


class StftSub(nnx.Module):
    """Real and imaginary parts of one STFT, convolved over time and frequency."""

    def __init__(self, window: int, config: StftConfig, key: jax.Array):
        keys = iter(jax.random.split(key, len(config.dilations) + 3))
        d = config.channels
        convs = [PlaneConv(2, d, (3, 9), next(keys))]
        convs += [PlaneConv(d, d, (3, 9), next(keys), stride=(1, 2), dilation=n) for n in config.dilations]
        convs += [PlaneConv(d, d, (3, 3), next(keys))]
        self.layers = Layers(convs, config.slope)
        self.post = PlaneConv(d, 1, (3, 3), next(keys))
        self.window = window

    def __call__(self, samples_BxN: jax.Array, n_samples_B: jax.Array | None = None) -> Scores:
        w, hop = self.window, self.window // 4
        # As torchaudio's normalized=True: divided by the 2-norm of the Hann window, sqrt(3 / 8 of its length).
        x = _parts(stft(samples_BxN, w, hop) / (3 / 8 * w) ** 0.5, samples_BxN.dtype)
        n_B = None if n_samples_B is None else jnp.maximum((n_samples_B - w) // hop + 1, 0)
        return scores(self.layers, self.post, masked(x, n_B), n_B)


class _ResidualUnit(nnx.Module):
    def __init__(self, d_in: int, d_out: int, stride: tuple[int, int], slope: float, key: jax.Array):
        keys = jax.random.split(key, 3)
        self.first = PlaneConv(d_in, d_in, (3, 3), keys[0])
        self.second = PlaneConv(d_in, d_out, (stride[0] + 2, stride[1] + 2), keys[1], stride=stride)
        self.skip = PlaneConv(d_in, d_out, (1, 1), keys[2])
        self.stride, self.slope = stride, slope

    def __call__(self, x, n_B):
        y, n_B = apply(self.first, x, n_B, self.slope)
        y, n_B = apply(self.second, y, n_B)
        skip = x[:, :: self.stride[0], :: self.stride[1]][:, : y.shape[1], : y.shape[2]]
        y = jax.nn.leaky_relu(y + self.skip(skip), self.slope)
        return masked(y, n_B), n_B


class ResidualStftSub(nnx.Module):
    """Real and imaginary parts of one STFT (centred frames, without the highest frequency) through residual units."""

    def __init__(self, config: ResidualStftConfig, key: jax.Array):
        keys = iter(jax.random.split(key, len(config.multipliers) + 2))
        d, units, bins = config.channels, [], config.window // 2
        self.first = PlaneConv(2, d, (7, 7), next(keys))
        for i, multiplier in enumerate(config.multipliers):
            units.append(_ResidualUnit(d, d * multiplier, (1 + i % 2, 2), config.slope, next(keys)))
            d, bins = d * multiplier, bins // 2
        self.units = nnx.List(units)
        self.post = PlaneConv(d, 1, (1, bins), next(keys), padding=(0, 0))
        self.window, self.slope = config.window, config.slope

    def __call__(self, samples_BxN: jax.Array, n_samples_B: jax.Array | None = None) -> Scores:
        hop = self.window // 4
        framed, n_B = framed_samples(samples_BxN, self.window, hop, "centre", n_samples_B)
        x = masked(_parts(stft(framed, self.window, hop)[..., :-1], samples_BxN.dtype), n_B)
        x, n_B = apply(self.first, x, n_B, self.slope)
        features, counts = [x], [n_B]
        for unit in self.units:
            x, n_B = unit(x, n_B)
            features.append(x)
            counts.append(n_B)
        return finish(self.post, x, n_B, features, counts)


class BandSub(nnx.Module):
    """Real and imaginary parts of one STFT cut into bands, each with its own convolutions."""

    def __init__(self, window: int, config: BandConfig, key: jax.Array):
        n_bins = window // 2 + 1
        self.bands = tuple((int(low * n_bins), int(high * n_bins)) for low, high in config.bands)
        d, post_key = config.channels, jax.random.fold_in(key, len(self.bands))
        stacks = []
        for i in range(len(self.bands)):
            keys = jax.random.split(jax.random.fold_in(key, i), 5)
            convs = [PlaneConv(2, d, (3, 9), keys[0])]
            convs += [PlaneConv(d, d, (3, 9), k, stride=(1, 2)) for k in keys[1:4]]
            stacks.append(Layers([*convs, PlaneConv(d, d, (3, 3), keys[4])], config.slope))
        self.stacks = nnx.List(stacks)
        self.post = PlaneConv(d, 1, (3, 3), post_key)
        self.window = window

    def __call__(self, samples_BxN: jax.Array, n_samples_B: jax.Array | None = None) -> Scores:
        hop = self.window // 4
        framed, n_B = framed_samples(samples_BxN, self.window, hop, "mirrored", n_samples_B)
        x = masked(_parts(stft(framed, self.window, hop), samples_BxN.dtype), n_B)
        features, counts, ends = [], [], []
        for (low, high), stack in zip(self.bands, self.stacks, strict=True):
            ends.append(stack(x[:, :, low:high], n_B, features, counts)[0])
        return finish(self.post, jnp.concatenate(ends, axis=2), n_B, features, counts)


def _parts(spectrum_BxTxF: jax.Array, dtype) -> jax.Array:
    return jnp.stack([spectrum_BxTxF.real, spectrum_BxTxF.imag], axis=-1).astype(dtype)
