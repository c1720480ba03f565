"""Vocos: frames to a spectrum, at one rate, and samples by an inverse Fourier transform (Siuzdak 2023); WavTokenizer's
decoder, with residual units and attention before it (Ji et al. 2024; decoder/models.py, heads.py, spectral_ops.py).

Legend: B batch, T frames, N samples, C channels, G groups, D features, L layers, E conditions, Q frequencies.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx

from jaxslm.audio.spectra import framed_samples, inverse_stft, stft
from jaxslm.codec.chain import Chain, Residual
from jaxslm.codec.conv import Conv
from jaxslm.masking import mask_time
from jaxslm.nn.bidirectional import attend_bidirectional
from jaxslm.nn.layers import LayerNorm, Linear, at_least_float32, standardize

MAX_MAGNITUDE = 100.0  # of the decoder
FAINTEST = 1e-3  # magnitude to the encoder, against division by zero


@dataclass(frozen=True)
class VocosConfig:
    """The defaults are WavTokenizer's, for 75 frames a second of 24 kHz.

    hop: samples a frame. overlap: hops a transform, 2 or more.
    width, hidden: features of a frame, and inside of a block. n_layers: blocks.
    front: residual units and attention over all frames before the blocks (WavTokenizer).
    groups: of the features that the group norms of `front` treat alike.
    n_conditions: sets of scales and shifts in the norms, chosen by `condition_B`; with 1 they are layer norms.
    """

    hop: int = 320
    overlap: int = 4
    width: int = 768
    hidden: int = 2304
    n_layers: int = 12
    front: bool = True
    groups: int = 32
    n_conditions: int = 4
    norm_eps: float = 1e-6

    def __post_init__(self):
        for name, least in (("hop", 1), ("overlap", 2), ("width", 1), ("hidden", 1), ("n_layers", 1), ("groups", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)}; set it to {least} or more")
        if self.n_conditions < 1:
            raise ValueError(f"n_conditions={self.n_conditions}; set it to 1 or more, 1 for plain layer norms")
        if self.front and self.width % self.groups:
            raise ValueError(f"groups={self.groups} does not divide width={self.width}; change one")
        if self.hop % 2:
            raise ValueError(f"hop={self.hop} cannot be centred in a transform; make it even")


@dataclass(frozen=True)
class VocosEncoderConfig(VocosConfig):
    """phase: whether phases are shown. Without them a recording turned upside down has the same codes, codes are easier
    to predict (Langman et al. 2024, arXiv 2406.05298), and the decoder makes phases of its own.
    """

    phase: bool = True


def vocos_decoder(config: VocosConfig, dim: int, key: jax.Array) -> "Vocos":
    """[B, T, dim] to [B, T * hop, 1] samples."""
    return Vocos(config, dim, key)


def vocos_encoder(config: VocosEncoderConfig, dim: int, key: jax.Array) -> "VocosEncoder":
    """[B, N, 1] samples to [B, ceil(N / hop), dim]."""
    return VocosEncoder(config, dim, key)


class _Trunk(nnx.Module):
    """From features to features at the rate of the frames: a layer but for `length`, which does not run on chunks.

    The blocks are one module with a leading layer axis, run by a scan. WavTokenizer's dropout of 0.1 is left out.
    """

    def __init__(self, config: VocosConfig, d_in: int, d_out: int, key: jax.Array):
        embed, front, blocks, head = jax.random.split(key, 4)
        width = config.width
        self.config = config
        self.embed = Conv(d_in, width, 7, embed, causal=False)
        self.front = _front(config, front) if config.front else None
        self.norm = ConditionNorm(config.n_conditions, width, config.norm_eps)
        self.blocks = jax.vmap(lambda key: _Block(config, key))(jax.random.split(blocks, config.n_layers))
        self.final_norm = LayerNorm(width, eps=config.norm_eps)
        self.head = Linear(width, d_out, head, axes=("embed", None), bias=True)

    def _run(self, x_BxTxI: jax.Array, lengths_B: jax.Array | None, condition_B: jax.Array | None) -> jax.Array:
        x = self.embed(x_BxTxI, lengths_B)
        x = x if self.front is None else self.front(x, lengths_B)
        x = self.norm(x, condition_B)
        x, _ = jax.lax.scan(lambda x, block: (block(x, lengths_B, condition_B), None), x, self.blocks)
        return self.head(self.final_norm(x))

    def start(self, batch: int, dtype=jnp.float32):
        """Raises ValueError: it looks ahead."""
        raise ValueError("Vocos looks ahead and cannot run on chunks: take the whole, or a causal network")

    stream = start


class VocosEncoder(_Trunk):
    """The decoder's way back: the spectrum of each frame through the same blocks, as logarithms of the magnitudes and,
    unless phases are hidden, as real and imaginary parts with magnitudes to the power of .3, in which alone a network
    is slow to find the magnitudes. All is computed at the rate of the frames.

    Ours; SpectroStream (Li et al. 2025) encodes such spectra by convolutions over time and frequency.
    """

    def __init__(self, config: VocosEncoderConfig, dim: int, key: jax.Array):
        n_parts = 3 if config.phase else 1
        super().__init__(config, n_parts * (config.hop * config.overlap // 2 + 1), dim, key)

    def __call__(self, samples_BxNx1: jax.Array, lengths_B: jax.Array | None = None) -> jax.Array:
        x, frames_B = self.spectra(samples_BxNx1[..., 0], lengths_B)
        return self._run(x.astype(samples_BxNx1.dtype), frames_B, None)

    def spectra(self, samples_BxN: jax.Array, lengths_B: jax.Array | None) -> tuple[jax.Array, jax.Array | None]:
        """(float32 [B, T, 3 Q], real parts, imaginary parts and logarithms, or the last alone; frames of each row)."""
        hop = self.config.hop
        n_fft = hop * self.config.overlap
        framed, frames_B = framed_samples(samples_BxN, n_fft, hop, "same", lengths_B)
        spectrum = stft(framed, n_fft, hop)
        squares = jnp.maximum(jnp.square(spectrum.real) + jnp.square(spectrum.imag), FAINTEST**2)
        logs = 0.25 * jnp.log(squares) + 0.5  # about 0 and 1 in the mean and the spread, for speech
        if not self.config.phase:
            return logs, frames_B
        factors = squares**-0.35
        return jnp.concatenate([spectrum.real * factors, spectrum.imag * factors, logs], axis=-1), frames_B

    def length(self, lengths):
        """Frames out of `lengths` samples in (an int or an array)."""
        return -(-lengths // self.config.hop)


class Vocos(_Trunk):
    """A layer. Every sample depends on all frames where there is a `front`."""

    def __init__(self, config: VocosConfig, dim: int, key: jax.Array):
        super().__init__(config, dim, config.hop * config.overlap + 2, key)

    def __call__(
        self, x_BxTxD: jax.Array, lengths_B: jax.Array | None = None, condition_B: jax.Array | None = None
    ) -> jax.Array:
        """`condition_B`: of each row, below `n_conditions`; 0, as WavTokenizer decodes, where None."""
        x = self._run(x_BxTxD, lengths_B, condition_B)
        # Magnitudes, phases and transforms in float32: bfloat16 knows phases to a hundredth of a turn.
        logs_BxTxQ, phases_BxTxQ = jnp.split(x.astype(jnp.float32), 2, axis=-1)
        magnitudes_BxTxQ = jnp.minimum(jnp.exp(logs_BxTxQ), MAX_MAGNITUDE)
        spectrum = jax.lax.complex(magnitudes_BxTxQ * jnp.cos(phases_BxTxQ), magnitudes_BxTxQ * jnp.sin(phases_BxTxQ))
        return inverse_stft(spectrum, self.config.hop, lengths_B)[..., None].astype(x_BxTxD.dtype)

    def length(self, lengths):
        """Samples out of `lengths` frames in (an int or an array)."""
        return lengths * self.config.hop


class ConditionNorm(nnx.Module):
    """A layer norm with `n_conditions` scales and shifts to choose from (AdaLayerNorm of Vocos)."""

    def __init__(self, n_conditions: int, dim: int, eps: float):
        self.scale = nnx.Param(jnp.ones((n_conditions, dim)), logical_axes=(None, None))
        self.bias = nnx.Param(jnp.zeros((n_conditions, dim)), logical_axes=(None, None))
        self.eps = eps

    def __call__(self, x_BxTxC: jax.Array, condition_B: jax.Array | None = None) -> jax.Array:
        chosen = slice(0, 1) if condition_B is None else condition_B
        scale, bias = (p[...][chosen][:, None] for p in (self.scale, self.bias))
        return (standardize(x_BxTxC, self.eps) * scale + bias).astype(x_BxTxC.dtype)


class _Block(nnx.Module):
    """ConvNeXt (Liu et al. 2022) over time."""

    def __init__(self, config: VocosConfig, key: jax.Array):
        width = config.width
        depthwise, up, down = jax.random.split(key, 3)
        self.depthwise = Conv(width, width, 7, depthwise, causal=False, groups=width)
        self.norm = ConditionNorm(config.n_conditions, width, config.norm_eps)
        self.up = Linear(width, config.hidden, up, axes=("embed", "ffn"), bias=True)
        self.down = Linear(config.hidden, width, down, axes=("ffn", "embed"), bias=True)
        self.layer_scale = nnx.Param(jnp.full(width, 1 / config.n_layers), logical_axes=(None,))

    def __call__(self, x_BxTxC: jax.Array, lengths_B: jax.Array | None, condition_B: jax.Array | None) -> jax.Array:
        y = self.norm(self.depthwise(x_BxTxC, lengths_B), condition_B)
        y = self.down(jax.nn.gelu(self.up(y), approximate=False))
        return x_BxTxC + y * self.layer_scale[...].astype(y.dtype)


class GroupNorm(nnx.Module):
    """Mean 0 and variance 1 over the frames and channels of a group, then scale and shift (Wu & He 2018); a layer.

    swish: `y * sigmoid(y)` of that.
    """

    def __init__(self, config: VocosConfig, *, swish: bool = False):
        self.scale = nnx.Param(jnp.ones(config.width), logical_axes=(None,))
        self.bias = nnx.Param(jnp.zeros(config.width), logical_axes=(None,))
        self.groups, self.eps, self.swish = config.groups, config.norm_eps, swish

    def __call__(self, x_BxTxC: jax.Array, lengths_B: jax.Array | None = None) -> jax.Array:
        wide = x_BxTxC.astype(at_least_float32(x_BxTxC.dtype))
        x_BxTxGxD = wide.reshape(*wide.shape[:2], self.groups, -1)
        # A row without frames keeps one, lest it spoil the batch with 0 / 0.
        real = None if lengths_B is None else mask_time(x_BxTxC.shape[1], jnp.maximum(lengths_B, 1), 4)

        def mean(values):
            return values.mean(axis=(1, 3), keepdims=True, where=real)

        centred = x_BxTxGxD - mean(x_BxTxGxD)
        normed = centred * jax.lax.rsqrt(mean(centred * centred) + self.eps)
        y = normed.reshape(wide.shape) * self.scale[...] + self.bias[...]
        return (jax.nn.swish(y) if self.swish else y).astype(x_BxTxC.dtype)

    def length(self, lengths):
        return lengths


class _Attention(nnx.Module):
    """One head over all frames, behind a group norm (WavTokenizer's AttnBlock); a layer."""

    def __init__(self, config: VocosConfig, key: jax.Array):
        def linear(key: jax.Array) -> Linear:
            return Linear(config.width, config.width, key, axes=("embed", None), bias=True)

        self.norm = GroupNorm(config)
        self.query, self.key, self.value, self.output = map(linear, jax.random.split(key, 4))

    def __call__(self, x_BxTxC: jax.Array, lengths_B: jax.Array | None = None) -> jax.Array:
        x = self.norm(x_BxTxC, lengths_B)
        visible_BxT = mask_time(x.shape[1], jnp.full(len(x), x.shape[1]) if lengths_B is None else lengths_B)
        q, k, v = (layer(x)[:, :, None] for layer in (self.query, self.key, self.value))
        return self.output(attend_bidirectional(q, k, v, visible_BxT)[:, :, 0])

    def length(self, lengths):
        return lengths


def _front(config: VocosConfig, key: jax.Array) -> Chain:
    """WavTokenizer's `pos_net`."""
    attention, *keys = jax.random.split(key, 5)

    def unit(key: jax.Array) -> Residual:
        convs = [Conv(config.width, config.width, 3, k, causal=False) for k in jax.random.split(key)]
        return Residual(Chain([part for conv in convs for part in (GroupNorm(config, swish=True), conv)]))

    before, after = [unit(k) for k in keys[:2]], [unit(k) for k in keys[2:]]
    return Chain([*before, Residual(_Attention(config, attention)), *after, GroupNorm(config)])
