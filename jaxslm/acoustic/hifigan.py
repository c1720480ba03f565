"""HiFi-GAN's generator (Kong et al. 2020, section 2.2; models.py): transposed convolutions, behind each of them
residual blocks of several kernels whose outputs are averaged.

Legend: B rows, T frames, C channels.
"""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx

from jaxslm.codec.activations import leaky
from jaxslm.codec.conv import Conv, ConvTranspose

LAST_SLOPE = 0.01  # before the last convolution: the published code leaves torch's default there


@dataclass(frozen=True)
class GeneratorConfig:
    """V1 at 16 kHz, a frame of 320 samples, as speech-resynthesis has it.

    ratios, kernels: of the transposed convolutions, from frames to samples; each has half the channels of that before
      it, the first half of `channels`.
    block_kernels, dilations: of the residual blocks of a stage, which are averaged.
    edge_kernel: of the first and the last convolution.
    norm: "weight", or "none" (without weight norm).
    """

    ratios: tuple[int, ...] = (5, 4, 4, 2, 2)
    kernels: tuple[int, ...] = (11, 8, 8, 4, 4)
    channels: int = 512
    block_kernels: tuple[int, ...] = (3, 7, 11)
    dilations: tuple[tuple[int, ...], ...] = ((1, 3, 5), (1, 3, 5), (1, 3, 5))
    edge_kernel: int = 7
    norm: str = "weight"

    def __post_init__(self):
        pairs = list(zip(self.ratios, self.kernels, strict=False))
        if len(self.ratios) != len(self.kernels) or not pairs or any(k < r or (k - r) % 2 for r, k in pairs):
            raise ValueError(
                f"generator.ratios={self.ratios}, kernels={self.kernels}: give each ratio a kernel that is longer by "
                "an even number"
            )
        if len(self.block_kernels) != len(self.dilations) or not self.block_kernels or not all(self.dilations):
            raise ValueError(
                f"generator.block_kernels={self.block_kernels}, dilations={self.dilations}: give each kernel its own"
            )
        if not all(k % 2 for k in (*self.block_kernels, self.edge_kernel)):
            raise ValueError(f"generator.block_kernels={self.block_kernels}, edge_kernel={self.edge_kernel}: odd ones")
        if self.channels % 2 ** len(self.ratios):
            raise ValueError(
                f"generator.channels={self.channels} cannot be halved {len(self.ratios)} times: set a multiple of "
                f"{2 ** len(self.ratios)}"
            )

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each stage."""
        return tuple(self.channels // 2 ** (i + 1) for i in range(len(self.ratios)))

    @property
    def reach(self) -> int:
        """Frames before and behind a frame that bear on its samples."""
        blocks = max(
            sum(k // 2 * (d + 1) for d in ds) for k, ds in zip(self.block_kernels, self.dilations, strict=True)
        )
        steps, reach = math.prod(self.ratios), 0.0
        reach += self.edge_kernel // 2 / steps
        for ratio, kernel in zip(reversed(self.ratios), reversed(self.kernels), strict=True):
            reach += blocks / steps
            steps //= ratio
            reach += (kernel + ratio) / (2 * ratio) / steps
        return math.ceil(reach + self.edge_kernel // 2)


class ResidualBlock(nnx.Module):
    """For each dilation: `x + conv(leaky(dilated conv(leaky(x))))`, HiFi-GAN's "ResBlock1"."""

    def __init__(self, width: int, kernel: int, dilations: tuple[int, ...], norm: str, key: jax.Array):
        keys = jax.random.split(key, 2 * len(dilations))
        options = dict(causal=False, norm=norm)
        self.dilated = nnx.List(
            [Conv(width, width, kernel, k, dilation=d, **options) for k, d in zip(keys, dilations, strict=False)]
        )
        self.plain = nnx.List([Conv(width, width, kernel, k, **options) for k in keys[len(dilations) :]])

    def __call__(self, x_BxTxC: jax.Array, lengths_B: jax.Array | None = None) -> jax.Array:
        for dilated, plain in zip(self.dilated, self.plain, strict=True):
            x_BxTxC = x_BxTxC + plain(leaky(dilated(leaky(x_BxTxC), lengths_B)), lengths_B)
        return x_BxTxC


class Generator(nnx.Module):
    """Features [B, T, D] of frames to samples [B, T * hop, 1] in (-1, 1), in their dtype. What comes out beyond a row's
    end means nothing.
    """

    def __init__(self, config: GeneratorConfig, d_in: int, key: jax.Array):
        keys = iter(jax.random.split(key, 2 + len(config.ratios) * (1 + len(config.block_kernels))))
        options = dict(causal=False, norm=config.norm)
        self.first = Conv(d_in, config.channels, config.edge_kernel, next(keys), **options)
        ups, blocks, width = [], [], config.channels
        for ratio, kernel in zip(config.ratios, config.kernels, strict=True):
            ups.append(ConvTranspose(width, width // 2, kernel, ratio, next(keys), **options))
            width //= 2
            for k, dilations in zip(config.block_kernels, config.dilations, strict=True):
                blocks.append(ResidualBlock(width, k, dilations, config.norm, next(keys)))
        self.ups, self.blocks = nnx.List(ups), nnx.List(blocks)
        self.last = Conv(width, 1, config.edge_kernel, next(keys), **options)

    def __call__(self, x_BxTxD: jax.Array, lengths_B: jax.Array | None = None) -> jax.Array:
        x = self.first(x_BxTxD, lengths_B)
        each = len(self.blocks) // len(self.ups)
        for i, up in enumerate(self.ups):
            x = up(leaky(x), lengths_B)
            lengths_B = None if lengths_B is None else up.length(lengths_B)
            x = sum(block(x, lengths_B) for block in self.blocks[i * each : (i + 1) * each]) / each
        return jnp.tanh(self.last(leaky(x, LAST_SLOPE), lengths_B))
