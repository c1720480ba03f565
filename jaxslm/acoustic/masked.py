"""A bidirectional transformer over frames that fills in codec tokens of whole clips at once, given their units
(SoundStorm, Borsos et al. 2023, section 3).

The codes of a frame, one a level, are embedded and summed, those that are not known as a row of their own, and the unit
of the frame is added. A head for each level reads the frames.

Legend: B clips, T frames of the codec, Q levels, K codes of a level, C features of a code, D features of the model.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx

from jaxslm.masking import mask_time
from jaxslm.models.decoder import Block, DecoderConfig
from jaxslm.nn.bidirectional import attend_bidirectional
from jaxslm.nn.layers import Embedding, LayerNorm, Linear, RMSNorm
from jaxslm.nn.remat import rematerialized
from jaxslm.nn.rope import frequencies, rotary_table
from jaxslm.sharding import Constrain, no_constraint

STD = 0.02  # of embeddings


@dataclass(frozen=True)
class MaskedConfig:
    """Shape and execution; the defaults of the network are SoundStorm's.

    n_units: of the inventory. n_levels, codebook_size: Q and K of the codec.
    conv_kernel: frames that a depthwise convolution behind each attention sees, Conformer's module (Gulati et al. 2020,
      section 2.2); 0 for none, a plain transformer.
    """

    n_units: int
    n_levels: int
    codebook_size: int
    d_model: int = 1024
    n_layers: int = 12
    n_heads: int = 16
    d_ff: int = 4096
    conv_kernel: int = 5
    rope_theta: float = 1e4
    norm_eps: float = 1e-5
    dtype: str = "float32"
    remat: str = "none"

    def __post_init__(self):
        for name in ("n_units", "n_levels", "codebook_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"model.{name}={getattr(self, name)}; set it to 1 or more")
        if self.conv_kernel and not self.conv_kernel % 2:
            raise ValueError(f"model.conv_kernel={self.conv_kernel} has no middle: make it odd, or 0 for none")
        self.block  # noqa: B018 -- its own checks

    @property
    def block(self) -> DecoderConfig:
        """Of the attention and feed-forward of a layer."""
        shared = {name: getattr(self, name) for name in ("d_model", "n_layers", "n_heads", "d_ff", "rope_theta")}
        more = dict(norm_eps=self.norm_eps, dtype=self.dtype, remat=self.remat)
        return DecoderConfig(vocab_size=self.codebook_size, n_kv_heads=self.n_heads, **shared, **more)


class MaskedModel(nnx.Module):
    """Frames to hidden states; `logits` of a level from these. The layers are one module with a leading axis."""

    def __init__(self, config: MaskedConfig, key: jax.Array):
        units, codes, layers, heads = jax.random.split(key, 4)
        q, k, d = config.n_levels, config.codebook_size, config.d_model
        self.config = config
        self.units = Embedding(config.n_units, d, units, std=STD)
        # Row K of each level is that of a code that is not known.
        rows_QxKxD = STD * jax.random.normal(codes, (q, k + 1, d))
        self.codes = nnx.Param(rows_QxKxD, logical_axes=(None, "vocab", "embed"))
        self.layers = jax.vmap(lambda key: _Layer(config, key))(jax.random.split(layers, config.n_layers))
        self.norm = RMSNorm(d, eps=config.norm_eps)
        self.heads = nnx.Param(STD * jax.random.normal(heads, (q, d, k)), logical_axes=(None, "embed", "vocab"))

    def __call__(
        self,
        units_BxT: jax.Array,
        codes_BxTxQ: jax.Array,
        known_BxTxQ: jax.Array,
        frames_B: jax.Array,
        constrain: Constrain = no_constraint,
    ) -> jax.Array:
        """Hidden states [B, T, D] after the final norm; frames beyond `frames_B` count for nothing.

        Args:
          units_BxT: int32, one unit a frame of the codec.
          codes_BxTxQ: int32; not looked at where not `known`.
        """
        config = self.config
        n_frames = units_BxT.shape[1]
        real_BxT = mask_time(n_frames, frames_B)
        ids_BxTxQ = jnp.where(known_BxTxQ, codes_BxTxQ, config.codebook_size)
        rows_QxKxD = self.codes[...].astype(config.dtype)
        x_BxTxD = self.units(units_BxT, config.dtype, constrain)
        x_BxTxD += sum(rows_QxKxD[level][ids_BxTxQ[..., level]] for level in range(config.n_levels))
        frequency = frequencies(config.block.head_dim, config.rope_theta)
        rotary = rotary_table(jnp.arange(n_frames)[None], frequency, constrain.platform)

        def layer(x_BxTxD, block):
            x_BxTxD = block(x_BxTxD, real_BxT, rotary, constrain)
            return constrain(x_BxTxD, "batch", "length", "activation_embed"), None

        layer = rematerialized(layer, config.remat)
        x_BxTxD, _ = jax.lax.scan(layer, constrain(x_BxTxD, "batch", "length", "activation_embed"), self.layers)
        return self.norm(x_BxTxD)

    def logits(self, hidden_BxTxD: jax.Array, level_B: jax.Array) -> jax.Array:
        """float32 [B, T, K] of the level of each clip, which may be one number for all."""
        heads_BxDxK = self.heads[...].astype(hidden_BxTxD.dtype)[jnp.broadcast_to(level_B, len(hidden_BxTxD))]
        return jnp.einsum("btd,bdk->btk", hidden_BxTxD, heads_BxDxK, preferred_element_type=jnp.float32)

    def with_codebooks(self, values_QxKxC: jax.Array, key: jax.Array) -> "MaskedModel":
        """The same model whose rows of codes are a random projection of the codec's, each level in the spread of
        embeddings: codes that sound alike begin alike (soundstorm-speechtokenizer starts from codebooks, too). So do
        the heads' columns, which a hidden state then chooses by what the code sounds like.

        Raises ValueError for other numbers of levels or codes.
        """
        config = self.config
        q, k, c = values_QxKxC.shape
        if (q, k) != (config.n_levels, config.codebook_size):
            raise ValueError(
                f"the codec has {q} levels of {k} codes and the model {config.n_levels} of {config.codebook_size}: set "
                "model.n_levels and model.codebook_size to those of the codec"
            )
        projection_CxD = jax.random.normal(key, (c, config.d_model)) / c**0.5
        rows_QxKxD = (values_QxKxC - values_QxKxC.mean(axis=1, keepdims=True)) @ projection_CxD
        spread_Qx1x1 = jnp.maximum(rows_QxKxD.std(axis=(1, 2), keepdims=True), 1e-8)
        new = jax.tree.map(lambda leaf: leaf, self)
        rows_QxKxD = STD * rows_QxKxD / spread_Qx1x1
        new.codes[...] = self.codes[...].at[:, :k].set(rows_QxKxD)
        new.heads[...] = rows_QxKxD.transpose(0, 2, 1)
        return new


class _Layer(nnx.Module):
    """Attention over all frames, a convolution over near ones if `conv_kernel`, feed-forward; each with a residual."""

    def __init__(self, config: MaskedConfig, key: jax.Array):
        block, conv = jax.random.split(key)
        self.block = Block(config.block, block)
        self.conv = _ConvModule(config, conv) if config.conv_kernel else None

    def __call__(self, x_BxTxD: jax.Array, real_BxT: jax.Array, rotary, constrain: Constrain) -> jax.Array:
        q, k, v = self.block.before(x_BxTxD, rotary)
        context = attend_bidirectional(q, k, v, real_BxT)
        x_BxTxD = x_BxTxD + self.block.attention.merge(context)
        if self.conv is not None:
            x_BxTxD = x_BxTxD + self.conv(x_BxTxD, real_BxT)
        return x_BxTxD + self.block.feed_forward(self.block.feed_forward_norm(x_BxTxD), constrain)


class _ConvModule(nnx.Module):
    """Conformer's: a gated projection, a depthwise convolution, norm, swish, a projection. A layer norm stands for its
    batch norm, which would make a clip depend on those beside it.
    """

    def __init__(self, config: MaskedConfig, key: jax.Array):
        inwards, depthwise, outwards = jax.random.split(key, 3)
        d, kernel = config.d_model, config.conv_kernel
        self.norm = RMSNorm(d, eps=config.norm_eps)
        self.inwards = Linear(d, 2 * d, inwards, axes=("embed", "ffn"))
        self.depthwise = nnx.Param(kernel**-0.5 * jax.random.normal(depthwise, (kernel, d)), logical_axes=(None, None))
        self.middle_norm = LayerNorm(d, eps=config.norm_eps)
        self.outwards = Linear(d, d, outwards, axes=("ffn", "embed"))

    def __call__(self, x_BxTxD: jax.Array, real_BxT: jax.Array) -> jax.Array:
        value, gate = jnp.split(self.inwards(self.norm(x_BxTxD)), 2, axis=-1)
        y = jnp.where(real_BxT[..., None], value * jax.nn.sigmoid(gate), 0)
        weights_WxD = self.depthwise[...].astype(y.dtype)
        half, n_frames = len(weights_WxD) // 2, y.shape[1]
        padded = jnp.pad(y, ((0, 0), (half, half), (0, 0)))
        y = sum(padded[:, i : i + n_frames] * weight for i, weight in enumerate(weights_WxD))
        return self.outwards(jax.nn.swish(self.middle_norm(y)))
