"""Checkpoints of Spin and of ContentVec as their sources write them, with seeded random weights."""

import json

import jax
import numpy as np
import pytest

from jaxslm.hf.convert_speech import convert_speech
from jaxslm.hf.speech import load_speech_encoder
from tests.hf.fairseq_files import fairseq_state
from tests.models.speech_models import FAMILIES, SMALL, hidden_states, make_clips, make_model, pad, torch


# vectominist/spin: src/model/spin.py, src/nn/hubert.py (s3prl's HuBERT without its pre-training head), dnn.py,
# swav_vq_dis.py; pytorch_lightning writes the rest, and the logger that the script puts into the settings.
def _spin_file(model, family: str, **encoder) -> dict:
    state = fairseq_state(model, family, "encoder.model.")
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
    state = fairseq_state(model, "hubert-base")
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
