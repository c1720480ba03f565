"""A `.pt` of fairseq or a pickled model of Hugging Face as a folder that `load_speech_encoder` reads; needs neither.

`python -m jaxslm.hf.convert_speech FILE NEW_FOLDER`. Read by `torch_file`: nothing the file names is run.
"""

import hashlib
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from jaxslm.hf.config_file import read_json
from jaxslm.hf.export import finished_folder
from jaxslm.hf.speech_architectures import SOURCE
from jaxslm.hf.torch_file import read_torch_file

# Names of fairseq and of Microsoft's WavLM, in the order they are tried, and those of Hugging Face.
NAMES = (
    (r"feature_extractor\.conv_layers\.(\d+)\.0\.(.+)", r"feature_extractor.conv_layers.\1.conv.\2"),
    (r"feature_extractor\.conv_layers\.(\d+)\.2(?:\.1)?\.(.+)", r"feature_extractor.conv_layers.\1.layer_norm.\2"),
    (r"post_extract_proj\.(.+)", r"feature_projection.projection.\1"),
    (r"layer_norm\.(.+)", r"feature_projection.layer_norm.\1"),
    (r"encoder\.pos_conv\.(\d+)\.0\.(.+)", r"encoder.pos_conv_embed.layers.\1.conv.\2"),  # data2vec
    (r"encoder\.pos_conv\.\d\.(running_.+|num_batches_tracked)", r"encoder.pos_conv_embed.batch_norm.\1"),
    (r"encoder\.pos_conv\.0\.(.+)", r"encoder.pos_conv_embed.conv.\1"),
    (r"encoder\.pos_conv\.1\.(.+)", r"encoder.pos_conv_embed.conv.\1"),  # behind a batch norm
    (r"encoder\.layers\.0\.self_attn\.relative_attention_bias\.(.+)", r"encoder.layers.0.attention.rel_attn_embed.\1"),
    (r"encoder\.layers\.(\d+)\.self_attn\.grep_a", r"encoder.layers.\1.attention.gru_rel_pos_const"),
    (r"encoder\.layers\.(\d+)\.self_attn\.grep_linear\.(.+)", r"encoder.layers.\1.attention.gru_rel_pos_linear.\2"),
    (r"encoder\.layers\.(\d+)\.self_attn\.((?:q|k|v|out)_proj\..+)", r"encoder.layers.\1.attention.\2"),
    (r"encoder\.layers\.(\d+)\.self_attn_layer_norm\.(.+)", r"encoder.layers.\1.layer_norm.\2"),
    (r"encoder\.layers\.(\d+)\.fc1\.(.+)", r"encoder.layers.\1.feed_forward.intermediate_dense.\2"),
    (r"encoder\.layers\.(\d+)\.fc2\.(.+)", r"encoder.layers.\1.feed_forward.output_dense.\2"),
    (r"(encoder\.layers\.\d+\.final_layer_norm\..+|encoder\.layer_norm\..+)", r"\1"),
)
PREFIXES = r"^(w2v_encoder\.w2v_model\.|w2v_model\.|encoder\.w2v_model\.|encoder\.model\.)"  # the last is Spin's
HEAD = r"(?:w2v_encoder\.)?proj\.(weight|bias)"
# Of pre-training: not part of the encoder.
LEFT_OUT = (
    r"mask_emb|label_embs_concat|(final_proj|layer_proj|target_glu|quantizer|input_quantizer|project_q|project_inp|_ema|"
    r"decoder|pred_head|loss_module|encoder\.cond_layer_norm)\b.*|"
    r"encoder\.layers\.[1-9]\d*\.self_attn\.relative_attention_bias\..*|_float_tensor"
)
# A layer of ContentVec that hears the speaker: on top of the encoder, in pre-training alone.
CONDITIONED = r"encoder\.layers\.(\d+)\.self_attn_layer_norm\.weight_ln\.weight"
# Settings of Spin that make other features of its encoder, with the values that do not (vectominist/spin: src/nn).
SPIN = {"normalize": False, "pre_normalize": False, "feat_select": "x", "disable_pos": False}
CONVS = r"\[((?:\(\d{1,5},\d{1,5},\d{1,5}\),?)+)\](?:\*(\d{1,2}))?"
STRIDES = {10: 5, 3: 2, 2: 2}  # of the published convolutions, by kernel
HEAD_DIM = 64  # of the published models


