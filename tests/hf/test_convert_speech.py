"""Files under fairseq's names, written here from models of transformers."""

import argparse
import hashlib
import json

import jax
import numpy as np
import pytest

from jaxslm.hf.convert_speech import convert_speech
from jaxslm.hf.speech import load_speech_encoder, source_sha256
from tests.hf.fairseq_files import fairseq_state, settings_of
from tests.models.speech_models import (
    SMALL,
    hidden_states,
    make_clips,
    make_model,
    pad,
    save_model,
    torch,
    transformers,
)


@pytest.mark.parametrize("family", ["hubert-base", "hubert-large", "mhubert-25hz", "wavlm-large", "data2vec"])
def test_a_file_of_fairseq_gives_the_features_of_transformers(tmp_path, family):
    model, large = make_model(family), "large" in family or family == "data2vec"
    extra = {"final_proj.weight": torch.zeros(3, 3), "label_embs_concat": torch.zeros(3)}
    cfg = {"model": argparse.Namespace(**settings_of(family)), "task": {"normalize": large}}
    torch.save({"args": None, "cfg": cfg, "model": fairseq_state(model, family) | extra}, tmp_path / "a.pt")
    folder = convert_speech(tmp_path / "a.pt", tmp_path / "converted")
    encoder = load_speech_encoder(folder, layer=2)
    assert encoder.config.normalize == large
    clips = make_clips((8_000, 6_001))
    features, frames = jax.jit(lambda e, x, n: e(x, n))(encoder, *pad(clips))
    for row, n, clip in zip(features, frames, clips, strict=True):
        np.testing.assert_allclose(row[:n], hidden_states(model, clip, large)[2], atol=1e-4, rtol=0)


def test_a_fine_tuned_file_brings_its_ctc_head(tmp_path):
    model = make_model("wav2vec2-large", "ForCTC")
    args = argparse.Namespace(
        w2v_args={"model": settings_of("wav2vec2-large"), "task": {"normalize": True}}, arch="wav2vec_ctc"
    )
    state = fairseq_state(model, "wav2vec2-large", "w2v_encoder.w2v_model.")
    torch.save({"args": args, "model": state}, tmp_path / "a.pt")
    folder = convert_speech(tmp_path / "a.pt", tmp_path / "converted")
    assert json.loads((folder / "config.json").read_text())["model_type"] == "wav2vec2"
    encoder = load_speech_encoder(folder, ctc=True)
    np.testing.assert_array_equal(encoder.head.weight[...], model.lm_head.weight.detach().numpy().T)


def test_settings_that_a_file_lacks_follow_from_its_tensors(tmp_path):
    config = SMALL | dict(hidden_size=128, num_attention_heads=2)
    torch.manual_seed(0)
    model = transformers.HubertModel(transformers.HubertConfig(**config))
    torch.save(fairseq_state(model, "hubert-base"), tmp_path / "a.pt")
    folder = convert_speech(tmp_path / "a.pt", tmp_path / "converted")
    read = json.loads((folder / "config.json").read_text())
    for name, value in model.config.to_dict().items():
        if name in read and name not in ("vocab_size",):
            assert read[name] == (list(value) if isinstance(value, tuple) else value), name
    assert json.loads((folder / "preprocessor_config.json").read_text())["do_normalize"] is False


def test_a_pickled_model_of_hugging_face_keeps_its_names_and_documents(tmp_path):
    model = make_model("hubert-base")
    save_model(model, tmp_path / "theirs")
    (tmp_path / "theirs" / "model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "theirs" / "pytorch_model.bin")
    with pytest.raises(ValueError, match="pytorch_model.bin.*convert them once.*jaxslm.hf.convert_speech"):
        load_speech_encoder(tmp_path / "theirs")
    folder = convert_speech(tmp_path / "theirs" / "pytorch_model.bin", tmp_path / "converted")
    assert load_speech_encoder(folder, layer=1).config.normalize
    with pytest.raises(ValueError, match="converted is there already: remove it"):
        convert_speech(tmp_path / "theirs" / "pytorch_model.bin", folder)


def test_a_converted_folder_tells_the_hash_of_its_source_and_transformers_loads_it(tmp_path):
    model = make_model("hubert-base")
    torch.save({"cfg": settings_of("hubert-base"), "model": fairseq_state(model, "hubert-base")}, tmp_path / "a.pt")
    folder = convert_speech(tmp_path / "a.pt", tmp_path / "converted")
    assert source_sha256(folder) == hashlib.sha256((tmp_path / "a.pt").read_bytes()).hexdigest()
    theirs, clip = transformers.HubertModel.from_pretrained(folder).eval(), make_clips((8_000,))[0]
    np.testing.assert_allclose(hidden_states(theirs, clip)[-1], hidden_states(model, clip)[-1], atol=1e-5)
    assert load_speech_encoder(folder).config.n_layers == 3
    assert source_sha256(save_model(model, tmp_path / "theirs")) == ""
    torch.save(model.state_dict(), tmp_path / "theirs" / "pytorch_model.bin")
    again = convert_speech(tmp_path / "theirs" / "pytorch_model.bin", tmp_path / "again")
    assert source_sha256(again) == hashlib.sha256((tmp_path / "theirs" / "pytorch_model.bin").read_bytes()).hexdigest()
    (folder / "config.json").write_text('{"source_sha256": 3}')
    with pytest.raises(ValueError, match="config.json: source_sha256 is no SHA-256: convert the file again"):
        source_sha256(folder)


def test_a_conversion_that_was_cut_off_can_be_run_again(tmp_path, monkeypatch):
    torch.save(
        {"cfg": settings_of("hubert-base"), "model": fairseq_state(make_model("hubert-base"), "hubert-base")},
        tmp_path / "a.pt",
    )

    def killed(*_, **__):
        raise KeyboardInterrupt

    for cut in ("json.dumps", "jaxslm.hf.convert_speech.save_file"):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(cut, killed)
            convert_speech(tmp_path / "a.pt", tmp_path / "converted")
        assert not (tmp_path / "converted").exists()
    folder = convert_speech(tmp_path / "a.pt", tmp_path / "converted")
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
    ]
    assert load_speech_encoder(folder, layer=1).config.layer == 1


