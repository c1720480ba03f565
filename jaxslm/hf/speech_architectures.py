"""Speech encoders of Hugging Face: tensor names and what config.json says of their shape.

Our name is the path of a parameter in the encoder; a name of theirs has `{}` where a number goes. Weights of linear
layers are turned, [out, in] to [in, out], and those of convolutions, [out, in, tap] to [tap, in, out].
"""

import math
import re
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jaxslm.hf.config_file import MAX_CONVS, check_neutral, read_value
from jaxslm.models.whisper_encoder import MAX_FRAMES


def _affine(ours: str, theirs: str, weight: str = "weight") -> dict[str, str]:
    return {f"{ours}/{weight}": f"{theirs}.weight", f"{ours}/bias": f"{theirs}.bias"}


def _norm(ours: str, theirs: str) -> dict[str, str]:
    return _affine(ours, theirs, "scale")


WAV2VEC2_NAMES: Mapping[str, str] = {
    **_affine("frontend/convs/{}", "feature_extractor.conv_layers.{}.conv"),
    **_norm("frontend/time_norm", "feature_extractor.conv_layers.0.layer_norm"),
    **_norm("frontend/norms/{}", "feature_extractor.conv_layers.{}.layer_norm"),
    **_norm("projection_norm", "feature_projection.layer_norm"),
    **_affine("projection", "feature_projection.projection"),
    **_affine("positions/convs/0", "encoder.pos_conv_embed.conv"),
    "positions/scale": "encoder.pos_conv_embed.batch_norm.weight",
    "positions/shift": "encoder.pos_conv_embed.batch_norm.bias",
    "relative_positions": "encoder.layers.0.attention.rel_attn_embed.weight",
    **_norm("norm", "encoder.layer_norm"),
    **_affine("layers/attention/query", "encoder.layers.{}.attention.q_proj"),
    **_affine("layers/attention/key", "encoder.layers.{}.attention.k_proj"),
    **_affine("layers/attention/value", "encoder.layers.{}.attention.v_proj"),
    **_affine("layers/attention/output", "encoder.layers.{}.attention.out_proj"),
    **_affine("layers/attention/gate", "encoder.layers.{}.attention.gru_rel_pos_linear"),
    "layers/attention/gate_scale": "encoder.layers.{}.attention.gru_rel_pos_const",
    **_norm("layers/attention_norm", "encoder.layers.{}.layer_norm"),
    **_affine("layers/feed_forward/up", "encoder.layers.{}.feed_forward.intermediate_dense"),
    **_affine("layers/feed_forward/down", "encoder.layers.{}.feed_forward.output_dense"),
    **_norm("layers/feed_forward_norm", "encoder.layers.{}.final_layer_norm"),
    **_norm("layers/adapter/norm", "encoder.layers.{}.adapter_layer.norm"),
    **_affine("layers/adapter/down", "encoder.layers.{}.adapter_layer.linear_1"),
    **_affine("layers/adapter/up", "encoder.layers.{}.adapter_layer.linear_2"),
    **_affine("head", "lm_head"),
}
DATA2VEC_NAMES = WAV2VEC2_NAMES | _affine("positions/convs/{}", "encoder.pos_conv_embed.layers.{}.conv")
DATA2VEC_NAMES = {o: t for o, t in DATA2VEC_NAMES.items() if not o.startswith("positions/convs/0")}
WHISPER_NAMES: Mapping[str, str] = {
    **_affine("conv1", "conv1"),
    **_affine("conv2", "conv2"),
    "positions": "embed_positions.weight",
    **_affine("layers/attention/query", "layers.{}.self_attn.q_proj"),
    "layers/attention/key/weight": "layers.{}.self_attn.k_proj.weight",
    **_affine("layers/attention/value", "layers.{}.self_attn.v_proj"),
    **_affine("layers/attention/output", "layers.{}.self_attn.out_proj"),
    **_norm("layers/attention_norm", "layers.{}.self_attn_layer_norm"),
    **_affine("layers/feed_forward/up", "layers.{}.fc1"),
    **_affine("layers/feed_forward/down", "layers.{}.fc2"),
    **_norm("layers/feed_forward_norm", "layers.{}.final_layer_norm"),
    **_norm("norm", "layer_norm"),
}
# What models carry beside the encoder: pre-training heads, a mask vector, classifiers, Whisper's decoder.
BESIDE = (
    r"masked_spec_embed|(quantizer|project_q|project_hid|final_proj|lm_head|projector|classifier)\..*|"
    r"label_embs_concat|layer_weights|(model\.)?decoder\..*|proj_out\.weight"
)

