import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxslm.codec import runner as running
from jaxslm.codec.codebooks import Codebooks
from jaxslm.codec.codes import CodeSequence
from jaxslm.codec.identity import codebook_sizes, codec_sha256, describe_codec
from jaxslm.codec.model import Codec
from jaxslm.codec.runner import CodecRunner
from tests.codec.codecs import small_codec

CODEC = small_codec()
LENGTHS = (1, 101, 128, 190)  # frames of two buckets


def clips(lengths=LENGTHS, seed=0):
    rng = np.random.default_rng(seed)
    return [(0.3 * rng.normal(size=n)).astype(np.float32) for n in lengths]


@pytest.mark.parametrize("causal", [True, False])
def test_a_batch_of_any_lengths_gives_what_each_clip_gives_alone(causal):
    codec = small_codec(causal=causal)
    runner, given = CodecRunner(codec), clips()
    codes = runner.encode(given)
    through = jax.jit(lambda codec, clip: (codes := codec.encode(clip), codec.decode(codes)))
    for clip, found, samples in zip(given, codes, runner.decode(codes), strict=True):
        alone, decoded = through(codec, clip[None])
        np.testing.assert_array_equal(found.ids, alone[0])
        assert found.ids.shape == (-(-len(clip) // 8), 3) and found.n_samples == len(clip)
        np.testing.assert_allclose(samples, decoded[0, : len(clip)], atol=1e-5)


def test_fewer_levels_are_the_first_ones_of_all():
    given, everything, two = clips(), CodecRunner(CODEC), CodecRunner(CODEC, 2)
    first = two.encode(given)
    for a, b in zip(first, everything.encode(given), strict=True):
        np.testing.assert_array_equal(a.ids, b.ids[:, :2])
    for a, b in zip(two.decode(everything.encode(given)), two.decode(first), strict=True):
        np.testing.assert_array_equal(a, b)


def test_small_batches_give_the_same_and_few_shapes_are_compiled():
    given = clips([100 + 5 * i for i in range(20)])
    before = running.encode_batch._cache_size()
    wide = CodecRunner(CODEC).encode(given)
    assert running.encode_batch._cache_size() <= before + 3
    assert wide == CodecRunner(CODEC, batch_seconds=0.05).encode(given)


@pytest.mark.parametrize("kind, codes", [("split_rvq", 3), ("grouped_rvq", 6), ("fsq", 1)])
def test_every_kind_of_quantizer_has_its_sizes_and_runs(kind, codes):
    codec = small_codec(kind=kind, fsq_levels=(5, 3))
    runner, given = CodecRunner(codec), clips([50])
    (found,) = runner.encode(given)
    assert found.ids.shape == (7, codes) and len(codebook_sizes(codec)) == codes
    assert codebook_sizes(codec)[0] == (15 if kind == "fsq" else 16)
    assert len(runner.decode([found])[0]) == 50
    if kind == "grouped_rvq":
        assert CodecRunner(codec, 1).encode(given)[0].ids.shape == (7, 2)


def test_levels_that_are_not_there_are_refused():
    for n in (0, 4):
        with pytest.raises(ValueError, match=f"{n} levels, but the codec has 3"):
            CodecRunner(CODEC, n)
    with pytest.raises(ValueError, match="2 codes a frame, where 3 levels have 3"):
        CodecRunner(CODEC).decode(CodecRunner(CODEC, 2).encode(clips([50])))


@pytest.mark.parametrize("bad", [np.zeros(0, np.float32), np.array([0.1, np.nan]), np.array([np.inf])])
def test_clips_without_sound_to_encode_are_refused(bad):
    with pytest.raises(ValueError, match="empty or has samples that are not finite"):
        CodecRunner(CODEC).encode([bad])


@pytest.mark.parametrize("clip", [np.zeros(50), np.full(50, 0.7), np.sign(np.sin(np.arange(50)))])
def test_silence_dc_and_a_square_wave_at_full_scale_come_back_finite_and_whole(clip):
    runner = CodecRunner(CODEC)
    (samples,) = runner.decode(runner.encode([clip]))
    assert samples.shape == (50,) and np.isfinite(samples).all()


def test_codes_out_of_range_or_of_another_length_are_refused():
    runner = CodecRunner(CODEC)
    with pytest.raises(ValueError, match="code 16 in level 2, whose codebook has 16"):
        runner.decode([CodeSequence(np.array([[0, 16, 0]]), 2000, 8)])
    with pytest.raises(ValueError, match="2 frames of 8 samples for a clip of 8"):
        runner.decode([CodeSequence(np.zeros((2, 3)), 2000, 8)])
    with pytest.raises(ValueError, match="from -1"):
        CodeSequence(np.array([[-1]]), 2000, 8)


def leaves_changed(codec):
    """Each as `codec` but for one value of one tensor."""
    leaves, tree = jax.tree.flatten(codec)
    for i, leaf in enumerate(leaves):
        if leaf.dtype == jnp.float32:
            yield jax.tree.unflatten(tree, [*leaves[:i], leaf.at[(0,) * leaf.ndim].add(0.5), *leaves[i + 1 :]])


def test_the_hash_is_that_of_every_tensor_and_of_the_config():
    sha256 = codec_sha256(CODEC)
    assert codec_sha256(small_codec()) == sha256
    others = [codec_sha256(codec) for codec in leaves_changed(CODEC)]
    assert len(set(others) - {sha256}) == len(others) > 20
    config = CODEC.config
    for change in (dict(sample_rate=8000), dict(decoder=config.decoder | dict(pad="edge"))):
        assert codec_sha256(Codec(dataclasses.replace(config, **change), jax.random.key(0))) != sha256


def test_how_a_codec_was_trained_or_is_stored_is_not_in_its_hash():
    plain = codec_sha256(CODEC)
    assert codec_sha256(Codec(CODEC.config, jax.random.key(0))) == plain  # weight norm not folded
    assert codec_sha256(small_codec(dropout=0.5, decay=0.9)) == plain
    config, network = CODEC.config, dict(CODEC.config.encoder, norm="none")
    unnormed = jax.tree.unflatten(
        jax.tree.structure(Codec(dataclasses.replace(config, encoder=network, decoder=network), jax.random.key(0))),
        jax.tree.leaves(CODEC),
    )
    assert codec_sha256(unnormed) == plain
    books = CODEC.quantizer.codebooks
    published = CODEC.with_codebooks(Codebooks.of(books.codes_QxKxC))
    halved = CODEC.with_codebooks(Codebooks(books.usage_QxK / 2, books.sums_QxKxC / 2, books.batches_Q + 9))
    assert codec_sha256(published) == codec_sha256(halved) == plain


def test_a_manifest_says_what_codes_mean():
    said = describe_codec(CODEC, "small")
    assert said["sha256"] == codec_sha256(CODEC) and said["name"] == "small"
    assert (said["sample_rate"], said["frame_rate"], said["hop"]) == (16_000, 2000.0, 8)
    assert (said["levels"], said["codebook_sizes"]) == (3, [16, 16, 16])
