import itertools
import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jaxslm.units.encoders import load_encoder
from jaxslm.units.learning import learn_inventory
from tests.models.speech_models import hidden_states, make_clips, make_model, save_model, transformers

LENGTHS = (9_000, 40_000, 400, 33_000, 20_321)


@pytest.fixture(scope="module")
def model():
    return make_model("hubert-base")


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    return save_model(model, tmp_path_factory.mktemp("hubert"))


def test_clips_of_many_lengths_get_the_features_of_transformers_in_their_order(model, folder):
    encoder, clips = load_encoder(str(folder), 2), make_clips(LENGTHS)
    assert encoder.name == f"hubert-{encoder.weights_sha256[:8]}"
    assert (encoder.frame_rate, encoder.frame_centre, encoder.dim) == (50.0, 0.0125, 48)
    for features, clip in zip(encoder.encode(clips), clips, strict=True):
        expected = hidden_states(model, clip)[2]
        assert features.shape == expected.shape and features.dtype == np.float32
        np.testing.assert_allclose(features, expected, atol=1e-4, rtol=0)
        np.testing.assert_allclose(encoder.encode([clip])[0], features, atol=1e-5)
    assert encoder.encode([]) == []


def test_few_programs_serve_all_lengths(folder):
    from jaxslm.units.neural_encoder import NeuralEncoder

    encoder, compiled = NeuralEncoder(str(folder), 0), []
    run = encoder._run
    encoder._run = lambda model, samples, *others: compiled.append(samples.shape) or run(model, samples, *others)
    encoder.encode(make_clips(range(400, 32_000, 900)))
    encoder.encode(make_clips([5_000, 6_000]))
    assert set(compiled) == {(15, 32_080)} and len(compiled) == 4  # 36 clips in batches of 15, then 2


def test_the_hash_is_that_of_the_weights_not_of_their_place(folder, tmp_path):
    first = load_encoder(str(folder), 1).weights_sha256
    shutil.copytree(folder, tmp_path / "copy")
    assert load_encoder(str(tmp_path / "copy"), 1).weights_sha256 == first and len(first) == 64
    config = json.loads((tmp_path / "copy" / "config.json").read_text())
    (tmp_path / "copy" / "config.json").write_text(json.dumps(config | dict(_name_or_path="elsewhere")))
    load_encoder.cache_clear()
    assert load_encoder(str(tmp_path / "copy"), 2).weights_sha256 == first
    save_file(load_file(tmp_path / "copy" / "model.safetensors"), tmp_path / "copy" / "model.safetensors", {"by": "me"})
    load_encoder.cache_clear()
    assert load_encoder(str(tmp_path / "copy"), 2).weights_sha256 == first
    (tmp_path / "copy" / "preprocessor_config.json").write_text(json.dumps({"do_normalize": False}))
    load_encoder.cache_clear()
    assert load_encoder(str(tmp_path / "copy"), 1).weights_sha256 != first
    save_model(make_model("hubert-base", seed=1), tmp_path / "other")
    assert load_encoder(str(tmp_path / "other"), 1).weights_sha256 != first


def test_whisper_hears_every_clip_in_30_s(tmp_path):
    config = dict(d_model=16, encoder_layers=1, encoder_attention_heads=2, encoder_ffn_dim=16, decoder_layers=1)
    config |= dict(
        decoder_attention_heads=2, vocab_size=9, decoder_ffn_dim=16, pad_token_id=0, bos_token_id=1, eos_token_id=2
    )
    model = transformers.WhisperForConditionalGeneration(transformers.WhisperConfig(**config, decoder_start_token_id=1))
    model.save_pretrained(tmp_path)
    encoder = load_encoder(str(tmp_path), 1)
    assert encoder.buckets == [480_000] and encoder.frame_rate == 50.0
    assert [len(features) for features in encoder.encode(make_clips((1, 320, 321)))] == [1, 1, 2]
    (clip,) = make_clips([480_001])
    clip[400_000:408_000] = 0.0  # 25.0 to 25.5 s
    (features,) = encoder.encode([clip])
    assert len(features) == 1501
    np.testing.assert_allclose(features[:1255], encoder.encode([clip[: 1255 * 320]])[0], atol=1e-6)
    np.testing.assert_allclose(features[1255:], encoder.encode([clip[1255 * 320 :]])[0], atol=1e-6)
    cropped = load_encoder(str(tmp_path), 1, crop=True)
    assert cropped.buckets[0] == 32_000 and cropped.identity["crop"]
    assert not np.allclose(cropped.encode([clip[:32_000]])[0], encoder.encode([clip[:32_000]])[0], atol=1e-3)


def test_a_long_clip_has_each_frame_once_and_is_cut_where_it_is_quiet(folder):
    encoder = load_encoder(str(folder), 1)
    (clip,) = make_clips([70 * 16_000])
    for second in (25, 50):
        clip[second * 16_000 : second * 16_000 + 3_200] = 0.0
    (features,), cuts = encoder.encode([clip]), [0, 1255, 2505, 3499]
    assert len(features) == cuts[-1] == (len(clip) - 400) // 320 + 1
    for first, last in itertools.pairwise(cuts):
        (part,) = encoder.encode([clip[first * 320 : last * 320 + 80 if last < cuts[-1] else None]])
        np.testing.assert_allclose(features[first:last], part, atol=1e-5)


def test_units_are_learnt_from_a_model_and_are_the_nearest_centroids_of_its_features(folder):
    encoder = load_encoder(str(folder), 1)
    inventory = learn_inventory(encoder, make_clips([16_000] * 4), k=4, seed=0)
    assert inventory.centroids.shape == (4, 48) and inventory.frame_rate == 50.0
    assert inventory.name == f"{encoder.name}-l1-k4" and inventory.encoder_folder == str(folder)
    clips = make_clips(LENGTHS)
    for units, features in zip(inventory.encode_batch(clips), encoder.encode(clips), strict=True):
        distances = np.linalg.norm((features - inventory.mean)[:, None] / inventory.std - inventory.centroids, axis=-1)
        assert np.array_equal(units.expand(), distances.argmin(axis=1))
    assert inventory.encode(clips[0]) == inventory.encode_batch(clips)[0]


def test_the_last_layer_is_one_layer_whatever_it_is_called(folder):
    last, named = (learn_inventory(load_encoder(str(folder), layer), make_clips([16_000]), 4, 0) for layer in (-1, 3))
    assert last == named and last.layer == 3
    half = learn_inventory(load_encoder(str(folder), 3, "bfloat16"), make_clips([16_000]), 4, 0)
    assert half.dtype == "bfloat16" and half.name == last.name and half != last


def test_bad_input_is_refused_by_name(folder, tmp_path):
    encoder = load_encoder(str(folder), 0)
    with pytest.raises(ValueError, match="399 samples are less than one window of 400: leave such clips out"):
        encoder.encode([np.zeros(399, np.float32)])
    for name in ("hubbert", ""):
        with pytest.raises(ValueError, match=f"units.encoder='{name}' is not known; choose mfcc, the folder"):
            load_encoder(name)
    with pytest.raises(ValueError, match="has no config.json; name a folder with a model"):
        load_encoder(str(tmp_path), 0)
    with pytest.raises(ValueError, match="has layers, and the units are those of one: name it by units.layer"):
        load_encoder(str(folder))
    with pytest.raises(ValueError, match="units.crop is for Whisper"):
        load_encoder(str(folder), 0, crop=True)
