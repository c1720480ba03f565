"""A `.pt` of fairseq or a pickled model of Hugging Face as a folder that `load_speech_encoder` reads; needs neither.

`python -m jaxslm.hf.convert_speech FILE NEW_FOLDER`. Read by `torch_file`: nothing the file names is run.
"""

import ast
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

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
HEAD = r"(?:w2v_encoder\.)?proj\.(weight|bias)"
# Of pre-training: not part of the encoder.
LEFT_OUT = (
    r"mask_emb|label_embs_concat|(final_proj|target_glu|quantizer|input_quantizer|project_q|project_inp|_ema|"
    r"decoder)\b.*|encoder\.layers\.[1-9]\d*\.self_attn\.relative_attention_bias\..*|_float_tensor"
)
STRIDES = {10: 5, 3: 2, 2: 2}  # of the published convolutions, by kernel
MAX_CONVS = 100
HEAD_DIM = 64  # of the published models


def convert_speech(file: str | Path, folder: str | Path) -> Path:
    """Writes config.json, preprocessor_config.json and model.safetensors into `folder`, which is made.

    The shape is read from the file's own settings (`cfg`, `args`) and, where they are silent, from the tensors. A
    pickled model under Hugging Face names keeps them and the JSON files beside it.

    Raises:
      ValueError: a file that `read_torch_file` refuses, or tensors of another kind of model; the message names them.
    """
    file, folder = Path(file), Path(folder)
    if (folder / "model.safetensors").exists():
        raise ValueError(f"{folder} has a model.safetensors already; name a new folder")
    read = read_torch_file(file)
    state = read.get("model", read) if isinstance(read, dict) else read
    if not isinstance(state, dict) or not all(isinstance(value, np.ndarray) for value in state.values()):
        raise ValueError(f"{file} holds no state dict (names and tensors), nor one under 'model'")
    beside = [file.with_name(name) for name in ("config.json", "preprocessor_config.json", "vocab.json")]
    if any(name.endswith(("feature_projection.projection.weight", "embed_positions.weight")) for name in state):
        if not beside[0].exists():
            raise ValueError(f"{file} has no config.json beside it: copy it there from the model's page")
        documents = {path.name: path.read_text() for path in beside if path.exists()}
    else:
        state = _hugging_face_state(state, file)
        try:
            config, preprocessor = _infer_config(state, _settings(read), file)
        except LookupError as error:
            raise ValueError(
                f"{file} lacks tensors of an encoder ({error}): it is incomplete; copy it again"
            ) from error
        documents = {beside[0].name: json.dumps(config, indent=1), beside[1].name: json.dumps(preprocessor, indent=1)}
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: np.ascontiguousarray(value) for name, value in state.items()}, folder / "model.safetensors")
    for name, text in documents.items():
        (folder / name).write_text(text + "\n")
    return folder


def _hugging_face_state(state: Mapping[str, np.ndarray], file: Path) -> dict[str, np.ndarray]:
    batch_norm = "encoder.pos_conv.0.running_mean"
    found, unknown = {}, []
    for full, value in state.items():
        name = re.sub(r"^(w2v_encoder\.w2v_model\.|w2v_model\.|encoder\.w2v_model\.)", "", full)
        if name.startswith("encoder.pos_conv.0.") and batch_norm in {full.replace(name, batch_norm)} & set(state):
            found["encoder.pos_conv_embed.batch_norm." + name.split(".")[-1]] = value
        elif match := re.fullmatch(HEAD, name):
            found[f"lm_head.{match[1]}"] = value
        elif theirs := _rename(name):
            found[theirs] = value
        elif not re.fullmatch(LEFT_OUT, name):
            unknown.append(full)
    if unknown or "feature_projection.projection.weight" not in found:
        named = ", ".join(unknown[:3]) or ", ".join(list(state)[:3])
        raise ValueError(
            f"{file} has {named}: it is not a wav2vec 2.0, HuBERT, WavLM or data2vec model of fairseq; name such a file"
        )
    return found


def _rename(name: str) -> str | None:
    for pattern, theirs in NAMES:
        if match := re.fullmatch(pattern, name):
            return match.expand(theirs)
    return None


