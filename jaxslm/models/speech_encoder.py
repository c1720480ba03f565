"""Speech encoders of the wav2vec 2.0 line: wav2vec 2.0, HuBERT, mHuBERT, ContentVec, Spin, WavLM, data2vec.

A `SpeechEncoder` is a pytree of parameters with a pure `__call__` from samples to the features of one layer. Every
padded row equals the row alone. Layers above the tapped one do not exist in it.

Legend: B batch, N samples, T frames, D model, V vocabulary of a CTC head, R distances, H heads.
"""

import contextlib
import dataclasses
import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx

from jaxslm.masking import mask_time
from jaxslm.models.encoder_blocks import BlockConfig, run_blocks, stack_blocks
from jaxslm.models.waveform_frontend import (
    ConvFrontend,
    ConvPositions,
    count_frames,
    distance_buckets,
    normalize_samples,
)
from jaxslm.nn.layers import LayerNorm, Linear
from jaxslm.sharding import Constrain, no_constraint

SAMPLE_RATE = 16_000


@dataclass(frozen=True)
class SpeechEncoderConfig:
    """Shape and execution of an encoder; the defaults are those of the base models.

    layer: whose features come out, as `hidden_states[layer]` of transformers 5 and `output_layer=layer` of fairseq: 0
      is what enters the first transformer layer (positions added, and in post-norm models normed), `layer` what leaves
      the `layer`-th. -1 is `last_hidden_state`: what leaves the last layer and, in pre-norm models, the final norm, as
      hidden_states[n_layers] of transformers 4 did. Layers above are neither made nor run.
    all_layers: the mean over hidden_states[0] to [n_layers] comes out instead, of post-norm models.
    conv_norm: "group" or "layer", see `ConvFrontend`. pos_norm: "none", "batch" or "layer", see `ConvPositions`.
    projection_norm: a norm between the convolutions and their projection to the model's width.
    pre_norm: `do_stable_layer_norm` of transformers, `layer_norm_first` of fairseq.
    position_buckets: of WavLM's table of relative positions, up to max_distance; 0 without a table.
    normalize: samples are brought to mean 0 and variance 1 first.
    adapter_dim: of MMS's language adapters; 0 without.
    vocab_size: of a CTC head on the last layer; 0 without.
    """

    d_model: int = 768
    n_layers: int = 12
    n_heads: int = 12
    d_ff: int = 3072
    layer: int = -1
    all_layers: bool = False
    conv_dims: tuple[int, ...] = (512,) * 7
    conv_kernels: tuple[int, ...] = (10, 3, 3, 3, 3, 2, 2)
    conv_strides: tuple[int, ...] = (5, 2, 2, 2, 2, 2, 2)
    conv_bias: bool = False
    conv_norm: str = "group"
    pos_kernel: int = 128
    pos_groups: int = 16
    pos_convs: int = 1
    pos_norm: str = "none"
    projection_norm: bool = True
    pre_norm: bool = False
    position_buckets: int = 0
    max_distance: int = 800
    adapter_dim: int = 0
    norm_eps: float = 1e-5
    normalize: bool = False
    vocab_size: int = 0
    dtype: str = "float32"  # of the computation: "float32" or "bfloat16"; parameters and features are float32

    def __post_init__(self):
        if not -1 <= self.layer <= self.n_layers:
            raise ValueError(f"layer={self.layer} is not one of the model's: use 0 to {self.n_layers}, or -1")
        if self.all_layers and (self.layer != -1 or self.pre_norm):
            raise ValueError("all_layers=True is the mean over layers of a post-norm model, with layer=-1; use one")
        if self.vocab_size and self.layer != -1:
            raise ValueError(f"layer={self.layer}: the CTC head sits on the last hidden state; use layer=-1")
        if self.d_model % self.n_heads:
            raise ValueError(f"d_model={self.d_model} is not a multiple of n_heads={self.n_heads}")
        for name, known in (
            ("conv_norm", ("group", "layer")),
            ("pos_norm", ("none", "batch", "layer")),
            ("dtype", ("float32", "bfloat16")),
        ):
            if getattr(self, name) not in known:
                raise ValueError(f"{name}='{getattr(self, name)}' is not one of {', '.join(known)}")
        if not len(self.conv_dims) == len(self.conv_kernels) == len(self.conv_strides):
            raise ValueError("conv_dims, conv_kernels and conv_strides have different lengths")

    @property
    def frame_rate(self) -> float:
        """Frames a second."""
        return SAMPLE_RATE / math.prod(self.conv_strides)

    @property
    def window_samples(self) -> int:
        """Samples under one frame."""
        window = 1
        for kernel, stride in zip(self.conv_kernels[::-1], self.conv_strides[::-1], strict=True):
            window = (window - 1) * stride + kernel
        return window

    @property
    def frame_centre(self) -> float:
        """Of frame 0, in seconds."""
        return self.window_samples / 2 / SAMPLE_RATE

    @property
    def row_samples(self) -> tuple[int, float]:
        """The shortest row whose padding costs nothing, and the longest row there may be."""
        return 0, math.inf

    @property
    def n_run(self) -> int:
        """Transformer layers that are run."""
        return self.n_layers if self.layer == -1 else self.layer

    @property
    def has_norm(self) -> bool:
        """Whether the norm outside the layers is used: before them, or in pre-norm models after all of them."""
        return not self.pre_norm or self.layer == -1

    @property
    def block(self) -> BlockConfig:
        same = {f.name: getattr(self, f.name) for f in dataclasses.fields(BlockConfig) if hasattr(self, f.name)}
        return BlockConfig(**same, gated=self.position_buckets > 0)

    def frames(self, lengths):
        """Frames of `lengths` samples (an int or an array)."""
        return count_frames(lengths, self.conv_kernels, self.conv_strides)


