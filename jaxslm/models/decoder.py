"""The Llama family of decoder-only transformers: Llama 2/3, Mistral, Qwen2 (qkv bias), Qwen3 (q/k norm), Gemma 1 (gelu,
scaled embeddings).

A `Decoder` is a pytree of parameters with a pure `__call__`. Its layers are one `Block` whose parameters carry a
leading layer axis; `lax.scan` runs it, so compile time does not grow with depth.

Legend: B batch, T time (queries), S cache length (keys), D model, H query heads, K key/value heads, C head dimension,
F feed-forward, V vocabulary (padded), L layers.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx

from jaxslm.nn.attention import IMPLEMENTATIONS, attend
from jaxslm.nn.layers import Embedding, Linear, Product, RMSNorm, at_least_float32, plain_product
from jaxslm.nn.quantized import QUANTIZATIONS, product_of
from jaxslm.nn.remat import check_choice, named, rematerialized
from jaxslm.nn.rope import RopeScaling, frequencies, rotary_table, rotate
from jaxslm.sharding import Constrain, no_constraint

ACTIVATIONS: Mapping[str, Callable] = {
    "silu": jax.nn.silu,
    "gelu_tanh": functools.partial(jax.nn.gelu, approximate=True),
}


@dataclass(frozen=True)
class DecoderConfig:
    """Shape and execution of a decoder. `vocab_size` counts padding ids too; parameters are always float32."""

    vocab_size: int
    d_model: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    d_ff: int
    head_dim: int = 0  # 0: d_model // n_heads
    rope_theta: float = 1e4  # 0 is 1e4, too
    rope_scaling: RopeScaling | Mapping | None = None  # Llama-3 fields, see RopeScaling
    norm_eps: float = 1e-5
    qkv_bias: bool = False
    output_bias: bool = False  # of the projection behind the attention
    qk_norm: bool = False
    tied_embeddings: bool = False
    activation: str = "silu"  # of the gated feed-forward, see ACTIVATIONS
    embedding_scale: float = 1.0  # Gemma: sqrt(d_model)
    initializer_range: float = 0.02
    dtype: str = "float32"  # of the computation: float32 | bfloat16 | float64 (to compare with; under jax.enable_x64)
    quantization: str = ""  # of the layers' projections while training, see nn/quantized.py
    attention: str = "auto"
    remat: str = "none"  # what the backward pass keeps, see nn/remat.py
    scan_unroll: int = 1

    def __post_init__(self):
        if not self.head_dim:
            object.__setattr__(self, "head_dim", self.d_model // self.n_heads)
        if not self.rope_theta:
            object.__setattr__(self, "rope_theta", 1e4)
        if self.rope_scaling is not None and not isinstance(self.rope_scaling, RopeScaling):
            needed = [field.name for field in dataclasses.fields(RopeScaling)]
            if set(self.rope_scaling) != set(needed):
                raise ValueError(f"model.rope_scaling needs {', '.join(needed)}; got {', '.join(self.rope_scaling)}.")
            object.__setattr__(self, "rope_scaling", RopeScaling(**self.rope_scaling))
        if self.n_heads % self.n_kv_heads:
            raise ValueError(f"model.n_heads={self.n_heads} is not a multiple of model.n_kv_heads={self.n_kv_heads}.")
        if self.head_dim % 2:
            raise ValueError(f"model.head_dim={self.head_dim} must be even for rotary positions.")
        for name, known in (
            ("attention", IMPLEMENTATIONS),
            ("activation", ACTIVATIONS),
            ("quantization", QUANTIZATIONS),
            ("dtype", ("float32", "bfloat16", *(["float64"] if jax.config.jax_enable_x64 else []))),
        ):
            if getattr(self, name) not in known:
                raise ValueError(f"model.{name}='{getattr(self, name)}' is not one of {', '.join(known)}.")
        check_choice(self.remat)


class Attention(nnx.Module):
    """The projections around `attend`: in to queries, keys and values, and out again."""

    def __init__(self, config: DecoderConfig, key: jax.Array):
        q, k, v, o = jax.random.split(key, 4)
        heads, kv_heads = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
        bias, std = config.qkv_bias, config.initializer_range
        self.query = Linear(config.d_model, heads, q, axes=("embed", "heads"), bias=bias, std=std)
        self.key = Linear(config.d_model, kv_heads, k, axes=("embed", "kv_heads"), bias=bias, std=std)
        self.value = Linear(config.d_model, kv_heads, v, axes=("embed", "kv_heads"), bias=bias, std=std)
        self.output = Linear(heads, config.d_model, o, axes=("heads", "embed"), bias=config.output_bias, std=std)
        self.query_norm = RMSNorm(config.head_dim, eps=config.norm_eps) if config.qk_norm else None
        self.key_norm = RMSNorm(config.head_dim, eps=config.norm_eps) if config.qk_norm else None
        self.head_dim = config.head_dim

    @jax.named_scope("attention")
    def project(
        self, x_BxTxD: jax.Array, rotary, product: Product = plain_product
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Rotated queries [B, T, H, C] and keys [B, T, K, C], and values [B, T, K, C]."""
        per_head = (*x_BxTxD.shape[:2], -1, self.head_dim)
        with jax.named_scope("projections"):
            q, k, v = (layer(x_BxTxD, product).reshape(per_head) for layer in (self.query, self.key, self.value))
        if self.query_norm is not None:
            q, k = self.query_norm(q), self.key_norm(k)
        return named(rotate(q, rotary), "query"), named(rotate(k, rotary), "key"), named(v, "value")

    @jax.named_scope("attention/projections")
    def merge(self, context_BxTxHxC: jax.Array, product: Product = plain_product) -> jax.Array:
        return self.output(context_BxTxHxC.reshape(*context_BxTxHxC.shape[:2], -1), product)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _gated(activation: str, gate: jax.Array, up: jax.Array) -> jax.Array:
    """activation(gate) * up, materialised forward and backward: TPU compilers would else make it again, tile by tile,
    inside each of the matrix products that read it (of a 7B step on a v5e, 15 % of the cycles)."""
    return _gated_forward(activation, gate, up)[0]


