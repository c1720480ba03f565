import json

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jaxslm.hf.speech import load_speech_encoder
from jaxslm.hf.speech_architectures import read_speech_config
from tests.models.speech_models import make_clips, make_model, pad, save_model, torch, transformers

FILE = "model.safetensors"
NEW = "encoder.pos_conv_embed.conv.parametrizations.weight.original{}"
OLD = ("encoder.pos_conv_embed.conv.weight_g", "encoder.pos_conv_embed.conv.weight_v")
PLAIN = "encoder.pos_conv_embed.conv.weight"


@pytest.fixture
def folder(tmp_path):
    return save_model(make_model("hubert-base"), tmp_path / "hubert")


def _rewrite(folder, change) -> None:
    tensors = load_file(folder / FILE)
    change(tensors)
    save_file(tensors, folder / FILE)


def _edit(folder, name="config.json", **changes) -> None:
    read = json.loads((folder / name).read_text()) | changes
    (folder / name).write_text(json.dumps({k: v for k, v in read.items() if v is not ...}))


def _same(a, b) -> bool:
    return all(jax.tree.leaves(jax.tree.map(lambda x, y: bool((x == y).all()), a, b)))


def _run(encoder, clips):
    return jax.jit(lambda e, x, n: e(x, n))(encoder, *pad(clips))


def test_both_spellings_of_weight_norm_and_the_plain_kernel_are_read(folder):
    tensors = load_file(folder / FILE)
    spelt = [name for name in (NEW.format(0), NEW.format(1)) if name in tensors] or list(OLD)
    size, direction = (tensors[name] for name in spelt)
    kernel = torch._weight_norm(torch.tensor(direction), torch.tensor(size), 2).numpy()
    for names, values in (
        ((NEW.format(0), NEW.format(1)), (size, direction)),
        (OLD, (size, direction)),
        ((PLAIN,), (kernel,)),
    ):
        rest = {name: value for name, value in tensors.items() if name not in spelt}
        save_file(rest | dict(zip(names, values, strict=True)), folder / FILE)
        read = load_speech_encoder(folder, layer=0).positions.convs[0].weight[...]
        np.testing.assert_allclose(read, kernel.transpose(2, 1, 0), atol=1e-6)


def test_names_with_and_without_prefix_and_tensors_beside_the_encoder_are_read(folder):
    plain = load_speech_encoder(folder, layer=2)

    def change(tensors):
        for name in list(tensors):
            tensors[f"hubert.{name}"] = tensors.pop(name)
        tensors |= {"final_proj.weight": np.ones((2, 2), np.float32), "lm_head.bias": np.ones(2, np.float32)}

    _rewrite(folder, change)
    assert _same(load_speech_encoder(folder, layer=2), plain)


def test_layers_above_the_tapped_one_are_not_read(folder):
    def change(tensors):
        for name in list(tensors):
            if name.startswith("encoder.layers.2."):
                tensors[name] = np.full_like(tensors[name], np.nan)

    whole = load_speech_encoder(folder)
    _rewrite(folder, change)
    encoder = load_speech_encoder(folder, layer=2)
    assert encoder.layers.attention.query.weight.shape[0] == 2
    assert _same(encoder.layers, jax.tree.map(lambda x: x[:2], whole.layers))
    with pytest.raises(ValueError, match="encoder.layers.2.* has values that are not finite"):
        load_speech_encoder(folder, layer=3)


@pytest.mark.parametrize("family", ["wav2vec2-base", "hubert-large", "data2vec"])
def test_ctc_logits_equal_those_of_transformers(tmp_path, family):
    model = make_model(family, "ForCTC")
    encoder = load_speech_encoder(save_model(model, tmp_path / "ctc", do_normalize=False), ctc=True)
    clips = make_clips((8_000, 6_001))
    features, frames = _run(encoder, clips)
    for row, n, clip in zip(encoder.logits(features), frames, clips, strict=True):
        with torch.no_grad():
            expected = model(torch.tensor(clip)[None]).logits[0].numpy()
        np.testing.assert_allclose(row[:n], expected, atol=1e-4, rtol=0)