def _damaged(**changes) -> dict:
    state = fairseq_state(make_model("hubert-base"), "hubert-base") | changes
    return {
        "cfg": settings_of("hubert-base"),
        "model": {name: value for name, value in state.items() if value is not None},
    }


def test_absurd_settings_and_shapes_are_refused_by_name(tmp_path):
    projection, conv, position = (
        "post_extract_proj.weight",
        "feature_extractor.conv_layers.3.0.weight",
        "encoder.pos_conv.0.",
    )
    cases = [
        (_damaged(**{projection: torch.zeros(3)}), r"projection.weight has shape \[3\], where 2 sizes were expected"),
        (_damaged(**{conv: torch.zeros(())}), r"conv_layers.3.conv.weight has shape \[\], where 3 sizes"),
        (_damaged(**{conv: torch.zeros(24, 24, 0)}), r"has shape \[24, 24, 0\], where 3 sizes"),
        (_damaged(**{position + "weight_g": None, position + "weight_v": None}), "lacks tensors .*pos_conv_embed"),
        (_damaged(**{"encoder.layers.99999999999.fc1.bias": torch.zeros(1)}), "lacks tensors .*layers.3"),
        (
            _damaged(**{"encoder.model.post_extract_proj.bias": torch.zeros(48)}),
            "has two tensors for feature_projection",
        ),
        (_damaged() | {"cfg": torch.zeros(2), "args": {"activation_fn": 3}}, "activation_fn of its settings is '3'"),
        (_damaged(**{f"encoder.layers.{'9' * 5000}.fc1.bias": torch.zeros(1)}), "lacks tensors .*layers.3"),
    ]
    for key, value, message in (
        ("encoder_attention_heads", "x", "encoder_attention_heads of its settings is 'x', no int"),
        ("encoder_attention_heads", 2.5, "encoder_attention_heads of its settings is '2.5', no int"),
        ("layer_norm_first", "no", "layer_norm_first of its settings is 'no', no bool"),
        ("activation_fn", 3, "activation_fn of its settings is '3', no str"),
        ("conv_feature_layers", 3, "conv_feature_layers='3' of its settings does not describe its convolutions"),
        ("conv_feature_layers", "(" * 10**6, "does not describe its convolutions"),
        ("conv_feature_layers", "[(24,10,5)] * 99" + "* 99" * 99, "does not describe its convolutions"),
    ):
        file = _damaged()
        file["cfg"][key] = value
        cases.append((file, message))
    for file, message in cases:
        torch.save(file, tmp_path / "a.pt")
        with pytest.raises(ValueError, match=f"a.pt.*{message}"):
            convert_speech(tmp_path / "a.pt", tmp_path / "converted")


def test_settings_held_in_many_places_are_read_once(tmp_path):
    file = _damaged()
    for _ in range(40):  # 4**40 ways through them
        file["cfg"] = {key: file["cfg"] for key in ("task", "model", "cfg", "w2v_args")}
    file["cfg"]["activation_fn"] = [file["cfg"]["task"]]
    torch.save(file, tmp_path / "a.pt")
    folder = convert_speech(tmp_path / "a.pt", tmp_path / "converted")
    assert json.loads((folder / "config.json").read_text())["num_attention_heads"] == 4


def test_a_setting_that_refers_to_another_is_not_its_value(tmp_path):
    file = _damaged()
    file["cfg"] = {"task": {"normalize": False}, "model": file["cfg"] | {"normalize": "${task.normalize}"}}
    torch.save(file, tmp_path / "a.pt")
    assert not load_speech_encoder(convert_speech(tmp_path / "a.pt", tmp_path / "converted")).config.normalize


def test_files_of_other_models_are_refused_by_name(tmp_path):
    torch.save(
        {"model": {"decoder.embed_tokens.weight": torch.zeros(2, 2), "odd.weight": torch.zeros(2)}}, tmp_path / "a.pt"
    )
    with pytest.raises(ValueError, match="a.pt has odd.weight: it is not a wav2vec 2.0, HuBERT, WavLM or data2vec"):
        convert_speech(tmp_path / "a.pt", tmp_path / "converted")
    torch.save({"model": 3}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match="a.pt holds no state dict"):
        convert_speech(tmp_path / "a.pt", tmp_path / "converted")
    state = fairseq_state(make_model("hubert-base"), "hubert-base")
    part = {name: value for name, value in state.items() if "conv_layers.0" not in name and "pos_conv" not in name}
    torch.save({"model": part}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match="a.pt lacks tensors of an encoder .*conv_layers.0.*copy it again"):
        convert_speech(tmp_path / "a.pt", tmp_path / "converted")
    settings = settings_of("hubert-base") | {"conv_feature_layers": "__import__('os').getcwd()"}
    torch.save({"cfg": settings, "model": fairseq_state(make_model("hubert-base"), "hubert-base")}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match="conv_feature_layers=.* does not describe its convolutions"):
        convert_speech(tmp_path / "a.pt", tmp_path / "converted")
