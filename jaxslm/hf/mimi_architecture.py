"""Mimi of Hugging Face: tensor names, and what config.json says of its shape (transformers, models/mimi).

transformers renames tensors as it reads them and back as it writes: files have the names of kyutai/mimi on the hub. Its
queries and keys turn by halves; the checkpoints of kyutai's own code, by neighbours, are other files. See
encodec_architecture.py.
"""

import math
import reprlib
from collections.abc import Mapping
from typing import Any

from jaxslm.codec.model import CodecConfig
from jaxslm.codec.seanet import SEANetConfig
from jaxslm.hf import encodec_architecture
from jaxslm.hf.config_file import MAX_SIZE, check_neutral, read_number, read_value
from jaxslm.hf.encodec_architecture import (
    check_fields,
    codebook_size,
    seanet_config,
    seanet_fields,
    seanet_json,
    seanet_name,
)

MODEL = "MimiModel"
WEIGHT_NORM = False
preprocessor_json = encodec_architecture.preprocessor_json
BESIDE = r"quantizer\.(semantic|acoustic)_residual_vector_quantizer\.layers\.\d+\.codebook\.initialized"
CODEBOOK = {"embed_sum": "sums", "cluster_usage": "usage", "initialized": "started"}

_DEFAULTS = {
    "num_filters": 64,
    "last_kernel_size": 3,
    "pad_mode": "constant",
    "use_conv_shortcut": False,
    "upsampling_ratios": (8, 6, 5, 4),
}
_TRANSFORMER = {"num_hidden_layers": "n_layers", "num_attention_heads": "n_heads", "intermediate_size": "d_ff"}
_TRANSFORMER_DEFAULTS = {"num_hidden_layers": 8, "num_attention_heads": 8, "intermediate_size": 2048}
_NEUTRAL = {
    "audio_channels": (1,),
    "hidden_act": ("gelu",),
    "attention_bias": (False,),
    "rope_scaling": (None,),
    "quantization_config": (None,),
    "encoder_config": (),
    "decoder_config": (),
}
_HALVES = tuple(f"quantizer.{half}_residual_vector_quantizer." for half in ("semantic", "acoustic"))
_QUANTIZER = {
    "project_in/weight": "input_proj.weight",
    "project_out/weight": "output_proj.weight",
    "codebooks/usage_QxK": "layers.{}.codebook.cluster_usage",
    "codebooks/sums_QxKxC": "layers.{}.codebook.embed_sum",
    "codebooks/batches_Q": None,
    "codes": "layers.{}.codebook.embed_sum",
}
_BLOCK = {
    "query/weight": "self_attn.q_proj.weight",
    "key/weight": "self_attn.k_proj.weight",
    "value/weight": "self_attn.v_proj.weight",
    "output/weight": "self_attn.o_proj.weight",
    "up/weight": "mlp.fc1.weight",
    "down/weight": "mlp.fc2.weight",
    "attention_norm/scale": "input_layernorm.weight",
    "attention_norm/bias": "input_layernorm.bias",
    "feed_forward_norm/scale": "post_attention_layernorm.weight",
    "feed_forward_norm/bias": "post_attention_layernorm.bias",
    "attention_scale": "self_attn_layer_scale.scale",
    "feed_forward_scale": "mlp_layer_scale.scale",
}


