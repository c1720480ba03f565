"""Files under fairseq's names, written here from models of transformers."""

import argparse
import hashlib
import json
import re

import jax
import numpy as np
import pytest

from jaxslm.hf.convert_speech import convert_speech
from jaxslm.hf.speech import load_speech_encoder, source_sha256
from tests.models.speech_models import (
    FAMILIES,
    SMALL,
    hidden_states,
    make_clips,
    make_model,
    pad,
    save_model,
    torch,
    transformers,
)

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
    with pytest.raises(ValueError, match="converted is there already: remove it"):
        convert_speech(tmp_path / "theirs" / "pytorch_model.bin", folder)


# vectominist/spin: src/model/spin.py, src/nn/hubert.py (s3prl's HuBERT without its pre-training head), dnn.py,
# swav_vq_dis.py; pytorch_lightning writes the rest, and the logger that the script puts into the settings.
def _spin_file(model, family: str, **encoder) -> dict:
    state = _fairseq_state(model, family, "encoder.model.")
    state |= {"encoder.model.label_embs_concat": torch.zeros(5, 8)} if "hubert" in family else {}
    heads = {"pred_head.layers.0.weight": (32, 64), "pred_head.layers.0.bias": (32,)}
    heads |= {"loss_module.codebook.weight": (16, 32)}
    state |= {name: torch.ones(shape) for name, shape in heads.items()}
    encoder = {
        "type": "HuBERT",
        "use_layer": 12,
        "normalize": False,
        "feat_select": "x",
        "freeze_layers": ["pos", 0],
    } | encoder
    settings = {
        "model": {"encoder": encoder, "loss": {"type": "SwavVQDisentangle"}},
        "hparam": {"batch_len": 4_096_000},
    }
    progress = {"epoch": 0, "global_step": 5000, "pytorch-lightning_version": "2.0.2", "loops": {}, "lr_schedulers": []}
    optimizer = {
        "state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.zeros(4)}},
        "param_groups": [{"params": [0]}],
    }
    return progress | {
        "state_dict": state,
        "optimizer_states": [optimizer],
        "hparams_name": "config",
        "hyper_parameters": settings,
    }


# auspicious3000/contentvec: models/hubert/contentvec.py, models/wav2vec/wav2vec2_1.py, modules/cond_layer_norm.py. Its
# "legacy" files have neither the layers that hear the speaker nor what reads them.
def _contentvec_file(model, legacy: bool) -> dict:
    state = _fairseq_state(model, "hubert-base")
    state |= {
        "label_embs_concat": torch.zeros(5, 8),
        "final_proj.weight": torch.zeros(8, 64),
        "final_proj.bias": torch.ones(8),
    }
    if not legacy:
        for name in list(state):
            if name.startswith("encoder.layers.2.") and "layer_norm" not in name:
                for layer in (3, 4, 5):
                    state[name.replace("2", str(layer), 1)] = torch.ones_like(state[name])
        norms = [
            f"layers.{layer}.{norm}" for layer in (3, 4, 5) for norm in ("self_attn_layer_norm", "final_layer_norm")
        ]
        for norm in ("cond_layer_norm", *norms):
            state |= {f"encoder.{norm}.{name}_ln.weight": torch.ones(64, 256) for name in ("weight", "bias")}
        state |= {"layer_proj.weight": torch.zeros(8, 64), "layer_proj.bias": torch.zeros(8)}
    convs = "[(24,10,5)] + [(24,3,2)] * 4 + [(24,2,2)] * 2"
    settings = {"_name": "hubert" if legacy else "contentvec", "encoder_layers": 3, "encoder_attention_heads": 4}
    settings |= {
        "conv_feature_layers": convs,
        "layer_norm_first": False,
        "activation_fn": "gelu",
        "encoder_layers_1": 3,
    }
    task = {"_name": "contentvec_pretraining", "normalize": False, "labels": ["km"]}
    return {"args": None, "cfg": {"model": settings, "task": task}, "model": state, "extra_state": {"epoch": 3}}


def _same_features(model, folder, clips=(8_000, 6_001)) -> None:
    for layer in (1, 3):
        encoder = load_speech_encoder(folder, layer=layer)
        clips_of = make_clips(clips)
        features, frames = jax.jit(lambda e, x, n: e(x, n))(encoder, *pad(clips_of))
        for row, n, clip in zip(features, frames, clips_of, strict=True):
            np.testing.assert_allclose(row[:n], hidden_states(model, clip, False)[layer], atol=1e-4, rtol=0)


@pytest.mark.parametrize("family", ["hubert-base", "wavlm-base"])
def test_a_checkpoint_of_spin_gives_the_features_of_its_body(tmp_path, monkeypatch, family):
    monkeypatch.setitem(SMALL, "hidden_size", 64)
    monkeypatch.setitem(SMALL, "num_attention_heads", 1)  # of 64 each, as the file does not say
    monkeypatch.setitem(FAMILIES, "wavlm-base", ("WavLM", dict(num_buckets=40)))  # nor the largest distance: 800
    model = make_model(family)
    torch.save(_spin_file(model, family), tmp_path / "spin.ckpt")
    _same_features(model, convert_speech(tmp_path / "spin.ckpt", tmp_path / "converted"))


def test_a_spin_whose_features_are_not_those_of_its_body_is_refused(tmp_path):
    for key, value in (("normalize", True), ("pre_normalize", True), ("feat_select", "att"), ("disable_pos", True)):
        torch.save(_spin_file(make_model("hubert-base"), "hubert-base", **{key: value}), tmp_path / "spin.ckpt")
        with pytest.raises(ValueError, match=f"spin.ckpt: encoder.{key} of its hyper_parameters is not .*use a model"):
            convert_speech(tmp_path / "spin.ckpt", tmp_path / "converted")


@pytest.mark.parametrize("legacy", [True, False])
def test_a_checkpoint_of_contentvec_gives_the_features_of_its_hubert(tmp_path, monkeypatch, legacy):
    monkeypatch.setitem(SMALL, "hidden_size", 64)
    model = make_model("hubert-base")
    torch.save(_contentvec_file(model, legacy), tmp_path / "checkpoint_best.pt")
    folder = convert_speech(tmp_path / "checkpoint_best.pt", tmp_path / "converted")
    assert json.loads((folder / "config.json").read_text())["num_hidden_layers"] == 3
    _same_features(model, folder)


def test_a_converted_folder_tells_the_hash_of_its_source_and_transformers_loads_it(tmp_path):
    model = make_model("hubert-base")
    torch.save({"cfg": _settings("hubert-base"), "model": _fairseq_state(model, "hubert-base")}, tmp_path / "a.pt")
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
        {"cfg": _settings("hubert-base"), "model": _fairseq_state(make_model("hubert-base"), "hubert-base")},
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
    state = _fairseq_state(make_model("hubert-base"), "hubert-base") | changes
    return {
        "cfg": _settings("hubert-base"),
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
    state = _fairseq_state(make_model("hubert-base"), "hubert-base")
    part = {name: value for name, value in state.items() if "conv_layers.0" not in name and "pos_conv" not in name}
    torch.save({"model": part}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match="a.pt lacks tensors of an encoder .*conv_layers.0.*copy it again"):
        convert_speech(tmp_path / "a.pt", tmp_path / "converted")
    settings = _settings("hubert-base") | {"conv_feature_layers": "__import__('os').getcwd()"}
    torch.save({"cfg": settings, "model": _fairseq_state(make_model("hubert-base"), "hubert-base")}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match="conv_feature_layers=.* does not describe its convolutions"):
        convert_speech(tmp_path / "a.pt", tmp_path / "converted")