def convert_speech(file: str | Path, folder: str | Path) -> Path:
    """Writes config.json, preprocessor_config.json and model.safetensors into `folder`, which is made.

    The shape is read from the file's own settings (`cfg`, `args`) and, where they are silent, from the tensors. A
    pickled model under Hugging Face names keeps them and the JSON files beside it. config.json tells the SHA-256 of
    `file` (`source_sha256`). Until all is there the folder is called NAME.incomplete.

    Raises:
      ValueError: a file that `read_torch_file` refuses, or tensors of another kind of model; the message names them.
    """
    file, folder = Path(file), Path(folder)
    read = read_torch_file(file)
    state = _state(read, file)
    beside = [file.with_name(name) for name in ("config.json", "preprocessor_config.json", "vocab.json")]
    if any(name.endswith(("feature_projection.projection.weight", "embed_positions.weight")) for name in state):
        if not beside[0].exists():
            raise ValueError(f"{file} has no config.json beside it: copy it there from the model's page")
        documents = {path.name: read_json(path) for path in beside if path.exists()}
    else:
        state = _hugging_face_state(state, file)
        try:
            config, preprocessor = _infer_config(state, _settings(read, file), file)
        except LookupError as error:
            raise ValueError(
                f"{file} lacks tensors of an encoder ({error}): it is incomplete; copy it again"
            ) from error
        documents = {beside[0].name: config, beside[1].name: preprocessor}
    with open(file, "rb") as source:
        documents[beside[0].name][SOURCE] = hashlib.file_digest(source, "sha256").hexdigest()
    with finished_folder(folder) as unfinished:
        save_file(
            {name: np.ascontiguousarray(value) for name, value in state.items()}, unfinished / "model.safetensors"
        )
        for name, document in documents.items():
            (unfinished / name).write_text(json.dumps(document, indent=1) + "\n")
    return folder


def _state(read: Any, file: Path) -> dict[str, np.ndarray]:
    """The state dict: of fairseq and Microsoft under 'model', of Lightning under 'state_dict', or all of the file."""
    held = [read[key] for key in ("model", "state_dict") if isinstance(read, dict) and key in read]
    state = held[0] if held else read
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(value, np.ndarray) for name, value in state.items()
    ):
        raise ValueError(f"{file} holds no state dict (names and tensors), nor one under 'model' or 'state_dict'")
    return state


def _hugging_face_state(state: Mapping[str, np.ndarray], file: Path) -> dict[str, np.ndarray]:
    batch_norm = "encoder.pos_conv.0.running_mean"
    found, unknown = {}, []
    conditioned = tuple(f"encoder.layers.{match[1]}." for name in state if (match := re.fullmatch(CONDITIONED, name)))
    for full, value in state.items():
        name = re.sub(PREFIXES, "", full)
        if name.startswith("encoder.pos_conv.0.") and full.replace(name, batch_norm) in state:
            theirs = "encoder.pos_conv_embed.batch_norm." + name.split(".")[-1]
        elif name.startswith(conditioned):
            continue
        elif match := re.fullmatch(HEAD, name):
            theirs = f"lm_head.{match[1]}"
        elif not (theirs := _rename(name)):
            unknown += [full[:200]] if not re.fullmatch(LEFT_OUT, name) else []
            continue
        if theirs in found:
            raise ValueError(
                f"{file} has two tensors for {theirs}, one of them {full}: it holds two models; use one of them"
            )
        found[theirs] = value
    if unknown or "feature_projection.projection.weight" not in found:
        named = ", ".join(unknown[:3]) or ", ".join(list(state)[:3])
        raise ValueError(
            f"{file} has {named}: it is not a wav2vec 2.0, HuBERT, WavLM or data2vec model of fairseq, nor of "
            "ContentVec or Spin; name such a file"
        )
    return found


def _rename(name: str) -> str | None:
    for pattern, theirs in NAMES:
        if match := re.fullmatch(pattern, name):
            return match.expand(theirs)
    return None


