"""SEANet: strided convolutions with residual units (Tagliasacchi et al. 2020), as SoundStream, EnCodec, Mimi,
SpeechTokenizer and WavTokenizer have it (encodec/modules/seanet.py; moshi/modules/seanet.py).

Layers are counted as Hugging Face counts `encoder.layers.{n}` and `decoder.layers.{n}`: activations count, too.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax

from jaxslm.codec.bottleneck import LSTM, TransformerConfig, WindowTransformer
from jaxslm.codec.chain import Activation, Chain, Residual
from jaxslm.codec.conv import Conv, ConvTranspose
from jaxslm.spelling import closest


@dataclasses.dataclass(frozen=True)
class SEANetConfig:
    """An encoder or decoder; the defaults are those of soundstream_16k.

    n_filters: channels at the rate of the samples; each stage of the encoder doubles them.
    ratios: strides from the samples on, for the encoder and the decoder alike; kernels are twice as long.
    kernel, last_kernel: taps of the first and of the last convolution.
    residual_kernel, n_residual, dilation_base: residual unit j of a stage has `residual_kernel` taps `dilation_base^j`
      apart.
    compress: a residual unit has this many times fewer channels inside.
    true_skip: what passes by a residual unit stays as it is; else it is projected.
    activation: "elu", "leaky", "snake" or "snakebeta".
    causal, pad, norm, trim_right_ratio: see `conv.Conv` and `conv.ConvTranspose`.
    lstm: layers of a `bottleneck.LSTM` where frames are fewest; 0: none.
    bidirectional: the LSTM is; of encoders only.
    transformer: fields of a `bottleneck.TransformerConfig`, of a transformer over the latents (Mimi); None: none.
    downsample: stride of a further convolution, the last of the encoder, and of its transpose, the first of the decoder
      (Mimi); 0: none.
    """

    n_filters: int = 32
    ratios: tuple[int, ...] = (2, 4, 5, 8)
    kernel: int = 7
    last_kernel: int = 7
    residual_kernel: int = 7
    n_residual: int = 3
    dilation_base: int = 3
    compress: int = 1
    true_skip: bool = True
    activation: str = "elu"
    causal: bool = True
    pad: str = "zero"
    norm: str = "weight"
    trim_right_ratio: float = 1.0
    lstm: int = 0
    bidirectional: bool = False
    transformer: TransformerConfig | Mapping[str, Any] | None = None
    downsample: int = 0

    def __post_init__(self):
        object.__setattr__(self, "ratios", tuple(self.ratios))
        if isinstance(self.transformer, Mapping):
            object.__setattr__(self, "transformer", _transformer(self.transformer))
        if not self.ratios or min(self.ratios) < 1:
            raise ValueError(f"ratios={self.ratios}; give at least one stride, each 1 or more")
        if self.compress < 1 or self.n_filters < 1 or self.n_filters % self.compress:
            raise ValueError(f"compress={self.compress} does not divide n_filters={self.n_filters}; change one")
        if self.lstm < 0 or self.downsample < 0:
            raise ValueError(f"lstm={self.lstm}, downsample={self.downsample}; set them to 0 (none) or more")

    @property
    def hop(self) -> int:
        """Samples a frame."""
        return math.prod(self.ratios) * max(self.downsample, 1)

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels at each rate, from that of the samples to that of the frames."""
        return tuple(self.n_filters * 2**i for i in range(len(self.ratios) + 1))


def _transformer(fields: Mapping[str, Any]) -> TransformerConfig:
    known = {field.name for field in dataclasses.fields(TransformerConfig)}
    for name in fields:
        if name not in known:
            raise ValueError(f"transformer has no field '{name}'.{closest(name, known)}")
    return TransformerConfig(**fields)


def seanet_encoder(config: SEANetConfig, dim: int, key: jax.Array) -> Chain:
    """[B, N, 1] samples to [B, ceil(N / hop), dim]."""
    keys = iter(jax.random.split(key, _n_keys(config)))
    layers = [_conv(config, 1, config.n_filters, config.kernel, next(keys))]
    for ratio, width in zip(config.ratios, config.widths, strict=False):
        layers += _residual_units(config, width, keys)
        layers += [_activation(config, width), _conv(config, width, 2 * width, 2 * ratio, next(keys), stride=ratio)]
    width = config.widths[-1]
    if config.lstm:
        layers.append(LSTM(width, config.lstm, next(keys), bidirectional=config.bidirectional))
        width *= 1 + config.bidirectional
    layers += [_activation(config, width), _conv(config, width, dim, config.last_kernel, next(keys))]
    if config.transformer is not None:
        layers.append(WindowTransformer(config.transformer, dim, next(keys)))
    if stride := config.downsample:
        # As Mimi trains it: without bias and weight norm.
        options = dict(causal=config.causal, pad="edge", bias=False)
        layers.append(Conv(dim, dim, 2 * stride, next(keys), stride=stride, **options))
    return Chain(layers)


def seanet_decoder(config: SEANetConfig, dim: int, key: jax.Array) -> Chain:
    """[B, T, dim] to [B, T * hop, 1] samples. Raises ValueError for a bidirectional LSTM."""
    if config.bidirectional:
        raise ValueError("bidirectional=True is for encoders; set it to False in the decoder")
    keys = iter(jax.random.split(key, _n_keys(config)))
    layers = []
    trim = dict(causal=config.causal, trim_right_ratio=config.trim_right_ratio)
    if stride := config.downsample:
        layers.append(ConvTranspose(dim, dim, 2 * stride, stride, next(keys), groups=dim, bias=False, **trim))
    if config.transformer is not None:
        layers.append(WindowTransformer(config.transformer, dim, next(keys)))
    width = config.widths[-1]
    layers.append(_conv(config, dim, width, config.kernel, next(keys)))
    if config.lstm:
        layers.append(LSTM(width, config.lstm, next(keys)))
    for ratio, width in zip(reversed(config.ratios), reversed(config.widths), strict=False):
        up = ConvTranspose(width, width // 2, 2 * ratio, ratio, next(keys), norm=config.norm, **trim)
        layers += [_activation(config, width), up, *_residual_units(config, width // 2, keys)]
    last = _conv(config, config.n_filters, 1, config.last_kernel, next(keys))
    return Chain([*layers, _activation(config, config.n_filters), last])


def _n_keys(config: SEANetConfig) -> int:
    return 5 + len(config.ratios) * (1 + 3 * config.n_residual)


def _activation(config: SEANetConfig, width: int) -> Activation:
    return Activation(config.activation, width)


def _conv(config: SEANetConfig, d_in: int, d_out: int, kernel: int, key: jax.Array, **options) -> Conv:
    return Conv(d_in, d_out, kernel, key, causal=config.causal, pad=config.pad, norm=config.norm, **options)


def _residual_units(config: SEANetConfig, width: int, keys) -> list[Residual]:
    hidden = width // config.compress
    units = []
    for j in range(config.n_residual):
        dilation = config.dilation_base**j
        block = [
            _activation(config, width),
            _conv(config, width, hidden, config.residual_kernel, next(keys), dilation=dilation),
            _activation(config, hidden),
            _conv(config, hidden, width, 1, next(keys)),
        ]
        units.append(Residual(Chain(block), None if config.true_skip else _conv(config, width, width, 1, next(keys))))
    return units
