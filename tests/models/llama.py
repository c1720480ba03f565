"""Small decoders and packed rows shared by the model, parity and mesh tests."""

import jax
import numpy as np

from jaxslm.models.decoder import Decoder, DecoderConfig

TINY = dict(vocab_size=128, d_model=32, n_layers=3, n_heads=4, n_kv_heads=2, d_ff=64)


def tiny_config(**changes) -> DecoderConfig:
    return DecoderConfig(**(TINY | changes))


def tiny_decoder(seed: int = 0, **changes) -> Decoder:
    # Larger weights than in training: attention is far from uniform, so that errors show.
    config = tiny_config(**({"initializer_range": 0.2} | changes))
    return jax.jit(Decoder, static_argnums=0)(config, jax.random.key(seed))


def packed_rows(lengths: list[list[int]], length: int, vocab_size: int = 128, seed: int = 0) -> dict[str, np.ndarray]:
    """Rows holding segments of the given lengths, then padding (segment 0)."""
    rng = np.random.default_rng(seed)
    tokens = np.zeros((len(lengths), length), np.int32)
    segment_ids, positions = np.zeros_like(tokens), np.zeros_like(tokens)
    for row, segments in enumerate(lengths):
        start = 0
        for i, n in enumerate(segments):
            span = slice(start, start + n)
            tokens[row, span] = rng.integers(0, vocab_size, n)
            segment_ids[row, span] = i + 1
            positions[row, span] = np.arange(n)
            start += n
    return dict(tokens_BxT=tokens, segment_ids_BxT=segment_ids, positions_BxT=positions)