def _settings(read: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """Settings of the encoder and of its task, flat; those of the encoder inside a fine-tuned model count first."""
    flat: dict[str, Any] = {}
    taken: list[int] = []  # parts may be held in many places

    def take(part: Any) -> None:
        if isinstance(part, Mapping) and id(part) not in taken:
            taken.append(id(part))
            values = {key: value for key, value in part.items() if isinstance(value, (str, int, float))}
            flat.update({key: value for key, value in values.items() if not str(value).startswith("${")})
            for key in ("task", "model", "cfg", "w2v_args"):
                take(part.get(key))

    cfg = read.get("cfg")
    take(cfg if isinstance(cfg, Mapping) and cfg else read.get("args"))
    spin = read.get("hyper_parameters")
    for key in ("model", "encoder"):
        spin = spin.get(key) if isinstance(spin, Mapping) else None
    for key, neutral in SPIN.items():
        if isinstance(spin, Mapping) and spin.get(key, neutral) != neutral:
            raise ValueError(
                f"{file}: encoder.{key} of its hyper_parameters is not {neutral!r}: use a model without it"
            )
    return flat


def _setting(settings: Mapping[str, Any], name: str, default: Any, file: Path) -> Any:
    """Of the type of the default, which a bool is where it is 0 or 1."""
    value = settings.get(name, default)
    if type(value) is not type(default) and not (isinstance(default, bool) and value in (0, 1)):
        kind = type(default).__name__
        raise ValueError(
            f"{file}: {name} of its settings is {str(value)[:80]!r}, no {kind}: the file is damaged; copy it again"
        )
    return type(default)(value)


def _shape(state: Mapping[str, np.ndarray], name: str, axes: int, file: Path) -> tuple[int, ...]:
    shape = state[name].shape
    if len(shape) != axes or 0 in shape:
        raise ValueError(
            f"{file}: {name} has shape {list(shape)}, where {axes} sizes were expected: copy the file again"
        )
    return shape


def _infer_config(
    state: Mapping[str, np.ndarray], settings: Mapping[str, Any], file: Path
) -> tuple[dict[str, Any], dict[str, Any]]:
    """(config.json, preprocessor_config.json)."""
    layers = _count(state, "layers")
    weights = [f"feature_extractor.conv_layers.{i}.conv.weight" for i in range(_count(state, "conv_layers"))]
    convs = [_shape(state, name, 3, file) for name in weights]
    kernels = [shape[2] for shape in convs]
    layer_norms = "feature_extractor.conv_layers.1.layer_norm.weight" in state
    dim = _shape(state, "feature_projection.projection.weight", 2, file)[0]
    table, heads = "encoder.layers.0.attention.rel_attn_embed.weight", max(dim // HEAD_DIM, 1)
    buckets, heads = (
        _shape(state, table, 2, file)
        if table in state
        else (0, _setting(settings, "encoder_attention_heads", heads, file))
    )
    positions = [name for name in state if re.fullmatch(r"encoder\.pos_conv_embed\.(conv|layers.*)\.weight(_v)?", name)]
    kernel = _shape(state, (positions or ["encoder.pos_conv_embed.conv.weight"])[0], 3, file)
    config = {
        "model_type": _model_type(state, settings, file),
        "hidden_size": dim,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": _shape(state, "encoder.layers.0.feed_forward.intermediate_dense.weight", 2, file)[0],
        "conv_dim": [shape[0] for shape in convs],
        "conv_kernel": kernels,
        "conv_stride": _strides(kernels, settings, file),
        "conv_bias": "feature_extractor.conv_layers.0.conv.bias" in state,
        "feat_extract_norm": "layer" if layer_norms else "group",
        "do_stable_layer_norm": _setting(settings, "layer_norm_first", layer_norms and len(positions) == 1, file),
        "num_conv_pos_embeddings": kernel[2],
        "num_conv_pos_embedding_groups": kernel[0] // kernel[1],
        "hidden_act": _setting(settings, "activation_fn", "gelu", file),
        "feat_proj_layer_norm": "feature_projection.layer_norm.weight" in state,
    }
    if len(positions) > 1:
        config |= {"num_conv_pos_embeddings": len(positions), "conv_pos_kernel_size": kernel[2]}
    if "encoder.pos_conv_embed.batch_norm.weight" in state:
        config["conv_pos_batch_norm"] = True
    if buckets:
        config |= {"num_buckets": buckets, "max_bucket_distance": _setting(settings, "max_distance", 800, file)}
    if "lm_head.weight" in state:
        config["vocab_size"] = _shape(state, "lm_head.weight", 2, file)[0]
    normalize = _setting(settings, "normalize", layer_norms, file)
    return config, {"do_normalize": normalize, "feature_size": 1, "sampling_rate": 16_000}


def _count(state: Mapping[str, np.ndarray], name: str) -> int:
    found = {match[1] for key in state if (match := re.match(rf"\w+\.{name}\.(\d+)\.", key))}
    if missing := {str(i) for i in range(len(found))} - found:
        raise LookupError(f"{name}.{min(missing, key=int)}")
    return len(found)


def _model_type(state: Mapping[str, np.ndarray], settings: Mapping[str, Any], file: Path) -> str:
    if "encoder.layers.0.attention.rel_attn_embed.weight" in state:
        return "wavlm"
    if any(".pos_conv_embed.layers." in name for name in state):
        return "data2vec-audio"
    named = f"{settings.get('_name', '')} {settings.get('arch', '')} {file.name}"
    return "wav2vec2" if "wav2vec" in named else "hubert"  # one computation under two names


def _strides(kernels: list[int], settings: Mapping[str, Any], file: Path) -> list[int]:
    """From `conv_feature_layers`, such as "[(512,10,5)] + [(512,3,2)] * 4"."""
    if "conv_feature_layers" not in settings:
        if unknown := set(kernels) - set(STRIDES):
            raise ValueError(
                f"{file} says nothing of the strides of its convolutions, whose kernels are {unknown}: use a file that "
                "has its settings (cfg or args)"
            )
        return [STRIDES[kernel] for kernel in kernels]
    text = re.sub(r"\s", "", str(settings["conv_feature_layers"])[:1000])
    layers = []
    if re.fullmatch(rf"{CONVS}(\+{CONVS})*", text):
        for listed, times in re.findall(CONVS, text):
            layers += re.findall(r"\(\d+,(\d+),(\d+)\)", listed) * int(times or 1)
    if [int(kernel) for kernel, _ in layers] != kernels:
        raise ValueError(
            f"{file}: conv_feature_layers={text[:200]!r} of its settings does not describe its convolutions, whose "
            f"kernels are {kernels}: copy the file again"
        )
    return [int(stride) for _, stride in layers]


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit("python -m jaxslm.hf.convert_speech FILE NEW_FOLDER")
    try:
        print(convert_speech(*sys.argv[1:]))
    except (ValueError, OSError) as error:
        raise SystemExit(f"error: {error}") from error