SOURCE = "source_sha256"  # in config.json: of the file that the folder was converted from
MAX_HOP = 16_000  # samples a frame


@dataclass(frozen=True)
class SpeechArchitecture:
    """A family: what may stand before the names of its tensors, and the names."""

    model_type: str
    prefixes: tuple[str, ...]
    names: Mapping[str, str]

    def theirs(self, ours: str) -> str:
        """The name of theirs for a parameter of the encoder, without prefix; `{}` for the layer's number."""
        numbered = re.sub(r"/\d+/", "/{}/", ours)
        name = self.names[numbered if numbered in self.names else ours]
        number = re.search(r"/(\d+)/", ours)
        return name.format(number[1]) if number and "{}" in name else name


SPEECH_ARCHITECTURES: Mapping[str, SpeechArchitecture] = {
    a.model_type: a
    for a in (
        SpeechArchitecture("wav2vec2", ("wav2vec2.", ""), WAV2VEC2_NAMES),
        SpeechArchitecture("hubert", ("hubert.", ""), WAV2VEC2_NAMES),
        SpeechArchitecture("wavlm", ("wavlm.", ""), WAV2VEC2_NAMES),
        SpeechArchitecture("data2vec-audio", ("data2vec_audio.", ""), DATA2VEC_NAMES),
        SpeechArchitecture("whisper", ("model.encoder.", "encoder.", ""), WHISPER_NAMES),
    )
}

# Their key: ours, and the value that transformers leaves out of config.json.
_SIZES = {
    "hidden_size": ("d_model", 768),
    "num_hidden_layers": ("n_layers", 12),
    "num_attention_heads": ("n_heads", 12),
    "intermediate_size": ("d_ff", 3072),
    "conv_dim": ("conv_dims", (512,) * 7),
    "conv_kernel": ("conv_kernels", (10, 3, 3, 3, 3, 2, 2)),
    "conv_stride": ("conv_strides", (5, 2, 2, 2, 2, 2, 2)),
    "conv_bias": ("conv_bias", False),
    "feat_extract_norm": ("conv_norm", "group"),
    "num_conv_pos_embedding_groups": ("pos_groups", 16),
    "do_stable_layer_norm": ("pre_norm", False),
    "layer_norm_eps": ("norm_eps", 1e-5),
    "feat_proj_layer_norm": ("projection_norm", True),
    "adapter_attn_dim": ("adapter_dim", None),
}
_WHISPER_SIZES = {
    "d_model": "d_model",
    "encoder_layers": "n_layers",
    "encoder_attention_heads": "n_heads",
    "encoder_ffn_dim": "d_ff",
    "num_mel_bins": "n_mels",
}
# Keys that change the computation in ways the encoders do not know, with the values that leave it alone.
_NEUTRAL = {
    "hidden_act": ("gelu",),
    "feat_extract_activation": ("gelu",),
    "activation_function": ("gelu",),
    "add_adapter": (False, None),
    "quantization_config": (None,),
}


def speech_architecture(theirs: Mapping[str, Any], where: str) -> SpeechArchitecture:
    """Raises ValueError naming the field for any other model."""
    kind = theirs.get("model_type")
    architecture = SPEECH_ARCHITECTURES.get(kind) if isinstance(kind, str) else None
    if architecture is None:
        raise ValueError(
            f"{where}: model_type {reprlib.repr(kind)} is not one of {', '.join(SPEECH_ARCHITECTURES)}; name the "
            "folder of a speech encoder of these families (ContentVec and Spin are of type hubert)"
        )
    check_neutral(theirs, _NEUTRAL, where)
    return architecture


