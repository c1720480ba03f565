import copy
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxslm.hf.speech import load_speech_encoder
from jaxslm.models.speech_encoder import SpeechEncoder, SpeechEncoderConfig
from jaxslm.models.waveform_frontend import distance_buckets
from jaxslm.nn.bidirectional import QUERY_BLOCK, attend_bidirectional
from jaxslm.sharding import make_partitioner
from tests.models.speech_models import (
    FAMILIES,
    hidden_states,
    make_clips,
    make_model,
    pad,
    save_model,
    torch,
    transformers,
)

LENGTHS = (16_000, 11_111, 4_003)


@functools.cache
def _model(family: str):
    return make_model(family)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the model of a family, made once."""

    @functools.cache
    def make(family: str):
        return save_model(_model(family), tmp_path_factory.mktemp(family))

    return make


@jax.jit
def _run(encoder, samples, lengths):
    return encoder(samples, lengths)


@pytest.mark.parametrize("family", FAMILIES)
def test_padded_rows_equal_single_clips_of_transformers(family, folder):
    clips = make_clips(LENGTHS)
    features, frames = map(np.asarray, _run(load_speech_encoder(folder(family)), *pad(clips)))
    for row, n, clip in zip(features, frames, clips, strict=True):
        expected = hidden_states(_model(family), clip)[-1]
        assert len(expected) == n
        np.testing.assert_allclose(row[:n], expected, atol=1e-4, rtol=0)
        assert not row[n:].any()


@pytest.mark.parametrize("family, layer", [("wavlm-base", 1), ("hubert-large", 0), ("hubert-large", 3)])
def test_layers_are_the_hidden_states_of_transformers(family, layer, folder):
    clips = make_clips(LENGTHS[1:])
    features, frames = _run(load_speech_encoder(folder(family), layer=layer), *pad(clips))
    for row, n, clip in zip(features, frames, clips, strict=True):
        np.testing.assert_allclose(row[:n], hidden_states(_model(family), clip)[layer], atol=1e-4, rtol=0)


@pytest.mark.parametrize("family", ["hubert-base", "mhubert-25hz"])
def test_frame_counts_of_all_lengths_equal_those_of_transformers(family, folder):
    config = load_speech_encoder(folder(family), layer=0).config
    lengths = np.concatenate([np.arange(400, 2_000), np.arange(159_990, 160_400)])
    expected = _model(family)._get_feat_extract_output_lengths(torch.tensor(lengths)).clip(0).numpy()
    np.testing.assert_array_equal(config.frames(lengths), expected)
    assert [config.frames(int(n)) for n in lengths] == list(expected)
    assert config.frames(0) == 0 and config.frames(399) == 0
    assert config.frame_rate == (25 if family == "mhubert-25hz" else 50)


def test_a_row_does_not_depend_on_the_rows_and_the_padding_beside_it(folder):
    encoder = load_speech_encoder(folder("hubert-base"), layer=2)
    samples, lengths = pad(make_clips(LENGTHS))
    together, frames = _run(encoder, samples, lengths)
    wider = np.pad(samples, ((0, 1), (0, 5_000)), constant_values=np.nan)  # and a row of no length at all
    wide, wide_frames = _run(encoder, wider, np.append(lengths, 0))
    np.testing.assert_array_equal(wide_frames, np.append(frames, 0))
    np.testing.assert_allclose(wide[:3, : together.shape[1]], together, atol=1e-5)
    assert not np.asarray(wide[3]).any()


@pytest.mark.parametrize("family", ["hubert-base", "wavlm-large"])
def test_bfloat16_is_as_close_to_float32_as_that_of_transformers(family, folder):
    clips = make_clips(LENGTHS)
    halves, frames = _run(load_speech_encoder(folder(family), layer=2, dtype="bfloat16"), *pad(clips))
    assert halves.dtype == np.float32
    rounded = copy.deepcopy(_model(family)).to(torch.bfloat16)
    for half, n, clip in zip(halves, frames, clips, strict=True):
        full = hidden_states(_model(family), clip)[2]
        ours, theirs = (np.abs(found - full).mean() for found in (half[:n], hidden_states(rounded, clip)[2]))
        assert 0 < ours < 1.5 * theirs


def test_buckets_of_relative_positions_equal_those_of_transformers():
    for n_buckets, farthest in ((320, 800), (40, 30)):
        config = transformers.WavLMConfig(num_buckets=n_buckets, max_bucket_distance=farthest, num_hidden_layers=1)
        theirs = transformers.models.wavlm.modeling_wavlm.WavLMAttention(12, 12, 0.0, n_buckets, farthest)
        expected = theirs._relative_positions_bucket(torch.arange(-2_999, 3_000)).numpy()
        np.testing.assert_array_equal(distance_buckets(3_000, config.num_buckets, farthest), expected)


def test_long_rows_attend_in_blocks():
    rng = np.random.default_rng(0)
    n = 2 * QUERY_BLOCK + 77
    q, k, v = rng.normal(size=(3, 2, n, 2, 4)).astype(np.float32)
    bias, gate = rng.normal(size=(2 * n - 1, 2)).astype(np.float32), rng.normal(size=(2, n, 2)).astype(np.float32)
    visible = np.arange(n)[None] < np.array([[n], [n - 300]])
    scores = np.einsum("bthc,bshc->bhts", q, k).astype(np.float64) / 2
    rows = np.arange(n)
    scores += gate.transpose(0, 2, 1)[..., None] * bias[rows[None] - rows[:, None] + n - 1].transpose(2, 0, 1)
    weights = np.exp(scores) * visible[:, None, None]
    expected = np.einsum("bhts,bshc->bthc", weights / weights.sum(-1, keepdims=True), v)
    np.testing.assert_allclose(
        attend_bidirectional(*map(jnp.asarray, (q, k, v, visible, bias, gate))), expected, atol=1e-5
    )


def test_parameters_can_be_placed_on_a_mesh():
    config = SpeechEncoderConfig(d_model=32, n_layers=2, n_heads=2, d_ff=64, pos_kernel=4, adapter_dim=8, vocab_size=7)
    shapes = jax.eval_shape(lambda key: SpeechEncoder(config, key), jax.random.key(0))
    shardings = make_partitioner().shardings(shapes)
    assert len(jax.tree.leaves(shardings)) == len(jax.tree.leaves(shapes))


def test_bad_input_is_refused_by_name():
    config = SpeechEncoderConfig(d_model=32, n_layers=1, n_heads=2, d_ff=8)
    with pytest.raises(ValueError, match="399 samples are less than one window"):
        jax.eval_shape(lambda key: SpeechEncoder(config, key)(jnp.zeros((1, 399)), jnp.array([399])), jax.random.key(0))
    for changes, message in (
        (dict(layer=13), "layer=13 is not one of the model's: use 0 to 12, or -1"),
        (dict(layer=12, vocab_size=5), "layer=12: the CTC head sits on the last hidden state; use layer=-1"),
        (dict(n_heads=7), "d_model=768 is not a multiple of n_heads=7"),
        (dict(dtype="float16"), "dtype='float16' is not one of float32, bfloat16"),
        (dict(conv_dims=(512,)), "different lengths"),
    ):
        with pytest.raises(ValueError, match=message):
            SpeechEncoderConfig(**changes)