def _gated_forward(activation, gate, up):
    return jax.lax.optimization_barrier(ACTIVATIONS[activation](gate) * up), (gate, up)


def _gated_backward(activation, saved, d_hidden):
    _, gradient = jax.vjp(lambda gate, up: ACTIVATIONS[activation](gate) * up, *saved)
    return jax.lax.optimization_barrier(gradient(d_hidden))


_gated.defvjp(_gated_forward, _gated_backward)


class FeedForward(nnx.Module):
    """Gated feed-forward: SwiGLU or GeGLU (Shazeer 2020)."""

    def __init__(self, config: DecoderConfig, key: jax.Array):
        gate, up, down = jax.random.split(key, 3)
        std = config.initializer_range
        self.gate = Linear(config.d_model, config.d_ff, gate, axes=("embed", "ffn"), std=std)
        self.up = Linear(config.d_model, config.d_ff, up, axes=("embed", "ffn"), std=std)
        self.down = Linear(config.d_ff, config.d_model, down, axes=("ffn", "embed"), std=std)
        self.activation = config.activation

    @jax.named_scope("feed_forward")
    def __call__(self, x_BxTxD: jax.Array, constrain: Constrain, product: Product = plain_product) -> jax.Array:
        gate_BxTxF, up_BxTxF = named(self.gate(x_BxTxD, product), "gate"), named(self.up(x_BxTxD, product), "up")
        hidden_BxTxF = _gated(self.activation, gate_BxTxF, up_BxTxF)
        return self.down(constrain(hidden_BxTxF, "batch", "length", "ffn"), product)