def read_speech_config(theirs: Mapping[str, Any], preprocessor: Mapping[str, Any] | None, where: str) -> dict[str, Any]:
    """Fields of SpeechEncoderConfig or WhisperEncoderConfig that give the same function, of the last layer.

    preprocessor: preprocessor_config.json, None without one. Raises ValueError naming the file, the field and the cure.
    """
    architecture = speech_architecture(theirs, where)
    if preprocessor is not None and preprocessor.get("sampling_rate", 16_000) != 16_000:
        rate = reprlib.repr(preprocessor["sampling_rate"])
        raise ValueError(
            f"{where}: sampling_rate={rate} in preprocessor_config.json beside it; use a model for 16,000 Hz"
        )
    if architecture.model_type == "whisper":
        return _read_whisper(theirs, where)
    ours = {name: read_value(theirs, key, default, where) for key, (name, default) in _SIZES.items()}
    ours |= {name: tuple(ours[name]) for name in ("conv_dims", "conv_kernels", "conv_strides")}
    if math.prod(ours["conv_strides"]) > MAX_HOP:
        raise ValueError(f"{where}: conv_stride makes frames of more than {MAX_HOP} samples; copy the file again")
    if ours["d_model"] % ours["pos_groups"]:
        raise ValueError(
            f"{where}: num_conv_pos_embedding_groups={ours['pos_groups']} does not divide hidden_size; copy the file "
            "from the model's page again"
        )
    ours["adapter_dim"] = (ours["adapter_dim"] or 0) if ours["pre_norm"] else 0
    if architecture.model_type == "data2vec-audio":
        ours |= dict(pos_norm="layer", pos_kernel=read_value(theirs, "conv_pos_kernel_size", 19, where), pre_norm=False)
        ours |= dict(pos_convs=read_value(theirs, "num_conv_pos_embeddings", 5, where), conv_norm="layer")
        if ours["pos_convs"] > MAX_CONVS:
            raise ValueError(f"{where}: num_conv_pos_embeddings={ours['pos_convs']} is more than {MAX_CONVS}")
    else:
        ours["pos_kernel"] = read_value(theirs, "num_conv_pos_embeddings", 128, where)
        ours["pos_norm"] = "batch" if read_value(theirs, "conv_pos_batch_norm", False, where) else "none"
    if architecture.model_type == "wavlm":
        buckets, distance = (
            read_value(theirs, *of, where) for of in (("num_buckets", 320), ("max_bucket_distance", 800))
        )
        if buckets < 4 or distance <= buckets // 4:
            raise ValueError(
                f"{where}: max_bucket_distance={distance} is within the {buckets // 4} that num_buckets counts"
            )
        ours |= dict(position_buckets=buckets, max_distance=distance)
    return ours | {"normalize": _normalizes(preprocessor, ours["conv_norm"], where)}


def _normalizes(preprocessor: Mapping[str, Any] | None, conv_norm: str, where: str) -> bool:
    if preprocessor is not None:
        return read_value(preprocessor, "do_normalize", True, f"{where}, preprocessor_config.json beside it")
    if conv_norm == "layer":
        raise ValueError(
            f"{where}: there is no preprocessor_config.json beside it, which says whether samples are normalised "
            "(do_normalize); copy it from the model's page"
        )
    return False  # the norm over time behind the first convolution undoes level and offset


def _read_whisper(theirs: Mapping[str, Any], where: str) -> dict[str, Any]:
    if missing := [key for key in _WHISPER_SIZES if key not in theirs]:
        raise ValueError(f"{where}: {', '.join(missing)} is missing; copy config.json from the model's page again")
    if read_value(theirs, "max_source_positions", MAX_FRAMES, where) != MAX_FRAMES:
        raise ValueError(f"{where}: max_source_positions={theirs['max_source_positions']} is not {MAX_FRAMES}")
    return {name: read_value(theirs, key, 1, where) for key, name in _WHISPER_SIZES.items()}
