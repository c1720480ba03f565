"""Folders of codecs that are not as they should be, and codecs that cannot be written. Parity is in tests/parity."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jaxslm.codec.identity import codec_sha256
from jaxslm.codec.model import Codec, CodecConfig
from jaxslm.hf.codec import load_codec, save_codec

FILE = "model.safetensors"
SEANET = dict(kind="seanet", n_filters=4, ratios=(2, 3), n_residual=1, residual_kernel=3, compress=2)
QUANTIZER = dict(n_levels=2, codebook_size=16, kmeans_iterations=0)


def make(network: dict, quantizer: dict, **decoder) -> CodecConfig:
    return CodecConfig(sample_rate=120, dim=8, encoder=network, decoder=network | decoder, quantizer=quantizer)


def initialized(config: CodecConfig) -> Codec:
    """Of seeded noise: no program to compile for each parameter."""
    draws = np.random.default_rng(0)

    def draw(leaf):
        whole = np.issubdtype(leaf.dtype, np.integer)
        return (
            jnp.zeros(leaf.shape, leaf.dtype) if whole else jnp.asarray(draws.normal(size=leaf.shape) / 4, leaf.dtype)
        )

    return jax.tree.map(draw, jax.eval_shape(lambda key: Codec(config, key), jax.random.key(0)))


CONFIGS = {
    "encodec": make(SEANET | dict(lstm=1), QUANTIZER),
    "mimi": make(
        SEANET | dict(downsample=2, transformer=dict(n_layers=2, n_heads=2, d_ff=12, window=5)),
        QUANTIZER | dict(kind="split_rvq", n_levels=3, projection="shared", codebook_dim=4),
    ),
}

DAC = dict(kind="dac", ratios=(2, 3), channels=2)
DAC_QUANTIZER = QUANTIZER | dict(codebook_dim=4, projection="level", l2=True, learning="gradient")


@pytest.fixture(scope="module")
def codecs():
    return {kind: initialized(config) for kind, config in CONFIGS.items()}


@pytest.fixture(params=CONFIGS)
def folder(request, codecs, tmp_path):
    save_codec(codecs[request.param], tmp_path / request.param)
    return tmp_path / request.param


def _rewrite(folder, change) -> None:
    tensors = load_file(folder / FILE)
    change(tensors)
    save_file(tensors, folder / FILE)


def _edit(folder, **changes) -> None:
    read = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps({k: v for k, v in read.items() if v is not ...}))


def test_what_is_written_with_weight_norm_is_read_without(folder, codecs):
    codec = codecs[folder.name]
    read = load_codec(folder)
    assert read.encoder.layers[0].direction is None and codec.encoder.layers[0].direction is not None
    assert read.hop == codec.hop and read.frame_rate == codec.frame_rate
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 5 * codec.hop)), jnp.float32)
    run = jax.jit(lambda codec, x: codec.decode(codec.encode(x)))
    np.testing.assert_allclose(run(read, x), run(codec, x), atol=1e-5)


@pytest.mark.parametrize("name", ["encoder.layers.3.conv", "decoder.layers.0.conv"])
def test_missing_misshapen_unknown_and_broken_tensors_are_refused_by_name(folder, name):
    whole = load_file(folder / FILE)
    weight = next(n for n in whole if n in (f"{name}.weight", f"{name}.weight_v"))

    def refused(match: str, tensors: dict) -> None:
        save_file(tensors, folder / FILE)
        with pytest.raises(ValueError, match=match):
            load_codec(folder)

    rest = {n: value for n, value in whole.items() if n != weight}
    refused(f"lacks {name}.weight, also as weight_g and weight_v|which the", rest)
    refused(f"lacks {name}.bias", {n: value for n, value in whole.items() if n != f"{name}.bias"})
    refused(f"{name}.weight.*do not belong together", rest | {weight: whole[weight][:-1]})
    refused(f"{name}.bias makes .3. and", whole | {f"{name}.bias": np.ones(3, np.float32)})
    broken = np.array(whole[weight])
    broken[0, 0, 0] = np.nan
    refused(f"{weight} has values that are not finite", rest | {weight: broken})
    refused("has encoder.layers.99.conv.bias, which", whole | {"encoder.layers.99.conv.bias": np.ones(3, np.float32)})


def test_codebooks_are_refused_by_name(folder):
    key = "embed_sum" if folder.name == "mimi" else "embed"
    whole = load_file(folder / FILE)
    name = sorted(n for n in whole if n.endswith(f".codebook.{key}"))[0]
    save_file({n: value for n, value in whole.items() if n != name}, folder / FILE)
    with pytest.raises(ValueError, match=f"lacks {name}"):
        load_codec(folder)


BOTH = {
    "audio_channels": 2,
    "pad_mode": "circular",
    "upsampling_ratios": [1] * 40,
    "num_residual_layers": 60_000,
    "sampling_rate": 10**9,
    "num_filters": "four",
    "trim_right_ratio": 1.5,
    "compress": 3,
    "model_type": "bert",
    "use_causal_conv": 1,
}
ENCODEC = {
    "normalize": True,
    "chunk_length_s": 1.0,
    "norm_type": "time_group_norm",
    "target_bandwidths": ["a"],
    "num_lstm_layers": 60_000,
    "codebook_dim": 4,
}
MIMI = {
    "hidden_act": "relu",
    "num_key_value_heads": 1,
    "head_dim": 2,
    "upsample_groups": 1,
    "attention_bias": True,
    "rope_parameters": {"rope_type": "yarn"},
    "encoder_config": None,
    "frame_rate": 20.0,
    "vector_quantization_hidden_dimension": 5,
    "num_semantic_quantizers": 3,
    "norm_eps": "small",
}


def test_fields_that_are_not_known_here_are_refused_by_name(folder):
    before = (folder / "config.json").read_text()
    for key, value in (BOTH | (MIMI if folder.name == "mimi" else ENCODEC)).items():
        _edit(folder, **{key: value})
        said = {"num_semantic_quantizers": "n_semantic", "rope_parameters": "rope_type"}.get(key, key)
        with pytest.raises(ValueError, match=f"config.json.*{said}"):
            load_codec(folder)
        (folder / "config.json").write_text(before)
    load_codec(folder)


def test_dac_is_read_as_it_was_written_and_refuses_other_fields(tmp_path):
    codec, folder = initialized(make(DAC | dict(norm="none"), DAC_QUANTIZER, channels=8)), tmp_path / "dac"
    save_codec(codec, folder)
    read = load_codec(folder)
    pairs = zip(
        jax.tree.leaves((codec.encoder, codec.decoder)), jax.tree.leaves((read.encoder, read.decoder)), strict=True
    )
    assert all((a == b).all() for a, b in pairs) and (read.quantizer.codes[...] == codec.quantizer.codes[...]).all()
    assert codec_sha256(read) == codec_sha256(codec)  # at widths that are not the usual ones
    before = (folder / "config.json").read_text()
    for key, value in (("upsampling_ratios", [2, 3]), ("codebook_dim", 0), ("quantizer_dropout", 2)):
        _edit(folder, **{key: value})
        with pytest.raises(ValueError, match=f"config.json.*{key}"):
            load_codec(folder)
        (folder / "config.json").write_text(before)
    whole = load_file(folder / FILE)
    for name in ("encoder.block.0.res_unit1.snake1.alpha", "quantizer.quantizers.1.codebook.weight"):
        save_file(whole | {name: whole[name][..., :1, :1][:, :1]}, folder / FILE)
        with pytest.raises(ValueError, match=f"{name} makes"):
            load_codec(folder)


def test_pickled_weights_are_refused(folder):
    (folder / FILE).rename(folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match="pickled weights only .*AutoModel"):
        load_codec(folder)


NOT_WRITTEN = {
    "encoder.lstm=0": make(SEANET, QUANTIZER),
    "encoder.activation='snake'": make(SEANET | dict(lstm=1, activation="snake"), QUANTIZER),
    "encoder.downsample=2": make(SEANET | dict(lstm=1, downsample=2), QUANTIZER),
    "quantizer.codebook_size=12": make(SEANET | dict(lstm=1), QUANTIZER | dict(codebook_size=12)),
    "quantizer.kind='grouped_rvq'": make(SEANET | dict(lstm=1), QUANTIZER | dict(kind="grouped_rvq")),
    "quantizer.l2=True": make(SEANET | dict(lstm=1), QUANTIZER | dict(l2=True)),
    "decoder.kernel=7": dataclasses.replace(CONFIGS["encodec"], encoder=SEANET | dict(lstm=1, kernel=5)),
    "encoder.lstm=1": make(CONFIGS["mimi"].encoder | dict(lstm=1), CONFIGS["mimi"].quantizer),
    "encoder.downsample=0": make(CONFIGS["mimi"].encoder | dict(downsample=0), CONFIGS["mimi"].quantizer),
    "quantizer.kind='rvq'": make(CONFIGS["mimi"].encoder, QUANTIZER),
    "decoder.kind='seanet'": CodecConfig(120, 8, DAC, SEANET, DAC_QUANTIZER),
    "encoder.dilations=.1, 3.": make(DAC | dict(dilations=(1, 3)), DAC_QUANTIZER, channels=8),
    "encoder.causal=True": make(DAC | dict(causal=True), DAC_QUANTIZER, channels=8),
    "dim=8": make(DAC | dict(channels=3), DAC_QUANTIZER, channels=8),
    "quantizer.l2=False": make(DAC, DAC_QUANTIZER | dict(l2=False), channels=8),
}


@pytest.mark.parametrize("field", NOT_WRITTEN)
def test_what_transformers_does_not_have_is_not_written(field, codecs, tmp_path):
    codec = codecs["encodec"]
    codec = jax.tree.map(lambda x: x, codec)
    codec.config = NOT_WRITTEN[field]
    with pytest.raises(ValueError, match=f"{field}.* cannot be written"):
        save_codec(codec, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_codecs_that_went_wrong_or_have_learnt_nothing_are_not_written(codecs, tmp_path):
    codec = jax.tree.map(lambda x: x, codecs["encodec"])
    codec.decoder.layers[0].bias[...] = codec.decoder.layers[0].bias[...].at[2].set(jnp.nan)
    with pytest.raises(ValueError, match="decoder/layers/0/bias has values that are not finite"):
        save_codec(codec, tmp_path / "out")
    unlearnt = initialized(make(SEANET | dict(lstm=1), QUANTIZER | dict(kmeans_iterations=5)))
    with pytest.raises(ValueError, match="quantizer: level 0 has seen no batch"):
        save_codec(unlearnt, tmp_path / "out")
    save_codec(codecs["encodec"], tmp_path / "out")
    with pytest.raises(ValueError, match="is there already"):
        save_codec(codecs["encodec"], tmp_path / "out")


def test_a_kernel_of_zeros_is_written_and_read(codecs, tmp_path):
    codec = codecs["encodec"].folded()
    weight = codec.encoder.layers[0].weight
    weight[...] = weight[...].at[..., 1].set(0)
    save_codec(codec, tmp_path / "out")
    np.testing.assert_allclose(load_codec(tmp_path / "out").encoder.layers[0].weight[...], weight[...], atol=1e-6)