def test_adapters_and_head_of_a_language_replace_those_of_the_model(tmp_path):
    model = make_model("mms", "ForCTC")
    folder = save_model(model, tmp_path / "mms", do_normalize=False)
    english = load_speech_encoder(folder, ctc=True)
    other = make_model("mms", "ForCTC", seed=1)
    torch.manual_seed(2)
    other.lm_head = torch.nn.Linear(48, 17)
    adapters = {name: value.detach().contiguous() for name, value in other._get_adapters().items()}
    save_file({name: value.numpy() for name, value in adapters.items()}, folder / "adapter.fra.safetensors")
    model.lm_head = torch.nn.Linear(48, 17)
    model.load_state_dict(model.state_dict() | adapters)
    french = load_speech_encoder(folder, ctc=True, language="fra")
    clips = make_clips((8_000,))
    features, _ = _run(french, clips)
    with torch.no_grad():
        expected = model(torch.tensor(clips[0])[None]).logits
    np.testing.assert_allclose(french.logits(features), expected.numpy(), atol=1e-4, rtol=0)
    assert english.head.weight.shape == (48, 12)
    for language in ("deu", "../fra"):
        with pytest.raises(ValueError, match=f"has no adapter.{language}.safetensors: copy it there"):
            load_speech_encoder(folder, ctc=True, language=language)


def test_normalisation_is_what_the_preprocessor_says(folder):
    assert load_speech_encoder(folder, layer=0).config.normalize
    _edit(folder, "preprocessor_config.json", do_normalize=False)
    assert not load_speech_encoder(folder, layer=0).config.normalize
    (folder / "preprocessor_config.json").unlink()
    assert not load_speech_encoder(folder, layer=0).config.normalize
    _edit(folder, feat_extract_norm="layer")
    with pytest.raises(ValueError, match="no preprocessor_config.json beside it.*copy it from the model's page"):
        load_speech_encoder(folder, layer=0)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"model_type": "llama"}, "config.json: model_type 'llama' is not one of wav2vec2, hubert, .*name the folder"),
        ({"model_type": "wavlm"}, "lacks wavlm.feature_projection|lacks .*gru_rel_pos|lacks .*rel_attn_embed"),
        ({"model_type": "whisper"}, "config.json: d_model, .* is missing; copy config.json"),
        ({"hidden_act": "relu"}, "config.json: hidden_act='relu' is not supported; use a model without it"),
        ({"add_adapter": True}, "config.json: add_adapter=True is not supported"),
        (
            {"hidden_size": 64},
            r"k_proj.bias makes \[48\] and \[64\] was expected by its config.json: they do not belong",
        ),
        ({"num_hidden_layers": 4}, "lacks encoder.layers.3.*do not belong together; copy both"),
        ({"conv_bias": True}, "lacks feature_extractor.conv_layers.0.conv.bias"),
        ({"num_attention_heads": 5}, "config.json: d_model=48 is not a multiple of n_heads=5"),
        (
            {"conv_dim": [24], "conv_kernel": [10], "conv_stride": [5]},
            r"conv_layers.1.conv.weight.*, which the hubert encoder of its config.json does not",
        ),
        ({"conv_stride": [5, 2]}, "config.json: conv_dims, conv_kernels and conv_strides have different lengths"),
    ],
)
def test_a_config_of_another_model_is_refused_by_name(folder, changes, message):
    _edit(folder, **changes)
    with pytest.raises(ValueError, match=message):
        load_speech_encoder(folder)


def _field(key: str, family: str, *values):
    return [(family, key, value) for value in values]


SIZES = (0, -3, 2.5, "768", True, None, [48], 10**30, 1 << 20)


