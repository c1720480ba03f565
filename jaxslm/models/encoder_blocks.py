"""Transformer layers of the speech encoders, run by `lax.scan` over parameters with a leading layer axis.

Legend: B batch, T frames, D model, H heads, C head dimension, F feed-forward, A adapter, R distances, L layers.
"""

import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx

from jaxslm.nn.bidirectional import attend_bidirectional
from jaxslm.nn.layers import LayerNorm, Linear
from jaxslm.sharding import Constrain, no_constraint

gelu = functools.partial(jax.nn.gelu, approximate=False)
GATE_TERMS = 4  # WavLM's two gates are each a sum of this many outputs of their projection


@dataclass(frozen=True)
class BlockConfig:
    """Shape of one layer.

    pre_norm: norms come before attention and feed-forward (Whisper, wav2vec 2.0 and HuBERT large), not after their
      sums. key_bias: Whisper's keys have none. gated: WavLM's gate on the position bias. adapter_dim: width of the
      bottleneck that MMS adds to each layer; 0 without.
    """

    d_model: int
    n_heads: int
    d_ff: int
    pre_norm: bool
    norm_eps: float = 1e-5
    key_bias: bool = True
    gated: bool = False
    adapter_dim: int = 0


class Attention(nnx.Module):
    """Projections around `attend_bidirectional`, with WavLM's gate if `gated`."""

    def __init__(self, config: BlockConfig, key: jax.Array):
        q, k, v, o, g = jax.random.split(key, 5)
        square, inwards = (config.d_model, config.d_model), ("embed", "heads")
        self.query = Linear(*square, q, axes=inwards, bias=True)
        self.key = Linear(*square, k, axes=inwards, bias=config.key_bias)
        self.value = Linear(*square, v, axes=inwards, bias=True)
        self.output = Linear(*square, o, axes=("heads", "embed"), bias=True)
        self.head_dim = config.d_model // config.n_heads
        gate = Linear(self.head_dim, 2 * GATE_TERMS, g, axes=(None, None), bias=True)
        self.gate = gate if config.gated else None
        self.gate_scale = nnx.Param(jnp.ones(config.n_heads), logical_axes=(None,)) if config.gated else None

    def __call__(self, x_BxTxD: jax.Array, visible_BxT: jax.Array, bias_RxH: jax.Array | None) -> jax.Array:
        per_head = (*x_BxTxD.shape[:2], -1, self.head_dim)
        q, k, v = (layer(x_BxTxD).reshape(per_head) for layer in (self.query, self.key, self.value))
        gate_BxTxH = None if self.gate is None else self._gate(x_BxTxD.reshape(per_head))
        context = attend_bidirectional(q, k, v, visible_BxT, bias_RxH, gate_BxTxH)
        return self.output(context.reshape(x_BxTxD.shape))

    def _gate(self, x_BxTxHxC: jax.Array) -> jax.Array:
        gates = self.gate(x_BxTxHxC.astype(jnp.float32))
        gates = jax.nn.sigmoid(gates.reshape(*gates.shape[:-1], 2, GATE_TERMS).sum(-1))
        return gates[..., 0] * (gates[..., 1] * self.gate_scale[...] - 1.0) + 2.0


class FeedForward(nnx.Module):
    def __init__(self, config: BlockConfig, key: jax.Array):
        up, down = jax.random.split(key)
        self.up = Linear(config.d_model, config.d_ff, up, axes=("embed", "ffn"), bias=True)
        self.down = Linear(config.d_ff, config.d_model, down, axes=("ffn", "embed"), bias=True)

    def __call__(self, x_BxTxD: jax.Array) -> jax.Array:
        return self.down(gelu(self.up(x_BxTxD)))


class LanguageAdapter(nnx.Module):
    """The bottleneck whose weights MMS exchanges for each language (Pratap et al. 2023, section 4.2)."""

    def __init__(self, config: BlockConfig, key: jax.Array):
        down, up = jax.random.split(key)
        self.norm = LayerNorm(config.d_model)
        self.down = Linear(config.d_model, config.adapter_dim, down, axes=("embed", None), bias=True)
        self.up = Linear(config.adapter_dim, config.d_model, up, axes=(None, "embed"), bias=True)

    def __call__(self, x_BxTxD: jax.Array) -> jax.Array:
        return self.up(jax.nn.relu(self.down(self.norm(x_BxTxD))))


class EncoderBlock(nnx.Module):
    """One layer: attention and feed-forward, each with a residual and a norm."""

    def __init__(self, config: BlockConfig, key: jax.Array):
        attention, feed_forward, adapter = jax.random.split(key, 3)
        self.attention = Attention(config, attention)
        self.attention_norm = LayerNorm(config.d_model, eps=config.norm_eps)
        self.feed_forward = FeedForward(config, feed_forward)
        self.feed_forward_norm = LayerNorm(config.d_model, eps=config.norm_eps)
        self.adapter = LanguageAdapter(config, adapter) if config.adapter_dim else None
        self.pre_norm = config.pre_norm

    def __call__(self, x_BxTxD: jax.Array, visible_BxT: jax.Array, bias_RxH: jax.Array | None) -> jax.Array:
        if self.pre_norm:
            x_BxTxD = x_BxTxD + self.attention(self.attention_norm(x_BxTxD), visible_BxT, bias_RxH)
            x_BxTxD = x_BxTxD + self.feed_forward(self.feed_forward_norm(x_BxTxD))
        else:
            x_BxTxD = self.attention_norm(x_BxTxD + self.attention(x_BxTxD, visible_BxT, bias_RxH))
            x_BxTxD = self.feed_forward_norm(x_BxTxD + self.feed_forward(x_BxTxD))
        return x_BxTxD if self.adapter is None else x_BxTxD + self.adapter(x_BxTxD)


def stack_blocks(config: BlockConfig, n_layers: int, key: jax.Array) -> EncoderBlock | None:
    """`n_layers` blocks as one with a leading layer axis; None for no layers."""
    if not n_layers:
        return None
    return jax.vmap(lambda k: EncoderBlock(config, k))(jax.random.split(key, n_layers))


def run_blocks(
    blocks_L: EncoderBlock | None,
    x_BxTxD: jax.Array,
    visible_BxT: jax.Array,
    bias_RxH: jax.Array | None = None,
    constrain: Constrain = no_constraint,
    *,
    mean: bool = False,
) -> jax.Array:
    """`x` after all layers of `blocks_L`, or the mean of x itself and of what each layer makes."""

    def layer(carry, block):
        x, total = carry
        x = constrain(block(x, visible_BxT, bias_RxH), "batch", "length", "activation_embed")
        return (x, total + x if mean else None), None

    if blocks_L is None:
        return x_BxTxD
    (x, total), _ = jax.lax.scan(layer, (x_BxTxD, x_BxTxD if mean else None), blocks_L)
    return total / (1 + len(jax.tree.leaves(blocks_L)[0])) if mean else x
