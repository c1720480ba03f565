"""Codecs small enough for tests."""

import jax

from jaxslm.codec.model import Codec, CodecConfig


def small_codec(seed=0, sample_rate=16_000, causal=True, **quantizer) -> Codec:
    """Hops of 8 samples, 3 levels of 16 codes, random weights."""
    network = dict(kind="seanet", n_filters=4, ratios=(2, 4), n_residual=1, causal=causal)
    quantizer = dict(n_levels=3, codebook_size=16, kmeans_iterations=0) | quantizer
    config = CodecConfig(sample_rate=sample_rate, dim=8, encoder=network, decoder=network, quantizer=quantizer)
    return Codec(config, jax.random.key(seed)).folded()
