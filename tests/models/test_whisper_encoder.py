import copy
import functools
import json

import jax
import numpy as np
import pytest

from jaxslm.hf.speech import load_speech_encoder
from jaxslm.models.whisper_encoder import WhisperEncoder, WhisperEncoderConfig
from tests.models.speech_models import make_clips, pad, torch, transformers

TINY = dict(
    d_model=32, encoder_layers=3, encoder_attention_heads=4, encoder_ffn_dim=64, vocab_size=60, decoder_layers=1
)
TINY |= dict(decoder_attention_heads=4, decoder_ffn_dim=64, pad_token_id=0, bos_token_id=1, eos_token_id=2)
TINY |= dict(decoder_start_token_id=1)
LENGTHS = (48_000, 20_007)
FRAMES = (150, 63)


@functools.cache
def _theirs(n_mels: int = 80):
    torch.manual_seed(0)
    config = transformers.WhisperConfig(**TINY, num_mel_bins=n_mels)
    model = transformers.WhisperForConditionalGeneration(config).eval()
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "embed_positions" not in name:
                value.normal_(0, 0.7 / value.shape[-1] ** 0.5) if value.ndim == 2 else value.add_(
                    0.1 * torch.randn_like(value)
                )
    return model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    @functools.cache
    def make(n_mels: int = 80):
        folder = tmp_path_factory.mktemp(f"whisper-{n_mels}")
        _theirs(n_mels).save_pretrained(folder)
        (folder / "preprocessor_config.json").write_text(json.dumps({"feature_size": n_mels, "sampling_rate": 16_000}))
        return folder

    return make


def _mels(clip, n_mels=80):
    extractor = transformers.WhisperFeatureExtractor(feature_size=n_mels)
    return torch.tensor(extractor(clip, sampling_rate=16_000).input_features)


def _hidden_states(encoder, mels):
    with torch.no_grad():
        return [state[0].float().numpy() for state in encoder(mels, output_hidden_states=True).hidden_states]


@jax.jit
def _run(encoder, samples, lengths):
    return encoder(samples, lengths)


@pytest.mark.parametrize("n_mels, layer", [(80, 0), (80, 2), (80, -1), (128, 3)])
def test_equals_transformers_on_30_s(folder, n_mels, layer):
    clips = make_clips(LENGTHS)
    features, frames = map(np.asarray, _run(load_speech_encoder(folder(n_mels), layer=layer), *pad(clips)))
    assert tuple(frames) == FRAMES and features.shape == (2, 1500, 32)
    for row, n, clip in zip(features, frames, clips, strict=True):
        expected = _hidden_states(_theirs(n_mels).model.encoder, _mels(clip, n_mels))[layer]
        np.testing.assert_allclose(row[:n], expected[:n], atol=1e-4, rtol=0)
        assert not row[n:].any()


@pytest.mark.parametrize("layer", [1, 3])
def test_cropped_equals_transformers_with_cropped_positions(folder, layer):
    clips = make_clips(LENGTHS)
    features, frames = map(np.asarray, _run(load_speech_encoder(folder(), layer=layer, crop=True), *pad(clips)))
    assert tuple(frames) == FRAMES and features.shape == (2, 150, 32)
    for row, n, clip in zip(features, frames, clips, strict=True):
        config = transformers.WhisperConfig(**TINY, max_source_positions=int(n))
        short = transformers.models.whisper.modeling_whisper.WhisperEncoder(config).eval()
        state = dict(_theirs().model.encoder.state_dict())
        state["embed_positions.weight"] = state["embed_positions.weight"][:n]
        short.load_state_dict(state)
        expected = _hidden_states(short, _mels(clip)[:, :, : 2 * n])[layer]
        np.testing.assert_allclose(row[:n], expected, atol=1e-4, rtol=0)


def test_bfloat16_is_as_close_to_float32_as_that_of_transformers(folder):
    clips = make_clips(LENGTHS)
    halves, _ = _run(load_speech_encoder(folder(), dtype="bfloat16"), *pad(clips))
    assert halves.dtype == np.float32
    whole = _theirs().get_encoder()
    rounded = copy.deepcopy(whole).to(torch.bfloat16)
    for half, n, clip in zip(halves, FRAMES, clips, strict=True):
        full = _hidden_states(whole, _mels(clip))[-1][:n]
        theirs = _hidden_states(rounded, _mels(clip).to(torch.bfloat16))[-1][:n]
        assert 0 < np.abs(half[:n] - full).mean() < 1.5 * np.abs(theirs - full).mean()


def test_positions_at_initialisation_are_whispers_sinusoids():
    ours = WhisperEncoder(WhisperEncoderConfig(d_model=32, n_layers=1, n_heads=2, d_ff=8), jax.random.key(0))
    theirs = transformers.models.whisper.modeling_whisper.sinusoids(1500, 32).numpy()
    np.testing.assert_allclose(ours.positions[...], theirs, atol=1e-4)


def test_bad_input_is_refused_by_name():
    encoder = WhisperEncoder(WhisperEncoderConfig(d_model=32, n_layers=1, n_heads=2, d_ff=8), jax.random.key(0))
    with pytest.raises(ValueError, match="480001 samples are more than the 480000"):
        encoder(np.zeros((1, 480_001), np.float32), np.array([480_001]))
    with pytest.raises(ValueError, match="layer=5 is not one of the model's: use 0 to 4"):
        WhisperEncoderConfig(layer=5)