@pytest.mark.parametrize(
    "family, key, value",
    [
        *_field("hidden_size", "hubert-base", *SIZES),
        *_field("num_hidden_layers", "hubert-base", *SIZES),
        *_field("num_attention_heads", "hubert-base", *SIZES),
        *_field("intermediate_size", "hubert-base", *SIZES),
        *_field("num_conv_pos_embeddings", "hubert-base", *SIZES),
        *_field("num_conv_pos_embedding_groups", "hubert-base", *SIZES, 5, 96),
        *_field("conv_dim", "hubert-base", 24, "2424242", [24] * 6 + [-1], [24] * 6 + ["24"], [], [24] * 1000),
        *_field("conv_kernel", "hubert-base", None, [10, 3, 3, 3, 3, 2, 0], [10, 3, 3, 3, 3, 2, 2.0]),
        *_field("conv_stride", "hubert-base", {}, [5, 2, 2, 2, 2, 2, 10**9], [60_000] * 7),
        *_field("layer_norm_eps", "hubert-base", 0, -1e-5, 2, "1e-5", float("nan"), float("inf")),
        *_field("conv_bias", "hubert-base", "false", 0, None),
        *_field("do_stable_layer_norm", "hubert-base", "false", None),
        *_field("feat_proj_layer_norm", "hubert-base", "true", []),
        *_field("feat_extract_norm", "hubert-base", None, 3, ["group"]),
        *_field("adapter_attn_dim", "mms", -1, "8", 2.5),
        *_field("conv_pos_batch_norm", "mhubert-25hz", "true", 1),
        *_field("num_buckets", "wavlm-base", 0, 2, "40", 320),  # of 30 frames at most
        *_field("max_bucket_distance", "wavlm-base", 0, 10, "30"),
        *_field("conv_pos_kernel_size", "data2vec", *SIZES),
        *_field("num_conv_pos_embeddings", "data2vec", *SIZES, 1000),
        *_field("model_type", "hubert-base", ["hubert"], {}, None, 3),
    ],
)
def test_absurd_values_in_config_json_are_refused_by_name(family, key, value):
    config = json.loads(make_model(family).config.to_json_string(use_diff=False)) | {key: value}
    with pytest.raises(ValueError, match=f"^a/config.json: (max_bucket_distance|{key})[= ]"):
        read_speech_config(config, {"do_normalize": True}, "a/config.json")


def test_absurd_values_in_a_whisper_config_and_a_preprocessor_are_refused_by_name():
    whisper = dict(model_type="whisper", d_model=8, encoder_layers=2, encoder_attention_heads=2, encoder_ffn_dim=8)
    whisper |= dict(num_mel_bins=80)
    assert read_speech_config(whisper, None, "a")["n_mels"] == 80
    for key in whisper.keys() - {"model_type"}:
        for value in (0, "8", 10**12, None):
            with pytest.raises(ValueError, match=f"^a: {key}=.* is not a whole number from 1 to 65536"):
                read_speech_config(whisper | {key: value}, None, "a")
    for preprocessor, message in (
        ({"do_normalize": "false"}, "preprocessor_config.json beside it: do_normalize='false' is not true or false"),
        ({"sampling_rate": 8000}, "sampling_rate=8000 in preprocessor_config.json.* 16,000 Hz"),
        ({"sampling_rate": "16000"}, "sampling_rate='16000' in preprocessor_config.json.* 16,000 Hz"),
    ):
        with pytest.raises(ValueError, match=f"^a.*{message}"):
            read_speech_config({"model_type": "hubert"}, preprocessor, "a")


