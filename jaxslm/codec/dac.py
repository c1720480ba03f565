"""DAC: strided convolutions with residual units of three dilations and Snake (Kumar et al. 2023; dac/model/dac.py), and
BigCodec, which has alias-free SnakeBeta and LSTMs in the same places (Xin et al. 2024; vq/codec_encoder.py,
codec_decoder.py).

DAC's decoder loses a sample at each odd stride; ours gives T * hop samples, as BigCodec's does.
"""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx

from jaxslm.codec.alias_free import AliasFree
from jaxslm.codec.bottleneck import LSTM
from jaxslm.codec.chain import Activation, Chain, Residual
from jaxslm.codec.conv import Conv, ConvTranspose, zero_beyond


@dataclass(frozen=True)
class DACConfig:
    """An encoder; the defaults are those of DAC for 16 and 24 kHz.

    channels: of an encoder at the rate of the samples; each stage doubles them.
    ratios: strides from the samples on, for the encoder and the decoder alike; kernels are twice as long.
    dilations: one residual unit each, with 7 taps that far apart, in each stage.
    activation: "snake" (DAC), "snakebeta" (BigCodec), "elu" or "leaky".
    alias_free: activations run at twice the rate, see `AliasFree`; not with `causal`.
    lstm: layers of the residual LSTM at the rate of the frames; BigCodec has 2.
    causal, norm: see `conv.Conv`.
    """

    channels: int = 64
    ratios: tuple[int, ...] = (2, 4, 5, 8)
    dilations: tuple[int, ...] = (1, 3, 9)
    activation: str = "snake"
    alias_free: bool = False
    lstm: int = 0
    causal: bool = False
    norm: str = "weight"

    def __post_init__(self):
        for name in ("ratios", "dilations"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if not self.ratios or min(self.ratios) < 1:
            raise ValueError(f"ratios={self.ratios}; give at least one stride, each 1 or more")
        if self.channels < 1:
            raise ValueError(f"channels={self.channels}; set it to 1 or more")
        if self.alias_free and self.causal:
            raise ValueError("alias_free=True looks ahead and causal=True must not; set one of them to False")

    @property
    def hop(self) -> int:
        """Samples a frame."""
        return math.prod(self.ratios)


@dataclass(frozen=True)
class DACDecoderConfig(DACConfig):
    """A decoder; `channels` are those at the rate of the frames, and each stage halves them."""

    channels: int = 1536

    def __post_init__(self):
        super().__post_init__()
        shrinks = 2 ** len(self.ratios)
        if self.channels % shrinks:
            raise ValueError(
                f"channels={self.channels} of a decoder cannot be halved for each of the {len(self.ratios)} ratios; "
                f"make it a multiple of {shrinks}"
            )


class WholeHops(nnx.Module):
    """`x` with zeros behind it up to a multiple of `hop`."""

    def __init__(self, hop: int):
        self.hop = hop

    def __call__(self, x_BxTxC: jax.Array, lengths_B: jax.Array | None = None) -> jax.Array:
        return jnp.pad(zero_beyond(x_BxTxC, lengths_B), ((0, 0), (0, -x_BxTxC.shape[1] % self.hop), (0, 0)))

    def length(self, lengths):
        return lengths + -lengths % self.hop

    def start(self, batch: int, dtype=jnp.float32) -> tuple:
        return ()

    def stream(self, x_BxTxC: jax.Array, state: tuple) -> tuple[jax.Array, tuple]:
        """Raises ValueError for a chunk of no whole hops: what it lacks may come with the next."""
        if x_BxTxC.shape[1] % self.hop:
            raise ValueError(f"a chunk of {x_BxTxC.shape[1]} samples is no multiple of {self.hop}: send whole hops")
        return x_BxTxC, state


def dac_encoder(config: DACConfig, dim: int, key: jax.Array) -> Chain:
    """[B, N, 1] samples to [B, ceil(N / hop), dim]."""
    first, last, lstm, *keys = jax.random.split(key, 3 + len(config.ratios))
    width = config.channels
    layers = [WholeHops(config.hop), _conv(config, 1, width, 7, first)]
    for ratio, stage_key in zip(config.ratios, keys, strict=True):
        down, units = jax.random.split(stage_key)
        stage = [*_residual_units(config, width, units), _activation(config, width)]
        layers.append(Chain([*stage, _conv(config, width, 2 * width, 2 * ratio, down, stride=ratio)]))
        width *= 2
    layers += _lstm(config, width, lstm)
    return Chain([*layers, _activation(config, width), _conv(config, width, dim, 3, last)])


def dac_decoder(config: DACDecoderConfig, dim: int, key: jax.Array) -> Chain:
    """[B, T, dim] to [B, T * hop, 1] samples in [-1, 1]."""
    first, last, lstm, *keys = jax.random.split(key, 3 + len(config.ratios))
    width = config.channels
    layers = [_conv(config, dim, width, 7, first), *_lstm(config, width, lstm)]
    for ratio, stage_key in zip(reversed(config.ratios), keys, strict=True):
        up, units = jax.random.split(stage_key)
        stage = [
            _activation(config, width),
            ConvTranspose(width, width // 2, 2 * ratio, ratio, up, causal=config.causal, norm=config.norm),
        ]
        width //= 2
        layers.append(Chain([*stage, *_residual_units(config, width, units)]))
    return Chain([*layers, _activation(config, width), _conv(config, width, 1, 7, last), Activation("tanh", 1)])


def _conv(config: DACConfig, d_in: int, d_out: int, kernel: int, key: jax.Array, **options) -> Conv:
    return Conv(d_in, d_out, kernel, key, causal=config.causal, norm=config.norm, **options)


def _activation(config: DACConfig, width: int) -> Activation | AliasFree:
    plain = Activation(config.activation, width)
    return AliasFree(plain.function) if config.alias_free else plain


def _lstm(config: DACConfig, width: int, key: jax.Array) -> list[LSTM]:
    return [LSTM(width, config.lstm, key)] if config.lstm else []


def _residual_units(config: DACConfig, width: int, key: jax.Array) -> list[Residual]:
    units = []
    for i, dilation in enumerate(config.dilations):
        wide, narrow = jax.random.split(jax.random.fold_in(key, i))
        block = [
            _activation(config, width),
            _conv(config, width, width, 7, wide, dilation=dilation),
            _activation(config, width),
            _conv(config, width, width, 1, narrow),
        ]
        units.append(Residual(Chain(block)))
    return units