def _settings(read: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of the encoder and of its task, flat; those of the encoder inside a fine-tuned model count first."""
    cfg = read.get("cfg") or read.get("args") or {}
    flat: dict[str, Any] = {}

    def take(part: Any) -> None:
        if isinstance(part, Mapping):
            flat.update({key: value for key, value in part.items() if not isinstance(value, (Mapping, np.ndarray))})
            for key in ("task", "model", "cfg", "w2v_args"):
                take(part.get(key))

    take(cfg)
    return flat


def _infer_config(
    state: Mapping[str, np.ndarray], settings: Mapping[str, Any], file: Path
) -> tuple[dict[str, Any], dict[str, Any]]:
    """(config.json, preprocessor_config.json)."""
    convs = [state[f"feature_extractor.conv_layers.{i}.conv.weight"].shape for i in _count(state, "conv_layers")]
    kernels, layers = [shape[2] for shape in convs], _count(state, "layers")
    layer_norms = "feature_extractor.conv_layers.1.layer_norm.weight" in state
    dim = state["feature_projection.projection.weight"].shape[0]
    table = state.get("encoder.layers.0.attention.rel_attn_embed.weight")
    positions = [name for name in state if re.fullmatch(r"encoder\.pos_conv_embed\.(conv|layers.*)\.weight(_v)?", name)]
    kernel = state[positions[0]]
    heads = table.shape[1] if table is not None else settings.get("encoder_attention_heads", dim // HEAD_DIM)
    config = {
        "model_type": _model_type(state, table, settings, file),
        "hidden_size": dim,
        "num_hidden_layers": len(layers),
        "num_attention_heads": int(heads),
        "intermediate_size": state["encoder.layers.0.feed_forward.intermediate_dense.weight"].shape[0],
        "conv_dim": [shape[0] for shape in convs],
        "conv_kernel": kernels,
        "conv_stride": _strides(kernels, settings, file),
        "conv_bias": "feature_extractor.conv_layers.0.conv.bias" in state,
        "feat_extract_norm": "layer" if layer_norms else "group",
        "do_stable_layer_norm": bool(settings.get("layer_norm_first", layer_norms and len(positions) == 1)),
        "num_conv_pos_embeddings": kernel.shape[2],
        "num_conv_pos_embedding_groups": kernel.shape[0] // kernel.shape[1],
        "hidden_act": str(settings.get("activation_fn", "gelu")),
        "feat_proj_layer_norm": "feature_projection.layer_norm.weight" in state,
    }
    if len(positions) > 1:
        config |= {"num_conv_pos_embeddings": len(positions), "conv_pos_kernel_size": kernel.shape[2]}
    if "encoder.pos_conv_embed.batch_norm.weight" in state:
        config["conv_pos_batch_norm"] = True
    if table is not None:
        config |= {"num_buckets": table.shape[0], "max_bucket_distance": int(settings.get("max_distance", 800))}
    if "lm_head.weight" in state:
        config["vocab_size"] = state["lm_head.weight"].shape[0]
    normalize = bool(settings.get("normalize", layer_norms))
    return config, {"do_normalize": normalize, "feature_size": 1, "sampling_rate": 16_000}


def _count(state: Mapping[str, np.ndarray], name: str) -> range:
    found = {int(match[1]) for key in state if (match := re.search(rf"^\w+\.{name}\.(\d+)\.", key))}
    return range(max(found, default=-1) + 1)


def _model_type(state, table, settings: Mapping[str, Any], file: Path) -> str:
    if table is not None:
        return "wavlm"
    if any(".pos_conv_embed.layers." in name for name in state):
        return "data2vec-audio"
    named = f"{settings.get('_name', '')} {settings.get('arch', '')} {file.name}"
    return "wav2vec2" if "wav2vec" in named else "hubert"  # one computation under two names


def _strides(kernels: list[int], settings: Mapping[str, Any], file: Path) -> list[int]:
    """From `conv_feature_layers`, such as "[(512,10,5)] + [(512,3,2)] * 4", which is computed here without eval."""
    text = settings.get("conv_feature_layers")
    if text is None:
        if unknown := set(kernels) - set(STRIDES):
            raise ValueError(f"{file} says nothing of the strides of its convolutions, whose kernels are {unknown}")
        return [STRIDES[kernel] for kernel in kernels]

    def compute(node: ast.AST) -> Any:
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            return (compute(node.left) + compute(node.right))[:MAX_CONVS]
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
            return compute(node.left) * min(compute(node.right), MAX_CONVS)
        return ast.literal_eval(node)

    try:
        layers = compute(ast.parse(text, mode="eval").body)
        strides = [int(stride) for _, _, stride in layers]
        assert [kernel for _, kernel, _ in layers] == kernels
    except (ValueError, TypeError, SyntaxError, AssertionError) as error:
        raise ValueError(f"{file}: conv_feature_layers={text!r} does not describe its convolutions") from error
    return strides


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit("python -m jaxslm.hf.convert_speech FILE NEW_FOLDER")
    print(convert_speech(*sys.argv[1:]))
