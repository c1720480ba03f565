"""EnCodec of Hugging Face: tensor names, and what config.json says of its shape (transformers, models/encodec).

Our name is the path of a parameter in a Codec; a name of theirs has `{}` for the number of a level, of which ours are
stacked.
"""

import dataclasses
import math
import re
import reprlib
from collections.abc import Mapping
from typing import Any

from jaxslm.codec.model import CodecConfig
from jaxslm.codec.seanet import SEANetConfig
from jaxslm.hf.config_file import MAX_SIZE, check_neutral, check_small, read_number, read_value

MODEL = "EncodecModel"
MAX_LAYERS = 16  # of anything that is not stacked
WEIGHT_NORM = True  # its modules take sizes and directions of kernels, not kernels
# Of each level, beside the codes: what only training needs, written so that nothing is found missing.
BESIDE = r"quantizer\.layers\.\d+\.codebook\.(embed_avg|cluster_size|inited)"
CODEBOOK = {"embed": "codes", "embed_avg": "sums", "cluster_size": "usage", "inited": "started"}

# Their key: our field, and the value that transformers leaves out of config.json.
_SIZES = {
    "num_filters": ("n_filters", 32),
    "num_residual_layers": ("n_residual", 1),
    "kernel_size": ("kernel", 7),
    "last_kernel_size": ("last_kernel", 7),
    "residual_kernel_size": ("residual_kernel", 3),
    "dilation_growth_rate": ("dilation_base", 2),
    "compress": ("compress", 2),
    "use_causal_conv": ("causal", True),
}
_PADS = {"constant": "zero", "reflect": "reflect", "replicate": "edge"}
_NEUTRAL = {
    "audio_channels": (1,),
    "normalize": (False,),
    "chunk_length_s": (None,),
    "norm_type": ("weight_norm",),
    "quantization_config": (None,),
}
_LSTM = {
    "input_weight": ("weight_ih_l{}",),
    "state_weight": ("weight_hh_l{}",),
    "bias": ("bias_ih_l{}", "bias_hh_l{}"),  # only their sum counts
}


