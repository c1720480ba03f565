"""Hugging Face architectures that the decoder computes: tensor names and config.json, both read in both directions.

One table a family. Our name is the path of a parameter in the checkpoint ("layers/attention/query/weight"); a name
of theirs has `{}` where the layer's number goes. Their linear weights are [out, in], ours [in, out].
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from jaxslm.models.decoder import DecoderConfig
from jaxslm.nn.rope import RopeScaling

NAMES: Mapping[str, str] = {
    "embedding/weight": "model.embed_tokens.weight",
    "layers/attention_norm/scale": "model.layers.{}.input_layernorm.weight",
    "layers/attention/query/weight": "model.layers.{}.self_attn.q_proj.weight",
    "layers/attention/query/bias": "model.layers.{}.self_attn.q_proj.bias",
    "layers/attention/key/weight": "model.layers.{}.self_attn.k_proj.weight",
    "layers/attention/key/bias": "model.layers.{}.self_attn.k_proj.bias",
    "layers/attention/value/weight": "model.layers.{}.self_attn.v_proj.weight",
    "layers/attention/value/bias": "model.layers.{}.self_attn.v_proj.bias",
    "layers/attention/query_norm/scale": "model.layers.{}.self_attn.q_norm.weight",
    "layers/attention/key_norm/scale": "model.layers.{}.self_attn.k_norm.weight",
    "layers/attention/output/weight": "model.layers.{}.self_attn.o_proj.weight",
    "layers/attention/output/bias": "model.layers.{}.self_attn.o_proj.bias",
    "layers/feed_forward_norm/scale": "model.layers.{}.post_attention_layernorm.weight",
    "layers/feed_forward/gate/weight": "model.layers.{}.mlp.gate_proj.weight",
    "layers/feed_forward/up/weight": "model.layers.{}.mlp.up_proj.weight",
    "layers/feed_forward/down/weight": "model.layers.{}.mlp.down_proj.weight",
    "norm/scale": "model.norm.weight",
    "head/weight": "lm_head.weight",
}
# Names of Meta's and Mistral's own files (params.json, consolidated.safetensors), whose heads interleave rotary pairs.
ORIGINAL_NAMES: Mapping[str, str] = {
    "embedding/weight": "tok_embeddings.weight",
    "layers/attention_norm/scale": "layers.{}.attention_norm.weight",
    "layers/attention/query/weight": "layers.{}.attention.wq.weight",
    "layers/attention/key/weight": "layers.{}.attention.wk.weight",
    "layers/attention/value/weight": "layers.{}.attention.wv.weight",
    "layers/attention/output/weight": "layers.{}.attention.wo.weight",
    "layers/feed_forward_norm/scale": "layers.{}.ffn_norm.weight",
    "layers/feed_forward/gate/weight": "layers.{}.feed_forward.w1.weight",
    "layers/feed_forward/up/weight": "layers.{}.feed_forward.w3.weight",
    "layers/feed_forward/down/weight": "layers.{}.feed_forward.w2.weight",
    "norm/scale": "norm.weight",
    "head/weight": "output.weight",
}
DERIVED = ("rotary_emb.inv_freq", "rope.freqs")  # ends of tensors that some files carry and nobody needs


@dataclass(frozen=True)
class Architecture:
    """A family: how its tensors are called and what its config.json must and may say.

    norm_offset: their norm scales are ours minus this (Gemma multiplies by 1 + weight).
    interleaved: rotary pairs lie side by side in the rows of q and k, not half a head apart.
    attention_bias: that key of its config.json gives q, k, v and o their biases (others have none or fixed ones).
    fixed: what its config.json cannot say because it is always so.
    """

    model_type: str
    class_name: str
    names: Mapping[str, str] = field(default_factory=lambda: NAMES)
    norm_offset: float = 0.0
    interleaved: bool = False
    attention_bias: bool = False
    fixed: Callable[[Mapping[str, Any]], dict[str, Any]] = lambda theirs: {}
    tied_by_default: bool = False

    def parts(self, theirs: Mapping[str, Any]) -> dict[str, Any]:
        """Fields of DecoderConfig that say which parts a model of this family and of such a config.json has."""
        biased = self.attention_bias and bool(theirs.get("attention_bias"))
        plain = {"qkv_bias": biased, "output_bias": biased, "qk_norm": False, "embedding_scale": 1.0}
        return plain | self.fixed(theirs)

    def tensors(self, config: DecoderConfig) -> dict[str, str]:
        """Our names with theirs, of every parameter of `config`."""
        absent = set()
        if not config.qkv_bias:
            absent |= {f"layers/attention/{name}/bias" for name in ("query", "key", "value")}
        if not config.output_bias:
            absent.add("layers/attention/output/bias")
        if not config.qk_norm:
            absent |= {f"layers/attention/{name}_norm/scale" for name in ("query", "key")}
        if config.tied_embeddings:
            absent.add("head/weight")
        return {ours: theirs for ours, theirs in self.names.items() if ours not in absent}


ARCHITECTURES: Mapping[str, Architecture] = {
    a.model_type: a
    for a in (
        Architecture("llama", "LlamaForCausalLM", attention_bias=True),
        Architecture("mistral", "MistralForCausalLM"),
        Architecture("qwen2", "Qwen2ForCausalLM", fixed=lambda theirs: {"qkv_bias": True}),
        Architecture("qwen3", "Qwen3ForCausalLM", attention_bias=True, fixed=lambda theirs: {"qk_norm": True}),
        Architecture(
            "gemma",
            "GemmaForCausalLM",
            norm_offset=1.0,
            attention_bias=True,
            fixed=lambda theirs: {"embedding_scale": math.sqrt(theirs["hidden_size"])},
            tied_by_default=True,
        ),
    )
}
ORIGINAL = Architecture("original", "", names=ORIGINAL_NAMES, interleaved=True)

# Their key: ours. The last is absent from some files and then follows from the others.
SIZES = {
    "hidden_size": "d_model",
    "num_hidden_layers": "n_layers",
    "num_attention_heads": "n_heads",
    "num_key_value_heads": "n_kv_heads",
    "intermediate_size": "d_ff",
    "rms_norm_eps": "norm_eps",
    "head_dim": "head_dim",
}
ACTIVATION_NAMES = {"silu": "silu", "gelu_pytorch_tanh": "gelu_tanh"}
# Keys that change the computation in ways the decoder does not know, with the values that leave it alone.
NEUTRAL = {
    "mlp_bias": (False, None),
    "partial_rotary_factor": (1.0, None),
    "use_bidirectional_attention": (False, None),
    "quantization_config": (None,),
    "attn_logit_softcapping": (None,),
    "final_logit_softcapping": (None,),
    "no_rope_layers": (None,),
}


def read_config(theirs: Mapping[str, Any], where: str) -> tuple[Architecture, dict[str, Any]]:
    """(architecture, fields of DecoderConfig that give the same function, without vocab_size) of a config.json.

    Reads the keys of transformers 4 and 5. Raises ValueError naming what the decoder cannot compute.
    """
    architecture = ARCHITECTURES.get(str(theirs.get("model_type")))
    if architecture is None:
        raise ValueError(
            f"{where}: model_type {theirs.get('model_type')!r} is not one of {', '.join(ARCHITECTURES)} (Llama 2, 3, "
            "SmolLM2, Mistral, Qwen2, Qwen2.5, Qwen3, Gemma 1); start from a model of these families"
        )
    for key, neutral in NEUTRAL.items():
        if key in theirs and theirs[key] not in neutral:
            raise ValueError(f"{where}: {key}={theirs[key]!r} is not supported; start from a model without it")
    missing = [key for key in list(SIZES)[:3] + ["intermediate_size"] if key not in theirs]
    if missing:
        raise ValueError(f"{where}: {', '.join(missing)} is missing; copy config.json from the model's page again")
    ours = {name: theirs[key] for key, name in SIZES.items() if theirs.get(key) is not None}
    for key, name in SIZES.items():
        kind, what = (float, "a positive number") if key == "rms_norm_eps" else (int, "a positive whole number")
        value = ours.get(name, 1)
        if isinstance(value, bool) or not isinstance(value, (int, kind)) or value <= 0:
            raise ValueError(f"{where}: {key}={value!r} is not {what}; copy config.json from the model's page again")
    ours.setdefault("n_kv_heads", ours["n_heads"])
    ours.setdefault("norm_eps", 1e-6)
    ours.setdefault("head_dim", ours["d_model"] // ours["n_heads"])
    activation = theirs.get("hidden_activation") or theirs.get("hidden_act") or "silu"
    if architecture.model_type == "gemma":
        activation = "gelu_pytorch_tanh"  # whatever its first files said
    if activation not in ACTIVATION_NAMES:
        raise ValueError(f"{where}: hidden_act={activation!r} is not one of {', '.join(ACTIVATION_NAMES)}")
    ours["activation"] = ACTIVATION_NAMES[activation]
    tied = theirs.get("tie_word_embeddings")
    ours["tied_embeddings"] = architecture.tied_by_default if tied is None else tied
    return architecture, ours | architecture.parts(theirs) | _read_rope(theirs, where)


def _read_rope(theirs: Mapping[str, Any], where: str) -> dict[str, Any]:
    """rope_theta and rope_scaling; transformers 5 has both in `rope_parameters`, 4 side by side."""
    scaling, parameters = (theirs.get(key) or {} for key in ("rope_scaling", "rope_parameters"))
    for key, value in (("rope_scaling", scaling), ("rope_parameters", parameters)):
        if not isinstance(value, Mapping) or any(isinstance(v, Mapping) for v in value.values()):
            raise ValueError(f"{where}: {key}={value} is not supported: it is no single set of rotary parameters")
    if different := sorted(key for key in scaling.keys() & parameters.keys() if scaling[key] != parameters[key]):
        raise ValueError(f"{where}: rope_scaling and rope_parameters disagree in {different[0]}; keep the right one")
    rope = dict(scaling) | dict(parameters)
    theta = float(rope.get("rope_theta") or theirs.get("rope_theta") or 1e4)
    kind = rope.get("rope_type") or rope.get("type") or "default"
    names = [f.name for f in dataclasses.fields(RopeScaling)]
    if kind == "default":
        return {"rope_theta": theta, "rope_scaling": None}
    if kind != "llama3" or not set(names) <= set(rope):
        raise ValueError(f"{where}: rotary scaling {rope} is not supported; known are 'default' and 'llama3'")
    return {"rope_theta": theta, "rope_scaling": {name: rope[name] for name in names}}


def read_original_config(theirs: Mapping[str, Any], where: str) -> tuple[Architecture, dict[str, Any]]:
    """As `read_config`, for a params.json beside consolidated.safetensors (Meta's Llama, Mistral's own files)."""
    if missing := {"dim", "n_layers", "n_heads"} - set(theirs):
        raise ValueError(f"{where}: {', '.join(sorted(missing))} is missing; copy params.json again")
    if unknown := [key for key in ("yarn", "moe", "quantization", "lora", "vision_encoder") if theirs.get(key)]:
        raise ValueError(f"{where}: {unknown[0]} is not supported; start from a model without it")
    n_heads, dim = theirs["n_heads"], theirs["dim"]
    hidden = theirs.get("hidden_dim")
    if hidden is None:  # Meta's rule: two thirds of 4 d, times a factor, rounded up
        multiple = theirs.get("multiple_of", 256)
        hidden = int((theirs.get("ffn_dim_multiplier") or 1) * int(8 * dim / 3))
        hidden = -(-hidden // multiple) * multiple
    scaled = theirs.get("use_scaled_rope", False)
    if scaled and "rope_scaling_factor" not in theirs and n_heads * theirs["n_layers"] < 1024:
        factor = 32.0  # Llama 3.2 1B and 3B, whose params.json does not say
    else:
        factor = float(theirs.get("rope_scaling_factor", 8.0))
    scaling = RopeScaling(factor, 1.0, 4.0, 8192)
    return ORIGINAL, dict(
        d_model=dim,
        n_layers=theirs["n_layers"],
        n_heads=n_heads,
        n_kv_heads=theirs.get("n_kv_heads") or n_heads,
        head_dim=theirs.get("head_dim") or dim // n_heads,
        d_ff=hidden,
        norm_eps=theirs.get("norm_eps", 1e-5),
        rope_theta=float(theirs.get("rope_theta") or 1e4),
        rope_scaling=dataclasses.asdict(scaling) if scaled else None,
        activation="silu",
        **ORIGINAL.parts({}),
    )


def architecture_of(config: DecoderConfig) -> Architecture:
    """The family whose stock class computes what `config` does. Raises ValueError if none does."""
    for architecture in ARCHITECTURES.values():
        parts = architecture.parts({"hidden_size": config.d_model, "attention_bias": config.output_bias})
        if all(getattr(config, name) == value for name, value in parts.items()):
            if (config.activation == "gelu_tanh") == (architecture.model_type == "gemma"):
                return architecture
    raise ValueError(
        "no architecture of transformers combines model.qkv_bias, output_bias, qk_norm, activation and embedding_scale "
        "in this way: Qwen2 has qkv_bias, Qwen3 qk_norm, Gemma gelu_tanh and embeddings times sqrt(d_model), Llama "
        "none of them; all but Qwen2 can have qkv_bias and output_bias together"
    )


def write_config(architecture: Architecture, config: DecoderConfig, base: Mapping[str, Any]) -> dict[str, Any]:
    """The model's part of config.json, in the keys that transformers 4 and 5 both read.

    `base` is the config.json the training started from ({} if none): keys that do not speak of what is written here
    stay. transformers 5 folds rope_theta, rope_scaling and torch_dtype into its own names; 4 knows only these.
    """
    stale = ("rope_parameters", "dtype", "transformers_version", "_name_or_path", "layer_types", "auto_map")
    stale += ("use_sliding_window", "sliding_window", "max_window_layers")  # any cache of transformers heeds them
    rope = None if config.rope_scaling is None else {"rope_type": "llama3"} | dataclasses.asdict(config.rope_scaling)
    theirs = {name: value for name, value in base.items() if name not in stale}
    theirs |= {key: getattr(config, name) for key, name in SIZES.items()}
    theirs |= {
        "architectures": [architecture.class_name],
        "model_type": architecture.model_type,
        "hidden_act": next(key for key, name in ACTIVATION_NAMES.items() if name == config.activation),
        "tie_word_embeddings": config.tied_embeddings,
        "initializer_range": config.initializer_range,
        "rope_theta": config.rope_theta,
        "rope_scaling": rope,
        "use_cache": True,
        "transformers_version": "5.0.0",  # without it the tokenizer is taken for a faulty one of Mistral
    }
    if architecture.attention_bias:
        theirs |= {"attention_bias": config.output_bias}
    if architecture.model_type == "llama":
        theirs |= {"mlp_bias": False}
    if architecture.model_type == "gemma":
        theirs |= {"hidden_activation": theirs["hidden_act"]}
    if architecture.model_type == "mistral":
        theirs |= {"sliding_window": base.get("sliding_window")}
    if architecture.model_type in ("qwen2", "qwen3"):
        theirs |= {"use_sliding_window": False, "sliding_window": None}
    return theirs


def sliding_window(theirs: Mapping[str, Any]) -> int | None:
    """How many tokens back the model looks, None if all. The decoder looks at all: only shorter contexts are alike."""
    on = theirs.get("use_sliding_window", theirs.get("model_type") == "mistral")
    return theirs.get("sliding_window") if on else None
