"""DAC of Hugging Face: tensor names, and what config.json says of its shape (transformers, models/dac).

Released folders hold folded weights. Quantizers of all levels are stacked in ours: their names have `{}` for the level.
See encodec_architecture.py.
"""

import re
from collections.abc import Mapping
from typing import Any

from jaxslm.codec.model import CodecConfig
from jaxslm.hf.config_file import check_small, read_number, read_value
from jaxslm.hf.encodec_architecture import MAX_LAYERS, check_fields, codebook_size, feature_extractor

MODEL = "DacModel"
WEIGHT_NORM = False
BESIDE = r"(?!)"  # none
CODEBOOK = {"weight": "codes"}

_QUANTIZER = {
    "quantizer/level_in/weight": "in_proj.weight",
    "quantizer/level_in/bias": "in_proj.bias",
    "quantizer/level_out/weight": "out_proj.weight",
    "quantizer/level_out/bias": "out_proj.bias",
    "quantizer/codes": "codebook.weight",
}
_UNIT = ("snake1", "conv1", "snake2", "conv2")


def codec_config(theirs: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Fields of CodecConfig. Raises ValueError naming the file, the field and the cure."""

    def value(key: str, default: Any) -> Any:
        return read_value(theirs, key, default, where)

    ratios = tuple(value("downsampling_ratios", (2, 4, 8, 8)))
    check_small({"downsampling_ratios": len(ratios)}, MAX_LAYERS, where)
    channels = value("encoder_hidden_size", 64)
    dim = value("hidden_size", channels * 2 ** len(ratios))
    upsampling = tuple(value("upsampling_ratios", ratios[::-1]))
    if upsampling != ratios[::-1]:
        raise ValueError(
            f"{where}: upsampling_ratios={list(upsampling)} are not downsampling_ratios={list(ratios)} the other way "
            "round; copy the file from the model's page again"
        )
    network = dict(kind="dac", ratios=ratios, norm="none")
    return dict(
        sample_rate=value("sampling_rate", 16_000),
        dim=dim,
        encoder=network | dict(channels=channels),
        decoder=network | dict(channels=value("decoder_hidden_size", 1536)),
        quantizer=dict(
            kind="rvq",
            n_levels=value("n_codebooks", 9),
            codebook_size=value("codebook_size", 1024),
            codebook_dim=value("codebook_dim", 8),
            projection="level",
            l2=True,
            learning="gradient",
            dropout=read_number(theirs, "quantizer_dropout", 0.0, where, 1.0),
        ),
    )


def theirs(ours: str, config: CodecConfig) -> str | None:
    """The name of their tensor for the path of a parameter of a Codec; None where it is 1."""
    if ours.startswith("quantizer/codebooks/"):
        return None
    if ours in _QUANTIZER:
        return f"quantizer.quantizers.{{}}.{_QUANTIZER[ours]}"
    network, (layer, *inside) = ours.split("/")[0], map(int, re.findall(r"layers/(\d+)", ours))
    leaf = ours.rsplit("/", 1)[1]
    encodes = network == "encoder"
    stage = layer - 2 if encodes else layer - 1  # before the stages: whole hops and a convolution, or one alone
    if len(inside) == 2:
        unit, i = inside
        return f"{network}.block.{stage}.res_unit{unit + 1 if encodes else unit - 1}.{_UNIT[i]}.{leaf}"
    if inside:
        part = "snake1" if leaf == "alpha" else "conv1" if encodes else "conv_t1"
        return f"{network}.block.{stage}.{part}.{leaf}"
    return f"{network}.{'snake1' if leaf == 'alpha' else 'conv1' if stage < 0 else 'conv2'}.{leaf}"


def codebook_prefix(ours: str, config: CodecConfig) -> str:
    """What stands before the keys of CODEBOOK for the codebooks of our name."""
    return "quantizer.quantizers.{}.codebook."


def config_json(config: CodecConfig) -> dict[str, Any]:
    """config.json of a codec that computes the same, but for samples that DAC of transformers loses at the end where
    strides are odd. Raises ValueError naming a field that DAC does not have.
    """
    check_fields("DAC", {f"{name}.kind": (getattr(config, name)["kind"], "dac") for name in ("encoder", "decoder")})
    encoder, decoder, quantizer = config.parts
    wanted = dict(ratios=(encoder.ratios,), dilations=((1, 3, 9),), activation="snake", alias_free=False, lstm=0)
    wanted["causal"] = False
    for where, network in (("encoder", encoder), ("decoder", decoder)):
        check_fields("DAC", {f"{where}.{name}": (getattr(network, name), value) for name, value in wanted.items()})
    check_fields(
        "DAC",
        {
            "dim": (config.dim, encoder.channels * 2 ** len(encoder.ratios)),
            "quantizer.kind": (quantizer.kind, "rvq"),
            "quantizer.projection": (quantizer.projection, "level"),
            "quantizer.l2": (quantizer.l2, True),
        },
    )
    return dict(
        model_type="dac",
        sampling_rate=config.sample_rate,
        encoder_hidden_size=encoder.channels,
        decoder_hidden_size=decoder.channels,
        downsampling_ratios=list(encoder.ratios),
        n_codebooks=quantizer.n_levels,
        codebook_size=codebook_size(config, "DAC"),
        codebook_dim=quantizer.code_dim,
        quantizer_dropout=quantizer.dropout,
    )


def preprocessor_json(config: CodecConfig) -> dict[str, Any]:
    """preprocessor_config.json."""
    return feature_extractor(config, "DacFeatureExtractor") | dict(hop_length=config.hop)
