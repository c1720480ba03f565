"""Weights of a `transformers` Llama/Qwen checkpoint in a `Decoder`, for comparing the two on equal terms."""

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxslm.models.decoder import Decoder, DecoderConfig

LAYER_NAMES = {  # below `layers` here: below `model.layers.N` there
    "attention_norm.scale": "input_layernorm.weight",
    "attention.query.weight": "self_attn.q_proj.weight",
    "attention.key.weight": "self_attn.k_proj.weight",
    "attention.value.weight": "self_attn.v_proj.weight",
    "attention.query.bias": "self_attn.q_proj.bias",
    "attention.key.bias": "self_attn.k_proj.bias",
    "attention.value.bias": "self_attn.v_proj.bias",
    "attention.query_norm.scale": "self_attn.q_norm.weight",
    "attention.key_norm.scale": "self_attn.k_norm.weight",
    "attention.output.weight": "self_attn.o_proj.weight",
    "feed_forward_norm.scale": "post_attention_layernorm.weight",
    "feed_forward.gate.weight": "mlp.gate_proj.weight",
    "feed_forward.up.weight": "mlp.up_proj.weight",
    "feed_forward.down.weight": "mlp.down_proj.weight",
}
TOP_NAMES = {
    "embedding.weight": "model.embed_tokens.weight",
    "norm.scale": "model.norm.weight",
    "head.weight": "lm_head.weight",
}


def load_llama(model: Decoder, state: Mapping[str, np.ndarray]) -> Decoder:
    """`model` (or its `jax.eval_shape`) with the weights of a `LlamaForCausalLM` state dict of the same shape.

    Torch stores linear weights [out, in]; here they are [in, out], and layers are stacked.
    """
    graph, params = nnx.split(model)

    def weight(name: str) -> np.ndarray:
        value = np.asarray(state[name], np.float32)
        return value.T if value.ndim == 2 and "embed_tokens" not in name else value

    def replace(path, param):
        name = ".".join(path)
        if name in TOP_NAMES:
            value = weight(TOP_NAMES[name])
        else:
            layer_name = LAYER_NAMES[name.removeprefix("layers.")]
            value = np.stack([weight(f"model.layers.{i}.{layer_name}") for i in range(model.config.n_layers)])
        assert value.shape == param.get_value().shape, (name, value.shape)
        return param.replace(jnp.asarray(value))

    return nnx.merge(graph, nnx.map_state(replace, params))


def random_llama_state(config: DecoderConfig, seed: int) -> dict[str, np.ndarray]:
    """A seeded random state dict in the names of `transformers`, made without it."""
    rng = np.random.default_rng(seed)
    head, kv_head = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
    layer_shapes = {
        "self_attn.q_proj": (head, config.d_model),
        "self_attn.k_proj": (kv_head, config.d_model),
        "self_attn.v_proj": (kv_head, config.d_model),
        "self_attn.o_proj": (config.d_model, head),
        "mlp.gate_proj": (config.d_ff, config.d_model),
        "mlp.up_proj": (config.d_ff, config.d_model),
        "mlp.down_proj": (config.d_model, config.d_ff),
    }
    shapes = {"model.embed_tokens.weight": (config.vocab_size, config.d_model)}
    shapes |= {"lm_head.weight": (config.vocab_size, config.d_model)}
    for i in range(config.n_layers):
        shapes |= {f"model.layers.{i}.{name}.weight": shape for name, shape in layer_shapes.items()}
    state = {name: (0.02 * rng.standard_normal(shape, np.float32)) for name, shape in shapes.items()}
    norms = ["model.norm.weight"]
    norms += [
        f"model.layers.{i}.{n}_layernorm.weight" for i in range(config.n_layers) for n in ("input", "post_attention")
    ]
    return state | {name: np.ones(config.d_model, np.float32) for name in norms}
