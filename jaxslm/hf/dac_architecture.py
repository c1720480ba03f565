"""DAC of Hugging Face: tensor names, and what config.json says of its shape (transformers, models/dac).

Released folders hold folded weights. Quantizers of all levels are stacked in ours: their names have `{}` for the level.
"""

import re
from collections.abc import Mapping
from typing import Any

from jaxslm.hf.speech_architectures import _value as read_value

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
    channels = value("encoder_hidden_size", 64)
    dim = value("hidden_size", channels * 2 ** len(ratios))
    upsampling = tuple(value("upsampling_ratios", ratios[::-1]))
    if upsampling != ratios[::-1]:
        raise ValueError(
            f"{where}: upsampling_ratios={list(upsampling)} are not downsampling_ratios={list(ratios)} the other way "
            "round; copy the file from the model's page again"
        )
    network = dict(kind="dac", ratios=ratios)
    return dict(
        sample_rate=value("sampling_rate", 16_000),
        dim=dim,
        encoder=network | dict(channels=channels),
        decoder=network | dict(decoder_channels=value("decoder_hidden_size", 1536)),
        quantizer=dict(
            kind="rvq",
            n_levels=value("n_codebooks", 9),
            codebook_size=value("codebook_size", 1024),
            codebook_dim=value("codebook_dim", 8),
            projection="level",
            l2=True,
            learning="gradient",
            dropout=float(theirs.get("quantizer_dropout") or 0.0),
        ),
    )


def theirs(ours: str) -> str:
    """The name of their tensor for the path of a parameter of a Codec."""
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
