"""Seeded random checkpoints of every family, written by transformers."""

from pathlib import Path

import pytest

COMMON = dict(
    vocab_size=300,
    hidden_size=64,
    intermediate_size=96,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=16,
    max_position_embeddings=512,
    bos_token_id=1,
    eos_token_id=2,
    pad_token_id=0,
)
LLAMA3 = dict(
    rope_type="llama3",
    rope_theta=5e5,
    factor=8.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_position_embeddings=64,
)
FAMILIES = {
    "llama2": ("Llama", dict(rms_norm_eps=1e-5)),
    "llama3.2": ("Llama", dict(tie_word_embeddings=True, rope_parameters=LLAMA3)),
    "smollm2": ("Llama", dict(tie_word_embeddings=True, rope_parameters=dict(rope_type="default", rope_theta=1e5))),
    "mistral": ("Mistral", dict(sliding_window=None)),
    "qwen2": ("Qwen2", dict(num_key_value_heads=4)),
    "qwen2.5": ("Qwen2", dict(tie_word_embeddings=True)),
    "qwen3": ("Qwen3", dict(head_dim=24)),
    "gemma": ("Gemma", dict(head_dim=32)),
}


def random_model(family: str):
    """A model of transformers with weights far from their initial ones: norms and biases too."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    torch.manual_seed(0)
    name, extra = FAMILIES[family]
    config = getattr(transformers, f"{name}Config")(**COMMON | extra)
    model = getattr(transformers, f"{name}ForCausalLM")(config).eval()
    with torch.no_grad():
        for parameter, values in model.named_parameters():
            values.copy_(torch.randn_like(values) * 0.1 + (1.0 if "norm" in parameter and name != "Gemma" else 0.0))
    return model


def write_random(family: str, folder: Path, **save):
    """(model, folder): saved in safetensors."""
    model = random_model(family)
    model.save_pretrained(folder, **save)
    return model