class Block(nnx.Module):
    """One pre-norm layer, cut in two where keys and values leave for the cache."""

    def __init__(self, config: DecoderConfig, key: jax.Array):
        attention, feed_forward = jax.random.split(key)
        self.attention_norm = RMSNorm(config.d_model, eps=config.norm_eps)
        self.attention = Attention(config, attention)
        self.feed_forward_norm = RMSNorm(config.d_model, eps=config.norm_eps)
        self.feed_forward = FeedForward(config, feed_forward)

    def before(
        self, x_BxTxD: jax.Array, rotary, product: Product = plain_product
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        return self.attention.project(self.attention_norm(x_BxTxD), rotary, product)

    def after(
        self, x_BxTxD: jax.Array, context_BxTxHxC: jax.Array, constrain: Constrain, product: Product = plain_product
    ) -> jax.Array:
        x_BxTxD = named(x_BxTxD + self.attention.merge(constrain.row_major(context_BxTxHxC), product), "attended")
        x_BxTxD = constrain.row_major(x_BxTxD)
        return x_BxTxD + self.feed_forward(self.feed_forward_norm(x_BxTxD), constrain, product)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class KVCache:
    """Keys and values of the positions seen so far. Column `index` is the next to be written; segment 0 is empty."""

    k_LxBxSxKxC: jax.Array
    v_LxBxSxKxC: jax.Array
    segment_ids_BxS: jax.Array
    positions_BxS: jax.Array
    index: jax.Array

    def enter(self, segment_ids_BxT: jax.Array, positions_BxT: jax.Array) -> "KVCache":
        """The cache with T new columns announced; each layer then writes its keys and values into them."""
        return dataclasses.replace(
            self,
            segment_ids_BxS=jax.lax.dynamic_update_slice(self.segment_ids_BxS, segment_ids_BxT, (0, self.index)),
            positions_BxS=jax.lax.dynamic_update_slice(self.positions_BxS, positions_BxT, (0, self.index)),
        )

    def write(self, layer: jax.Array, k_BxTxKxC: jax.Array, v_BxTxKxC: jax.Array) -> "KVCache":
        start = (layer, 0, self.index, 0, 0)
        return dataclasses.replace(
            self,
            k_LxBxSxKxC=jax.lax.dynamic_update_slice(self.k_LxBxSxKxC, k_BxTxKxC[None], start),
            v_LxBxSxKxC=jax.lax.dynamic_update_slice(self.v_LxBxSxKxC, v_BxTxKxC[None], start),
        )

    def read(self, layer: jax.Array) -> tuple[jax.Array, jax.Array]:
        return self.k_LxBxSxKxC[layer], self.v_LxBxSxKxC[layer]

    def advance(self, n_columns: int) -> "KVCache":
        return dataclasses.replace(self, index=self.index + n_columns)


def init_cache(config: DecoderConfig, batch: int, length: int) -> KVCache:
    """An empty cache for `length` positions of `batch` rows. Writing past `length` is the caller's error, unchecked."""
    shape = (config.n_layers, batch, length, config.n_kv_heads, config.head_dim)
    ints = jnp.zeros((batch, length), jnp.int32)
    return KVCache(jnp.zeros(shape, config.dtype), jnp.zeros(shape, config.dtype), ints, ints, jnp.zeros((), jnp.int32))


class Decoder(nnx.Module):
    """Token ids to hidden states; `logits` or `chunked_cross_entropy(hidden, unembedding())` finish the job.

    Initialise large models inside jit: `jax.jit(Decoder, static_argnums=0, out_shardings=...)(config, key)`.
    """

    def __init__(self, config: DecoderConfig, key: jax.Array):
        embedding, layers, unembedding = jax.random.split(key, 3)
        self.config = config
        self.embedding = Embedding(config.vocab_size, config.d_model, embedding, std=config.initializer_range)
        self.layers = jax.vmap(lambda k: Block(config, k))(jax.random.split(layers, config.n_layers))
        self.norm = RMSNorm(config.d_model, eps=config.norm_eps)
        shape, std = (config.d_model, config.vocab_size), config.initializer_range
        self.head = None if config.tied_embeddings else Linear(*shape, unembedding, axes=("embed", "vocab"), std=std)

    def __call__(
        self,
        tokens_BxT: jax.Array,
        *,
        positions_BxT: jax.Array,
        segment_ids_BxT: jax.Array,
        cache: KVCache | None = None,
        constrain: Constrain = no_constraint,
        training: bool = False,
    ):
        """Hidden states [B, T, D] after the final norm; with a cache, (hidden, cache with these T columns added).

        Tokens see their own segment up to their own position, in the row and in the cache; segment 0 is padding.
        Positions restart at 0 in every segment. All ids are int32. While `training`, the projections of the layers are
        multiplied as `config.quantization` says; what is evaluated, generates or is exported are the float weights.
        """
        config = self.config
        product = product_of(config.quantization if training else "")
        frequency = frequencies(config.head_dim, config.rope_theta, config.rope_scaling)
        rotary = rotary_table(positions_BxT, frequency, constrain.platform)
        seen_segments, seen_positions = segment_ids_BxT, positions_BxT
        if cache is not None:
            cache = cache.enter(segment_ids_BxT, positions_BxT)
            seen_segments, seen_positions = cache.segment_ids_BxS, cache.positions_BxS

        def layer(carry, inputs):
            x_BxTxD, cache = carry
            block, index = inputs
            q, k, v = block.before(x_BxTxD, rotary, product)
            q = constrain(q, "batch", "length", "heads", None)
            if cache is not None:  # carried, not stacked by the scan: the update is in place
                cache = cache.write(index, k, v)
                k, v = cache.read(index)
            context = attend(
                q,
                k,
                v,
                q_segment_ids=segment_ids_BxT,
                kv_segment_ids=seen_segments,
                q_positions=positions_BxT,
                kv_positions=seen_positions,
                impl=config.attention,
                constrain=constrain,
            )
            x_BxTxD = block.after(x_BxTxD, context, constrain, product)
            x_BxTxD = constrain.row_major(constrain(x_BxTxD, "batch", "length", "activation_embed"))
            return (x_BxTxD, cache), None

        layer = rematerialized(layer, config.remat)
        x_BxTxD = self.embed(tokens_BxT, constrain)
        x_BxTxD = constrain(x_BxTxD, "batch", "length", "activation_embed")
        indexed_layers = (self.layers, jnp.arange(config.n_layers))
        (x_BxTxD, cache), _ = jax.lax.scan(layer, (x_BxTxD, cache), indexed_layers, unroll=config.scan_unroll)
        hidden_BxTxD = self.norm(x_BxTxD)
        return hidden_BxTxD if cache is None else (hidden_BxTxD, cache.advance(tokens_BxT.shape[1]))

    @jax.named_scope("embedding")
    def embed(self, tokens_BxT: jax.Array, constrain: Constrain = no_constraint) -> jax.Array:
        """[B, T, D] in the dtype of the computation."""
        x_BxTxD = self.embedding(tokens_BxT, self.config.dtype, constrain)
        return x_BxTxD if self.config.embedding_scale == 1 else x_BxTxD * self.config.embedding_scale

    def unembedding(self) -> jax.Array:
        """[D, V] float32; the transposed embedding when tied."""
        return self.embedding.weight[...].T if self.head is None else self.head.weight[...]

    @jax.named_scope("logits")
    def logits(self, hidden: jax.Array) -> jax.Array:
        """Logits [..., V], float32 at least, of hidden states [..., D]. Padding ids are not masked here."""
        wide = at_least_float32(hidden.dtype)
        return jnp.dot(hidden, self.unembedding().astype(hidden.dtype), preferred_element_type=wide)


def parameter_count(config: DecoderConfig) -> int:
    shapes = jax.eval_shape(lambda key: Decoder(config, key), jax.random.key(0))
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))


def flops_per_token(config: DecoderConfig, context: int) -> float:
    """Training FLOPs a token, forward and backward: 6 a multiplied weight, and causal attention over `context` tokens.

    The embedding look-up multiplies nothing (tied weights still do, as the unembedding); recomputation is not counted.
    """
    lookup = 0 if config.tied_embeddings else config.vocab_size * config.d_model
    attention = config.n_layers * config.n_heads * config.head_dim * context
    return 6.0 * (parameter_count(config) - lookup) + 6.0 * attention