class SpeechEncoder(nnx.Module):
    """Samples to features; with a CTC head, `logits` of features."""

    def __init__(self, config: SpeechEncoderConfig, key: jax.Array):
        frontend, projection, positions, table, layers, head = jax.random.split(key, 6)
        dim, width = config.d_model, config.conv_dims[-1]
        self.config = config
        self.frontend = ConvFrontend(
            config.conv_dims,
            config.conv_kernels,
            config.conv_strides,
            norm=config.conv_norm,
            bias=config.conv_bias,
            key=frontend,
        )
        self.projection_norm = LayerNorm(width, eps=config.norm_eps) if config.projection_norm else None
        self.projection = Linear(width, dim, projection, axes=(None, "embed"), bias=True)
        self.positions = ConvPositions(
            dim,
            config.pos_kernel,
            groups=config.pos_groups,
            n_convs=config.pos_convs,
            norm=config.pos_norm,
            key=positions,
        )
        has_table = config.position_buckets and config.n_run
        rows = 0.02 * jax.random.normal(table, (config.position_buckets, config.n_heads))
        self.relative_positions = nnx.Param(rows, logical_axes=(None, None)) if has_table else None
        self.norm = LayerNorm(dim, eps=config.norm_eps) if config.has_norm else None
        self.layers = stack_blocks(config.block, config.n_run, layers)
        axes = ("embed", None)
        self.head = Linear(dim, config.vocab_size, head, axes=axes, bias=True) if config.vocab_size else None

    def __call__(
        self, samples_BxN: jax.Array, lengths_B: jax.Array, constrain: Constrain = no_constraint
    ) -> tuple[jax.Array, jax.Array]:
        """(features [B, T, D] float32 of `config.layer`, frames [B] int32).

        Args:
          samples_BxN: float32, mono, 16 kHz, in [-1, 1]; what lies beyond a row's length is not looked at.
          lengths_B: int32 samples of each row.
        Features beyond a row's frames are 0. Raises ValueError if N is less than one window.
        """
        config = self.config
        if config.frames(samples_BxN.shape[1]) < 1:
            raise ValueError(f"{samples_BxN.shape[1]} samples are less than one window: leave such clips out")
        # Accelerators round the factors of float32 products unless told not to.
        exact = config.dtype == "float32"
        with jax.default_matmul_precision("highest") if exact else contextlib.nullcontext():
            if config.normalize:
                samples_BxN = normalize_samples(samples_BxN, lengths_B)
            x_BxTxE, frames_B = self.frontend(samples_BxN.astype(config.dtype), lengths_B)
            real_BxT = mask_time(x_BxTxE.shape[1], frames_B)
            if self.projection_norm is not None:
                x_BxTxE = self.projection_norm(x_BxTxE)
            x_BxTxD = self.projection(x_BxTxE)
            x_BxTxD = x_BxTxD + self.positions(x_BxTxD, real_BxT)
            if not config.pre_norm:
                x_BxTxD = self.norm(x_BxTxD)
            x_BxTxD = constrain(x_BxTxD, "batch", "length", "activation_embed")
            bias_RxH = self._position_bias(x_BxTxD.shape[1])
            x_BxTxD = run_blocks(self.layers, x_BxTxD, real_BxT, bias_RxH, constrain, mean=config.all_layers)
            if config.pre_norm and config.has_norm:
                x_BxTxD = self.norm(x_BxTxD)
        return jnp.where(real_BxT[..., None], x_BxTxD, 0).astype(jnp.float32), frames_B

    def _position_bias(self, n_frames: int) -> jax.Array | None:
        if self.relative_positions is None:
            return None
        config = self.config
        return self.relative_positions[...][distance_buckets(n_frames, config.position_buckets, config.max_distance)]

    def logits(self, features_BxTxD: jax.Array) -> jax.Array:
        """float32 logits [B, T, V] of the CTC head; their log-softmax are the log-probabilities of a CTC aligner."""
        with jax.default_matmul_precision("highest"):
            return self.head(features_BxTxD)