def seanet_fields(theirs: Mapping[str, Any], where: str, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """{"kind": "seanet"} and fields of SEANetConfig. defaults: of fields whose default is not EnCodec's."""
    sizes = {key: (name, defaults.get(key, default)) for key, (name, default) in _SIZES.items()}
    ours = {name: read_value(theirs, key, default, where) for key, (name, default) in sizes.items()}
    shortcut = read_value(theirs, "use_conv_shortcut", defaults.get("use_conv_shortcut", True), where)
    pad = read_value(theirs, "pad_mode", defaults.get("pad_mode", "reflect"), where)
    if pad not in _PADS:
        raise ValueError(f"{where}: pad_mode={reprlib.repr(pad)} is not one of {', '.join(_PADS)}; use such a model")
    ratios = read_value(theirs, "upsampling_ratios", defaults.get("upsampling_ratios", (8, 5, 4, 2)), where)
    check_small({"upsampling_ratios": len(ratios), "num_residual_layers": ours["n_residual"]}, MAX_LAYERS, where)
    return dict(
        ours,
        kind="seanet",
        ratios=tuple(reversed(ratios)),
        true_skip=not shortcut,
        pad=_PADS[pad],
        norm="none",
        trim_right_ratio=read_number(theirs, "trim_right_ratio", 1.0, where, 1.0),
    )


def codec_config(theirs: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Fields of CodecConfig. Raises ValueError naming the file, the field and the cure."""
    check_neutral(theirs, _NEUTRAL, where)
    lstm = read_value(theirs, "num_lstm_layers", 2, where)
    check_small({"num_lstm_layers": lstm}, MAX_LAYERS, where)
    network = seanet_fields(theirs, where, {}) | dict(lstm=lstm)
    rate = read_value(theirs, "sampling_rate", 24_000, where)
    dim = read_value(theirs, "hidden_size", 128, where)
    size = read_value(theirs, "codebook_size", 1024, where)
    if (theirs.get("codebook_dim") or dim) != dim:
        raise ValueError(f"{where}: codebook_dim={theirs['codebook_dim']} is not hidden_size={dim}; copy it again")
    widths = theirs.get("target_bandwidths", (1.5, 3.0, 6.0, 12.0, 24.0))
    n_levels = 0
    if isinstance(widths, (list, tuple)) and widths and type(widths[-1]) in (int, float):
        width = min(max(widths[-1], 0), MAX_SIZE)
        n_levels = int(1000 * width // (_frame_rate(rate, network["ratios"]) * max(1, math.ceil(math.log2(size)))))
    if n_levels < 1:
        raise ValueError(
            f"{where}: target_bandwidths={reprlib.repr(widths)} does not end with the kbit/s of at least one level; "
            "copy the file from the model's page again"
        )
    quantizer = dict(kind="rvq", n_levels=n_levels, codebook_size=size)
    return dict(sample_rate=rate, dim=dim, encoder=network, decoder=network, quantizer=quantizer)


def _frame_rate(sample_rate: int, ratios: tuple[int, ...]) -> int:
    """Frames a second as transformers counts them for a bandwidth."""
    return math.ceil(sample_rate / math.prod(ratios))


def seanet_name(network: str, layer: int, inside: str) -> str | tuple[str, ...]:
    """Of the parameter `inside` a layer of the encoder or decoder; two names where ours is the sum of theirs."""
    if lstm := re.fullmatch(r"forward/(\d+)/(\w+)", inside):
        names = tuple(f"{network}.layers.{layer}.lstm.{name.format(lstm[1])}" for name in _LSTM[lstm[2]])
        return names if len(names) > 1 else names[0]
    *path, leaf = inside.replace("block/layers/", "block/").split("/")
    return ".".join([network, "layers", str(layer), *path, "conv", leaf])


def theirs(ours: str, config: CodecConfig) -> str | tuple[str, ...] | None:
    """The name of their tensor for the path of a parameter of a Codec; None where it is 1."""
    if ours.startswith("quantizer/"):
        return "quantizer.layers.{}.codebook.embed" if ours.endswith(("/sums_QxKxC", "/codes")) else None
    network, _, layer, inside = ours.split("/", 3)
    return seanet_name(network, int(layer), inside)


def codebook_prefix(ours: str, config: CodecConfig) -> str:
    """What stands before the keys of CODEBOOK for the codebooks of our name."""
    return "quantizer.layers.{}.codebook."


def check_fields(family: str, fields: Mapping[str, tuple[Any, Any]]) -> None:
    """Raises ValueError naming a field whose value is not that (or one of those, in a tuple) that the family has."""
    for name, (value, wanted) in fields.items():
        if value not in (wanted if isinstance(wanted, tuple) else (wanted,)):
            raise ValueError(
                f"{name}={value!r} cannot be written: {family} of transformers has {wanted!r} there; keep the codec as "
                "it is, or train one with that"
            )


def seanet_config(config: CodecConfig, family: str) -> SEANetConfig:
    """That of both halves. Raises ValueError naming a field that they do not share or that the family lacks."""
    check_fields(family, {f"{name}.kind": (getattr(config, name)["kind"], "seanet") for name in ("encoder", "decoder")})
    encoder, decoder, _ = config.parts
    for field in dataclasses.fields(SEANetConfig):
        if field.name != "norm":  # folded
            value = getattr(encoder, field.name)
            check_fields(family, {f"decoder.{field.name}": (getattr(decoder, field.name), (value,))})
    check_fields(family, {"encoder.activation": (encoder.activation, "elu")})
    check_fields(family, {"encoder.bidirectional": (encoder.bidirectional, False)})
    return encoder


def codebook_size(config: CodecConfig, family: str) -> int:
    """Raises ValueError for a number of codes that the family refuses."""
    size = config.parts[2].codebook_size
    if size & (size - 1):
        raise ValueError(f"quantizer.codebook_size={size} cannot be written: {family} of transformers has powers of 2")
    return size


def seanet_json(config: SEANetConfig) -> dict[str, Any]:
    """What config.json has of it."""
    sizes = {key: getattr(config, name) for key, (name, _) in _SIZES.items()}
    return sizes | dict(
        audio_channels=1,
        upsampling_ratios=list(reversed(config.ratios)),
        use_conv_shortcut=not config.true_skip,
        pad_mode={ours: key for key, ours in _PADS.items()}[config.pad],
        trim_right_ratio=config.trim_right_ratio,
    )


def config_json(config: CodecConfig) -> dict[str, Any]:
    """config.json of a codec that computes the same. Raises ValueError naming a field that EnCodec does not have."""
    seanet, quantizer = seanet_config(config, "EnCodec"), config.parts[2]
    check_fields(
        "EnCodec",
        {
            "encoder.transformer": (seanet.transformer, (None,)),
            "encoder.downsample": (seanet.downsample, 0),
            "quantizer.kind": (quantizer.kind, "rvq"),
            "quantizer.projection": (quantizer.projection, "none"),
            "quantizer.l2": (quantizer.l2, False),
        },
    )
    if not seanet.lstm:
        raise ValueError("encoder.lstm=0 cannot be written: EnCodec of transformers has at least one layer there")
    size = codebook_size(config, "EnCodec")
    # kbit/s of each number of levels; a little more, which rounding takes away again.
    of_level = math.log2(size) * _frame_rate(config.sample_rate, seanet.ratios) / 1000 * (1 + 1e-9)
    return seanet_json(seanet) | dict(
        model_type="encodec",
        sampling_rate=config.sample_rate,
        hidden_size=config.dim,
        codebook_dim=config.dim,
        codebook_size=size,
        num_lstm_layers=seanet.lstm,
        target_bandwidths=[n * of_level for n in range(1, quantizer.n_levels + 1)],
        norm_type="weight_norm",
        normalize=False,
        chunk_length_s=None,
        overlap=None,
    )


def preprocessor_json(config: CodecConfig) -> dict[str, Any]:
    """preprocessor_config.json."""
    more = dict(return_attention_mask=True, chunk_length_s=None, overlap=None)
    return feature_extractor(config, "EncodecFeatureExtractor") | more


def feature_extractor(config: CodecConfig, kind: str) -> dict[str, Any]:
    """What every preprocessor_config.json of a mono codec says."""
    return dict(
        feature_extractor_type=kind,
        sampling_rate=config.sample_rate,
        feature_size=1,
        padding_side="right",
        padding_value=0.0,
    )
