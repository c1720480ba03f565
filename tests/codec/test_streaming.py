"""Codecs of the configs that are causal, on chunks: what comes out is what the whole gives at once."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxslm.codec.model import Codec, CodecConfig
from jaxslm.configure import load_config

CAUSAL = ("soundstream_16k", "encodec_24k", "mimi_24k")
CHUNKS = (7, 1, 1, 2)  # frames; EnCodec reflects the beginning, which takes a longer first chunk


@functools.cache
def codec(name: str) -> Codec:
    config = load_config(f"configs/{name}.py:tiny")
    fields = config.model.to_dict()
    fields["quantizer"]["kmeans_iterations"] = 0  # codebooks are drawn, not waiting for a first batch
    made = jax.jit(functools.partial(Codec, CodecConfig(sample_rate=config.data.sample_rate, **fields)))(
        jax.random.key(0)
    )
    # Codebooks of the size of the latents, or all frames would have one code.
    shrink = lambda x: 0.02 * x if x.ndim == 3 else x  # noqa: E731
    return made.with_codebooks(jax.tree.map(shrink, made.quantizer.codebooks))


@pytest.mark.parametrize("name", CAUSAL)
def test_chunks_give_what_the_whole_gives(name):
    made = codec(name)
    samples = 0.3 * jax.random.normal(jax.random.key(2), (2, sum(CHUNKS) * made.hop))
    encode, decode, encode_chunk, decode_chunk = map(
        jax.jit, (Codec.encode, Codec.decode, Codec.encode_chunk, Codec.decode_chunk)
    )
    whole = encode(made, samples)
    assert len(np.unique(whole)) > 20
    state, heard, said, first = made.start_encoding(2), [], [], 0
    spoken = made.start_decoding(2)
    for n in CHUNKS:
        codes, state = encode_chunk(made, samples[:, first : first + n * made.hop], state)
        chunk, spoken = decode_chunk(made, codes, spoken)
        assert chunk.shape == (2, n * made.hop)
        heard.append(codes)
        said.append(chunk)
        first += n * made.hop
    np.testing.assert_array_equal(jnp.concatenate(heard, axis=1), whole)
    np.testing.assert_allclose(jnp.concatenate(said, axis=1), decode(made, whole), atol=2e-5)


def test_what_cannot_be_streamed_says_why():
    made = codec("soundstream_16k")
    with pytest.raises(ValueError, match="is no multiple of the stride"):
        made.encode_chunk(jnp.zeros((1, made.hop + 1)), made.start_encoding(1))
    config = load_config("configs/dac_16k.py:tiny")
    other = jax.eval_shape(
        functools.partial(Codec, CodecConfig(sample_rate=16_000, **config.model.to_dict())), jax.random.key(0)
    )
    with pytest.raises(ValueError, match="not causal"):
        other.start_encoding(1)


@pytest.mark.parametrize("name", ("soundstream_16k", "dac_16k", "bigcodec_16k", "wavtokenizer_24k"))
def test_a_clip_comes_back_as_whole_hops_and_rows_as_they_are_alone(name):
    made = codec(name)
    n = 3 * made.hop - 7
    samples = 0.3 * jax.random.normal(jax.random.key(3), (2, n))
    lengths = jnp.array([n, n - made.hop - 5])
    codes = jax.jit(Codec.encode)(made, samples, lengths)
    assert codes.shape[:2] == (2, 3)
    frames = made.n_frames(lengths)
    wave = jax.jit(Codec.decode)(made, codes, frames)
    assert wave.shape == (2, 3 * made.hop) and frames.tolist() == [3, 2]
    alone = jax.jit(Codec.encode)(made, samples[1:, : lengths[1]])
    np.testing.assert_array_equal(codes[1, :2], alone[0])
    np.testing.assert_allclose(wave[1, : 2 * made.hop], jax.jit(Codec.decode)(made, alone)[0], atol=2e-5)
    assert not np.any(wave[1, 2 * made.hop :])
