"""A tiny seeded Llama in both libraries."""

import functools

import jax
import numpy as np

from jaxslm.benchmarks.llama_weights import load_llama, random_llama_state
from jaxslm.models.decoder import Decoder, DecoderConfig

VOCABULARY = 300  # of 384 with padding
CONFIG = DecoderConfig(vocab_size=384, d_model=32, n_layers=2, n_heads=4, n_kv_heads=2, d_ff=64)


@functools.cache
def weights() -> dict[str, np.ndarray]:
    """Ten times the usual spread, so that different contexts answer differently."""
    state = random_llama_state(CONFIG, seed=0)
    return {name: value * 10 if value.ndim == 2 else value for name, value in state.items()}


@functools.cache
def ours() -> Decoder:
    return load_llama(jax.eval_shape(lambda key: Decoder(CONFIG, key), jax.random.key(0)), weights())


@functools.cache
def theirs():
    import torch
    import transformers

    llama = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=CONFIG.vocab_size,
            hidden_size=CONFIG.d_model,
            intermediate_size=CONFIG.d_ff,
            num_hidden_layers=CONFIG.n_layers,
            num_attention_heads=CONFIG.n_heads,
            num_key_value_heads=CONFIG.n_kv_heads,
            rms_norm_eps=CONFIG.norm_eps,
        )
    ).eval()
    llama.load_state_dict({name: torch.tensor(value) for name, value in weights().items()})
    return llama
