"""Seeded random checkpoints of every family, written by transformers."""

from pathlib import Path

import pytest

from jaxslm.hf.tokenizer_files import write_tokenizer
from jaxslm.tokenizer import ByteTokenizer
from jaxslm.vocabulary import Block, Vocabulary

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
    "llama with biases": ("Llama", dict(attention_bias=True)),
    "mistral": ("Mistral", dict(sliding_window=None)),
    "qwen2": ("Qwen2", dict(num_key_value_heads=4)),
    "qwen2.5": ("Qwen2", dict(tie_word_embeddings=True)),
    "qwen3": ("Qwen3", dict(head_dim=24)),
    "qwen3 with biases": ("Qwen3", dict(head_dim=24, attention_bias=True)),
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


def write_byte_tokenizer(folder: Path) -> int:
    """A tokenizer.json, by our own export of bytes; returns its size."""
    tokenizer = ByteTokenizer()
    text_only = Vocabulary((Block("text", 0, tokenizer.size),), 1, 2, (0, 1, 2), tokenizer.sha256, "")
    write_tokenizer(folder, tokenizer, text_only, source=None)
    return tokenizer.size


def write_qwen2_tokenizer(folder: Path, sentences: tuple[str, ...] = ("the cat sat on the mat",)) -> int:
    """Qwen2's kind of tokenizer, by transformers' own class, with its control tokens; returns its size."""
    transformers = pytest.importorskip("transformers")
    made = transformers.Qwen2Tokenizer().train_new_from_iterator([*sentences] * 20, 400)
    made.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    made.eos_token = "<|im_end|>"
    made.save_pretrained(folder)
    return len(made)
