"""The peer of benchmarks of the decoder: a `transformers` Llama of the shape that flags name."""

import argparse


def torch_llama(flags: argparse.Namespace, vocab_size: int, **others):
    """On the GPU if there is one, in torch's default dtype, random. others: of `LlamaConfig`."""
    import torch
    import transformers

    config = transformers.LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=flags.d_model,
        intermediate_size=flags.d_ff,
        num_hidden_layers=flags.n_layers,
        num_attention_heads=flags.n_heads,
        num_key_value_heads=flags.n_kv_heads,
        max_position_embeddings=4096,
        **others,
    )
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        return transformers.LlamaForCausalLM(config).eval()
