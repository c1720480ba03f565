"""Shapes that benchmarks of language models know by name, each with a vocabulary of 32,512."""

VOCABULARY = 32_512  # SpiRit-LM's 32,503 ids, padded
SIZES = {
    # The layers of Llama 3.2 1B, the embeddings untied: 1.11 B parameters.
    "1b": dict(d_model=2048, n_layers=16, n_heads=32, n_kv_heads=8, d_ff=8192),
    # Llama 2 7B, as configs/spiritlm_7b.py: 6.74 B parameters.
    "7b": dict(d_model=4096, n_layers=32, n_heads=32, n_kv_heads=32, d_ff=11_008),
}
