"""The encoder of Whisper (Radford et al. 2022): log-mel spectrogram, two convolutions, pre-norm transformer.

Legend: B batch, N samples, T frames of 20 ms, F frames of 10 ms, M mel bands, D model.
"""

import contextlib
import dataclasses
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxslm.audio import SAMPLE_RATE
from jaxslm.audio.log_mel import HOP, WINDOW_SAMPLES, log_mel
from jaxslm.masking import mask_time
from jaxslm.models.encoder_blocks import BlockConfig, gelu, run_blocks, stack_blocks
from jaxslm.nn.convolution import Conv1d
from jaxslm.nn.layers import LayerNorm
from jaxslm.sharding import Constrain, no_constraint

FRAME_SAMPLES = 2 * HOP
MAX_FRAMES = WINDOW_SAMPLES // FRAME_SAMPLES


@dataclass(frozen=True)
class WhisperEncoderConfig:
    """Shape and execution of the encoder; the defaults are those of tiny.

    layer: whose features come out, as `hidden_states[layer]` of transformers: 0 is what enters the first transformer
      layer, `layer` what leaves the `layer`-th, n_layers (or -1) what leaves the last and the final norm.
    crop: the encoder hears the clip alone, not the clip and silence up to 30 s. Published features are of the 30 s;
      cropped ones differ from them (the silence is attended to) and cost what the clip is long.
    """

    d_model: int = 384
    n_layers: int = 4
    n_heads: int = 6
    d_ff: int = 1536
    n_mels: int = 80
    layer: int = -1
    crop: bool = False
    dtype: str = "float32"  # of the computation: "float32" or "bfloat16"; parameters and features are float32

    def __post_init__(self):
        if self.layer == -1:
            object.__setattr__(self, "layer", self.n_layers)
        if not 0 <= self.layer <= self.n_layers:
            raise ValueError(f"layer={self.layer} is not one of the model's: use 0 to {self.n_layers}")
        if self.dtype not in ("float32", "bfloat16"):
            raise ValueError(f"dtype='{self.dtype}' is not one of float32, bfloat16")

    @property
    def frame_rate(self) -> float:
        """Frames a second."""
        return SAMPLE_RATE / FRAME_SAMPLES

    @property
    def window_samples(self) -> int:
        """Samples of one frame; the last may be incomplete."""
        return 1

    @property
    def frame_centre(self) -> float:
        """Of frame 0, in seconds: windows of the spectrogram and of both convolutions lie around their frames."""
        return 0.0

    @property
    def row_samples(self) -> tuple[int, float]:
        """The shortest row whose padding costs nothing, and the longest row there may be."""
        return 0 if self.crop else WINDOW_SAMPLES, WINDOW_SAMPLES

    @property
    def has_final_norm(self) -> bool:
        return self.layer == self.n_layers

    @property
    def block(self) -> BlockConfig:
        same = {f.name: getattr(self, f.name) for f in dataclasses.fields(BlockConfig) if hasattr(self, f.name)}
        return BlockConfig(**same, pre_norm=True, key_bias=False)

    def frames(self, lengths):
        """Frames that `lengths` samples (an int or an array) reach into."""
        return -(-lengths // FRAME_SAMPLES)


class WhisperEncoder(nnx.Module):
    """Samples to features."""

    def __init__(self, config: WhisperEncoderConfig, key: jax.Array):
        conv1, conv2, layers = jax.random.split(key, 3)
        dim = config.d_model
        self.config = config
        self.conv1 = Conv1d(config.n_mels, dim, 3, conv1, padding=(1, 1), bias=True)
        self.conv2 = Conv1d(dim, dim, 3, conv2, stride=2, padding=(1, 1), bias=True)
        self.positions = nnx.Param(_sinusoids(dim), logical_axes=(None, "embed"))
        self.layers = stack_blocks(config.block, config.layer, layers)
        self.norm = LayerNorm(dim) if config.has_final_norm else None

    def __call__(
        self, samples_BxN: jax.Array, lengths_B: jax.Array, constrain: Constrain = no_constraint
    ) -> tuple[jax.Array, jax.Array]:
        """(features [B, T, D] float32 of `config.layer`, frames [B] int32 that hold sound).

        T is 1,500, or with `crop` as many frames as N samples reach into. Features beyond a row's frames are 0.

        Args:
          samples_BxN: float32, mono, 16 kHz, in [-1, 1]; what lies beyond a row's length is not looked at.
          lengths_B: int32 samples of each row.
        Raises:
          ValueError: N is more than 30 s.
        """
        config = self.config
        n_samples = samples_BxN.shape[1]
        if n_samples > WINDOW_SAMPLES:
            raise ValueError(f"{n_samples} samples are more than the {WINDOW_SAMPLES} (30 s) Whisper hears: split them")
        samples_BxN = jnp.where(mask_time(n_samples, lengths_B), samples_BxN, 0.0)
        frames_B = config.frames(lengths_B)
        if config.crop:
            n_frames, heard_B = config.frames(n_samples), frames_B
        else:
            n_frames, heard_B = MAX_FRAMES, jnp.full_like(frames_B, MAX_FRAMES)
        exact = config.dtype == "float32"
        with jax.default_matmul_precision("highest") if exact else contextlib.nullcontext():
            # Two frames beyond the end still have sound in their windows and count when the clip is scaled.
            mels_BxFxM = log_mel(samples_BxN, config.n_mels, min(2 * n_frames + 2, 2 * MAX_FRAMES))[:, : 2 * n_frames]
            heard_BxF = mask_time(2 * n_frames, 2 * heard_B)[..., None]
            x = jnp.where(heard_BxF, mels_BxFxM.astype(config.dtype), 0)
            x = jnp.where(heard_BxF, gelu(self.conv1(x)), 0)
            x_BxTxD = gelu(self.conv2(x)) + self.positions[...][:n_frames].astype(config.dtype)
            x_BxTxD = constrain(x_BxTxD, "batch", "length", "activation_embed")
            x_BxTxD = run_blocks(self.layers, x_BxTxD, mask_time(n_frames, heard_B), constrain=constrain)
            if self.norm is not None:
                x_BxTxD = self.norm(x_BxTxD)
        with_sound = mask_time(n_frames, frames_B)[..., None]
        return jnp.where(with_sound, x_BxTxD, 0).astype(jnp.float32), frames_B


def _sinusoids(dim: int) -> np.ndarray:
    """[MAX_FRAMES, D]: sines, then cosines, of wavelengths from 2 pi to 20,000 pi frames."""
    rates = np.exp(-np.log(10_000.0) * np.arange(dim // 2) / (dim // 2 - 1))
    angles = np.arange(MAX_FRAMES)[:, None] * rates
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1).astype(np.float32)
