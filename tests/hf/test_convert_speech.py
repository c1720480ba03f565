"""Files under fairseq's names, written here from models of transformers."""

import argparse
import json
import re

import jax
import numpy as np
import pytest

from jaxslm.hf.convert_speech import convert_speech
from jaxslm.hf.speech import load_speech_encoder
from tests.models.speech_models import FAMILIES, SMALL, hidden_states, make_clips, make_model, pad, save_model, torch

# Of transformers: of fairseq (fairseq/models/wav2vec/wav2vec2.py, hubert.py; unilm/wavlm/WavLM.py).
NAMES = {
    r"feature_extractor.conv_layers.(\d+).conv.(\w+)": r"feature_extractor.conv_layers.\1.0.\2",
    r"feature_projection.projection.(\w+)": r"post_extract_proj.\1",
    r"feature_projection.layer_norm.(\w+)": r"layer_norm.\1",
    r"encoder.pos_conv_embed.layers.(\d+).conv.(\w+)": r"encoder.pos_conv.\1.0.\2",
    r"encoder.pos_conv_embed.batch_norm.(\w+)": r"encoder.pos_conv.0.\1",
    r"encoder.pos_conv_embed.conv.parametrizations.weight.original0": r"encoder.pos_conv.0.weight_g",
    r"encoder.pos_conv_embed.conv.parametrizations.weight.original1": r"encoder.pos_conv.0.weight_v",
    r"encoder.layers.(\d+).attention.([qkv]_proj|out_proj).(\w+)": r"encoder.layers.\1.self_attn.\2.\3",
    r"encoder.layers.0.attention.rel_attn_embed.weight": r"encoder.layers.0.self_attn.relative_attention_bias.weight",
    r"encoder.layers.(\d+).attention.gru_rel_pos_const": r"encoder.layers.\1.self_attn.grep_a",
    r"encoder.layers.(\d+).attention.gru_rel_pos_linear.(\w+)": r"encoder.layers.\1.self_attn.grep_linear.\2",
    r"encoder.layers.(\d+).layer_norm.(\w+)": r"encoder.layers.\1.self_attn_layer_norm.\2",
    r"encoder.layers.(\d+).feed_forward.intermediate_dense.(\w+)": r"encoder.layers.\1.fc1.\2",
    r"encoder.layers.(\d+).feed_forward.output_dense.(\w+)": r"encoder.layers.\1.fc2.\2",
    r"encoder.layers.(\d+).final_layer_norm.(\w+)": r"encoder.layers.\1.final_layer_norm.\2",
    r"encoder.layer_norm.(\w+)": r"encoder.layer_norm.\1",
    r"masked_spec_embed": r"mask_emb",
}


def _fairseq_state(model, family: str, prefix: str = "") -> dict:
    large = FAMILIES[family][1].get("feat_extract_norm") == "layer" or family == "data2vec"
    norm_at = r"feature_extractor.conv_layers.\1.2.1.\2" if large else r"feature_extractor.conv_layers.\1.2.\2"
    names = NAMES | {r"feature_extractor.conv_layers.(\d+).layer_norm.(\w+)": norm_at}
    conv_at = 1 if family == "mhubert-25hz" else 0
    names |= {r"encoder.pos_conv_embed.conv.(weight|bias)": rf"encoder.pos_conv.{conv_at}.\1"}
    state = {}
    for theirs, value in model.state_dict().items():
        theirs = re.sub(r"^(hubert|wav2vec2)\.", "", theirs)
        if theirs.startswith("lm_head."):
            state[theirs.replace("lm_head", "w2v_encoder.proj" if prefix else "proj")] = value
            continue
        [(pattern, name)] = [
            (p, n) for p, n in names.items() if re.fullmatch(p.replace(".", r"\.").replace(r"\\.", r"\."), theirs)
        ]
        state[prefix + re.sub(pattern, name, theirs)] = value
    return state


def _settings(family: str) -> dict:
    convs = "[(24,10,5)] + [(24,3,2)] * 4 + [(24,2,2)] * 2" + " + [(24,2,2)]" * (family == "mhubert-25hz")
    large = FAMILIES[family][1].get("do_stable_layer_norm", False)
    encoder = {"encoder_attention_heads": 4, "conv_feature_layers": convs, "layer_norm_first": large}
    return encoder | {"max_distance": 30, "activation_fn": "gelu"}


@pytest.mark.parametrize("family", ["hubert-base", "hubert-large", "mhubert-25hz", "wavlm-large", "data2vec"])
def test_a_file_of_fairseq_gives_the_features_of_transformers(tmp_path, family):
    model, large = make_model(family), "large" in family or family == "data2vec"
    extra = {"final_proj.weight": torch.zeros(3, 3), "label_embs_concat": torch.zeros(3)}
    cfg = {"model": argparse.Namespace(**_settings(family)), "task": {"normalize": large}}
    torch.save({"args": None, "cfg": cfg, "model": _fairseq_state(model, family) | extra}, tmp_path / "a.pt")
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
        w2v_args={"model": _settings("wav2vec2-large"), "task": {"normalize": True}}, arch="wav2vec_ctc"
    )
    state = _fairseq_state(model, "wav2vec2-large", "w2v_encoder.w2v_model.")
    torch.save({"args": args, "model": state}, tmp_path / "a.pt")
    folder = convert_speech(tmp_path / "a.pt", tmp_path / "converted")
    assert json.loads((folder / "config.json").read_text())["model_type"] == "wav2vec2"
    encoder = load_speech_encoder(folder, ctc=True)
    np.testing.assert_array_equal(encoder.head.weight[...], model.lm_head.weight.detach().numpy().T)


def test_settings_that_a_file_lacks_follow_from_its_tensors(tmp_path):
    config = SMALL | dict(hidden_size=128, num_attention_heads=2)
    torch.manual_seed(0)
    import transformers

    model = transformers.HubertModel(transformers.HubertConfig(**config))
    torch.save(_fairseq_state(model, "hubert-base"), tmp_path / "a.pt")
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
    with pytest.raises(ValueError, match="has a model.safetensors already"):
        convert_speech(tmp_path / "theirs" / "pytorch_model.bin", folder)


def test_files_of_other_models_are_refused_by_name(tmp_path):
    torch.save(
        {"model": {"decoder.embed_tokens.weight": torch.zeros(2, 2), "odd.weight": torch.zeros(2)}}, tmp_path / "a.pt"
    )
    with pytest.raises(ValueError, match="a.pt has odd.weight: it is not a wav2vec 2.0, HuBERT, WavLM or data2vec"):
        convert_speech(tmp_path / "a.pt", tmp_path / "converted")
    torch.save({"model": 3}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match="a.pt holds no state dict"):
        convert_speech(tmp_path / "a.pt", tmp_path / "converted")
    state = _fairseq_state(make_model("hubert-base"), "hubert-base")
    part = {name: value for name, value in state.items() if "conv_layers.0" not in name and "pos_conv" not in name}
    torch.save({"model": part}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match="a.pt lacks tensors of an encoder .*conv_layers.0.*copy it again"):
        convert_speech(tmp_path / "a.pt", tmp_path / "converted")
    settings = _settings("hubert-base") | {"conv_feature_layers": "__import__('os').getcwd()"}
    torch.save({"cfg": settings, "model": _fairseq_state(make_model("hubert-base"), "hubert-base")}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match="conv_feature_layers=.* does not describe its convolutions"):
        convert_speech(tmp_path / "a.pt", tmp_path / "converted")