@pytest.mark.parametrize("text", ["[1]", "null", "{", "[" * 100_000, "\udc80", '{"a": ' + "9" * 5000 + "}"])
def test_what_is_no_json_object_is_refused_by_name(folder, text):
    (folder / "config.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(ValueError, match="config.json is no JSON object.*copy it again"):
        load_speech_encoder(folder)


def test_tensors_that_do_not_belong_together_are_refused_by_name(tmp_path, folder):
    kernel = "encoder.pos_conv_embed.conv"
    for size, direction in (((1, 1, 5), (48, 12, 16)), ((48, 12, 16), (1, 1, 16)), ((), (48, 12, 16))):
        _rewrite(folder, lambda tensors: [tensors.pop(name) for name in list(tensors) if kernel + ".p" in name])
        values = {"weight_g": np.ones(size, np.float32), "weight_v": np.ones(direction, np.float32)}
        _rewrite(folder, lambda tensors, values=values: tensors.update({f"{kernel}.{n}": v for n, v in values.items()}))
        with pytest.raises(
            ValueError, match="conv.weight_g, .*conv.weight_v have shapes .* do not belong together|makes"
        ):
            load_speech_encoder(folder)
    _rewrite(folder, lambda tensors: tensors.update({f"{kernel}.weight_v": np.zeros((48, 12, 16), np.float32)}))
    with pytest.raises(ValueError, match="conv.weight_g, .*conv.weight_v have shapes .* do not belong together"):
        load_speech_encoder(folder)  # of no direction
    norm = "encoder.pos_conv_embed.batch_norm.running_var"
    for variance in (np.ones(47, np.float32), np.full(48, -1, np.float32)):
        batch = save_model(make_model("mhubert-25hz"), tmp_path / "batch")
        _rewrite(batch, lambda tensors, variance=variance: tensors.update({norm: variance}))
        with pytest.raises(ValueError, match="batch_norm.running_var have shapes .* do not belong together"):
            load_speech_encoder(batch)
    _rewrite(folder, lambda tensors: tensors.update({"lm_head.weight": np.ones((), np.float32)}))
    with pytest.raises(ValueError, match=r"lm_head.weight has shape \[\], not \[symbols, features\]: copy it again"):
        load_speech_encoder(folder, ctc=True)


def test_tensors_of_another_model_are_refused_by_name(folder):
    _rewrite(folder, lambda tensors: tensors.update({"encoder.layers.0.mlp.weight": np.zeros(2, np.float32)}))
    with pytest.raises(ValueError, match="model.safetensors has encoder.layers.0.mlp.weight, which the hubert encoder"):
        load_speech_encoder(folder)
    _rewrite(folder, lambda tensors: tensors.pop("encoder.layers.0.mlp.weight"))
    load_speech_encoder(folder)
    _rewrite(folder, lambda tensors: tensors.pop("encoder.pos_conv_embed.conv.bias"))
    with pytest.raises(ValueError, match="lacks encoder.pos_conv_embed.conv.bias"):
        load_speech_encoder(folder)
    bias = "encoder.pos_conv_embed.conv.bias"
    _rewrite(folder, lambda tensors: [tensors.pop(name) for name in list(tensors) if "pos_conv" in name])
    _rewrite(folder, lambda tensors: tensors.update({bias: np.zeros(48, np.float32)}))
    with pytest.raises(ValueError, match="lacks encoder.pos_conv_embed.conv.weight, also as weight_g and weight_v"):
        load_speech_encoder(folder)


@pytest.mark.parametrize(
    "family, changes, tensor",
    [
        ("wavlm-base", dict(model_type="hubert"), "attention.gru_rel_pos_const"),
        ("mhubert-25hz", dict(conv_pos_batch_norm=False), "pos_conv_embed.batch_norm.bias"),
        ("hubert-large", dict(num_hidden_layers=2), "encoder.layers.2.attention.k_proj.bias"),
        ("hubert-large", dict(feat_extract_norm="group"), "conv_layers.1.layer_norm.bias"),
    ],
)
def test_tensors_that_would_go_unused_are_refused(family, changes, tensor, tmp_path):
    folder = save_model(make_model(family), tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))
    with pytest.raises(
        ValueError, match=f"has .*{tensor}.*, which the hubert encoder of its config.json does not have"
    ):
        load_speech_encoder(folder, layer=1)


def test_what_the_encoder_cannot_give_is_refused(folder, tmp_path):
    with pytest.raises(ValueError, match="config.json: layer=4 is not one of the model's: use 0 to 3, or -1"):
        load_speech_encoder(folder, layer=4)
    with pytest.raises(ValueError, match="lacks lm_head.weight: it has no CTC head; use a ...ForCTC model"):
        load_speech_encoder(folder, ctc=True)
    with pytest.raises(ValueError, match="language='eng', but the model has no adapters"):
        save_file({"a": np.zeros(1, np.float32)}, folder / "adapter.eng.safetensors")
        load_speech_encoder(folder, language="eng")
    with pytest.raises(ValueError, match="has no config.json; name a folder with a model"):
        load_speech_encoder(tmp_path)


def test_what_config_json_leaves_out_is_what_transformers_takes():
    for kind, cls in (
        ("hubert", "Hubert"),
        ("wav2vec2", "Wav2Vec2"),
        ("wavlm", "WavLM"),
        ("data2vec-audio", "Data2VecAudio"),
    ):
        whole = json.loads(getattr(transformers, f"{cls}Config")().to_json_string(use_diff=False))
        sparse = {"model_type": kind}
        preprocessor = {"do_normalize": False}
        assert read_speech_config(whole, preprocessor, "a") == read_speech_config(sparse, preprocessor, "a")


def test_the_mean_over_all_layers_is_that_of_transformers(tmp_path):
    clip, folder = make_clips([4000]), save_model(make_model("hubert-base"), tmp_path, do_normalize=False)
    encoder = load_speech_encoder(folder, all_layers=True)
    with torch.no_grad():
        states = make_model("hubert-base")(torch.tensor(clip[0])[None], output_hidden_states=True).hidden_states
    assert len(states) == encoder.config.n_layers + 1
    np.testing.assert_allclose(_run(encoder, clip)[0][0], torch.stack(states).mean(0)[0], atol=2e-5)
    with pytest.raises(ValueError, match="all_layers=True is the mean over layers"):
        load_speech_encoder(folder, layer=1, all_layers=True)