def codec_config(theirs: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Fields of CodecConfig. Raises ValueError naming the file, the field and the cure."""
    check_neutral(theirs, _NEUTRAL, where)
    dim = read_value(theirs, "hidden_size", 512, where)
    rate = read_value(theirs, "sampling_rate", 24_000, where)
    network = seanet_fields(theirs, where, _DEFAULTS)
    network |= dict(transformer=_transformer(theirs, dim, where), downsample=_downsample(theirs, rate, network, where))
    _check_same(theirs, "upsample_groups", 512, "hidden_size", dim, where)
    code_dim = read_value(theirs, "codebook_dim", 256, where)
    _check_same(theirs, "vector_quantization_hidden_dimension", 256, "codebook_dim", code_dim, where)
    projected = code_dim != dim
    quantizer = dict(
        kind="split_rvq",
        n_levels=read_value(theirs, "num_quantizers", 32, where),
        n_semantic=read_value(theirs, "num_semantic_quantizers", 1, where),
        codebook_size=read_value(theirs, "codebook_size", 2048, where),
        codebook_dim=code_dim if projected else 0,
        projection="shared" if projected else "none",
    )
    return dict(sample_rate=rate, dim=dim, encoder=network, decoder=network, quantizer=quantizer)


def _check_same(theirs: Mapping[str, Any], key: str, default: Any, other: str, value: Any, where: str) -> None:
    if theirs.get(key, default) != value:
        found = reprlib.repr(theirs.get(key, default))
        raise ValueError(f"{where}: {key}={found} is not {other}={value}; use a model where they are the same")


def _transformer(theirs: Mapping[str, Any], dim: int, where: str) -> dict[str, Any]:
    ours = {name: read_value(theirs, key, _TRANSFORMER_DEFAULTS[key], where) for key, name in _TRANSFORMER.items()}
    _check_same(theirs, "num_key_value_heads", ours["n_heads"], "num_attention_heads", ours["n_heads"], where)
    if theirs.get("head_dim") is not None:
        head_dim = dim / ours["n_heads"]
        _check_same(theirs, "head_dim", None, "hidden_size / num_attention_heads", head_dim, where)
    rope = theirs.get("rope_parameters")
    rope = rope if isinstance(rope, Mapping) else {}
    check_neutral(rope, {"rope_type": ("default",)}, f"{where}, rope_parameters")
    # Older files have rope_theta beside the other fields.
    return ours | dict(
        window=read_value(theirs, "sliding_window", 250, where),
        rope_theta=read_number({**theirs, **rope}, "rope_theta", 10_000.0, where, 1e9),
        layer_scale=read_number(theirs, "layer_scale_initial_scale", 0.01, where, 1.0),
        norm_eps=read_number(theirs, "norm_eps", 1e-5, where, 1.0),
    )


def _downsample(theirs: Mapping[str, Any], rate: int, network: Mapping[str, Any], where: str) -> int:
    """Stride behind the transformer: frames a second there, over those that the config wants."""
    hop = math.prod(network["ratios"])
    # transformers takes 2 for the stride where no rate is given.
    key = next((key for key in ("frame_rate", "_frame_rate") if theirs.get(key)), None)
    wanted = read_number(theirs, key, 0.0, where, MAX_SIZE) if key else rate / (2 * hop)
    stride = int(math.ceil(rate / hop) / wanted)
    if stride < 2:
        raise ValueError(
            f"{where}: {key}={wanted} leaves frames as long as upsampling_ratios makes them; use a model that "
            "joins at least two"
        )
    return stride


def _n_convs(config: SEANetConfig) -> int:
    """Layers of the encoder before its transformer."""
    return 3 + len(config.ratios) * (config.n_residual + 2)


def theirs(ours: str, config: CodecConfig) -> str | tuple[str, ...] | None:
    """The name of their tensor for the path of a parameter of a Codec; None where it is 1."""
    if ours.startswith("quantizer/"):
        _, _, half, inside = ours.split("/", 3)
        name = _QUANTIZER[inside]
        return None if name is None else _HALVES[int(half)] + name
    network, _, layer, inside = ours.split("/", 3)
    if inside.startswith("layers/"):
        return f"{network}_transformer.layers.{{}}.{_BLOCK[inside.removeprefix('layers/')]}"
    layer, encodes = int(layer), network == "encoder"
    if encodes and layer == _n_convs(config.parts[0]) + 1:
        return f"downsample.conv.{inside}"
    if not encodes and layer == 0:
        return f"upsample.conv.{inside}"
    return seanet_name(network, layer if encodes else layer - 2, inside)


def codebook_prefix(ours: str, config: CodecConfig) -> str:
    """What stands before the keys of CODEBOOK for the codebooks of our name."""
    return f"{_HALVES[int(ours.split('/')[2])]}layers.{{}}.codebook."


def config_json(config: CodecConfig) -> dict[str, Any]:
    """config.json of a codec that computes the same. Raises ValueError naming a field that Mimi does not have."""
    seanet, quantizer = seanet_config(config, "Mimi"), config.parts[2]
    check_fields(
        "Mimi",
        {
            "encoder.lstm": (seanet.lstm, 0),
            "encoder.causal": (seanet.causal, True),  # the other kind fails in `from_pretrained`
            "quantizer.kind": (quantizer.kind, "split_rvq"),
            "quantizer.projection": (quantizer.projection, "none" if quantizer.code_dim == config.dim else "shared"),
            "quantizer.l2": (quantizer.l2, False),
        },
    )
    transformer = seanet.transformer
    if transformer is None or seanet.downsample < 2:
        raise ValueError(
            f"encoder.transformer={transformer}, encoder.downsample={seanet.downsample} cannot be written: Mimi of "
            "transformers has a transformer, and joins at least two frames behind it"
        )
    # transformers cuts the quotient of the two rates to a whole number: a little less makes it enough.
    frame_rate = math.ceil(config.sample_rate / math.prod(seanet.ratios)) / seanet.downsample
    frame_rate *= 1 if frame_rate == round(frame_rate, 6) else 1 - 1e-9
    return seanet_json(seanet) | dict(
        {key: getattr(transformer, name) for key, name in _TRANSFORMER.items()},
        model_type="mimi",
        sampling_rate=config.sample_rate,
        frame_rate=frame_rate,
        hidden_size=config.dim,
        upsample_groups=config.dim,
        num_key_value_heads=transformer.n_heads,
        head_dim=config.dim // transformer.n_heads,
        sliding_window=transformer.window,
        rope_theta=transformer.rope_theta,
        layer_scale_initial_scale=transformer.layer_scale,
        norm_eps=transformer.norm_eps,
        codebook_size=codebook_size(config, "Mimi"),
        codebook_dim=quantizer.code_dim,
        vector_quantization_hidden_dimension=quantizer.code_dim,
        num_quantizers=quantizer.n_levels,
        num_semantic_quantizers=quantizer.n_semantic,
    )
