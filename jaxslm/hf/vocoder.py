"""Published unit vocoders as a `Vocoder`: checkpoints of speech-resynthesis, fairseq's unit HiFi-GAN and SpiRit-LM,
read without torch and without running what they name (torch_file.py).

A checkpoint is {"generator": state dict} of torch.save, or the state dict as safetensors, with config.json beside it;
speakers.txt and styles.txt there, a name a line, say what the ids of those mean.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxslm.acoustic.speaking import VocoderFacts
from jaxslm.acoustic.vocoder import Vocoder, VocoderConfig
from jaxslm.hf.checked_tensors import KERNELS, CheckedTensors
from jaxslm.hf.config_file import read_json, read_value
from jaxslm.hf.tensors import TensorFolder
from jaxslm.hf.torch_file import read_torch_file
from jaxslm.naming import parameter_name

# Names of ours and theirs, tried in this order.
NAMES = (
    (r"units/", "dict."),
    (r"conditions/pitch/", "f0_dict."),
    (r"conditions/style_code/", "style_dict."),
    (r"conditions/speaker/", "spkr."),
    (r"conditions/style/", "style."),
    (r"generator/first/", "conv_pre."),
    (r"generator/last/", "conv_post."),
    (r"generator/ups/(\d+)/", r"ups.\1."),
    (r"generator/blocks/(\d+)/dilated/(\d+)/", r"resblocks.\1.convs1.\2."),
    (r"generator/blocks/(\d+)/plain/(\d+)/", r"resblocks.\1.convs2.\2."),
    (r"durations/conv_(\d)/", r"dur_predictor.conv\1.0."),
    (r"durations/norm_(\d)/scale", r"dur_predictor.ln\1.weight"),
    (r"durations/norm_(\d)/", r"dur_predictor.ln\1."),
    (r"durations/project/", "dur_predictor.proj."),
)
LEFT_OUT = r"quantizer\..*"  # speech-resynthesis keeps the model that makes its pitch codes in the same file
TABLES = dict(f0_dict="n_pitches", style_dict="n_style_codes", spkr="n_speakers", style="n_styles")
# Settings that make another network, with the values that do not.
REFUSED = dict(embedder_params=None, lambda_commit_code=None, lambda_commit=None, f0_quant_num_bin=0)
PITCH_STEP = 0.005  # seconds between the frames of F0 that speech-resynthesis quantizes


def load_vocoder_file(place: str | Path) -> tuple[Vocoder, VocoderFacts]:
    """(vocoder without weight norm, its facts) of a checkpoint, or of a folder with one and config.json.

    Raises ValueError for a file that is no such checkpoint, settings of another network, missing, misshapen or unknown
    tensors, and values that are not finite; the message names the file, the tensor and the cure.
    """
    file = _find(Path(place))
    where = file.with_name("config.json")
    settings, source = read_json(where), _open(file)
    tables = {name.split(".")[0] for name in source.names()} & set(TABLES)
    counts = {TABLES[name]: source.shape(f"{name}.weight")[0] for name in tables if f"{name}.weight" in source}
    has_durations = any(name.startswith("dur_predictor.") for name in source.names())
    config = _config(settings, counts, has_durations, str(where))
    shapes = jax.eval_shape(lambda key: Vocoder(config, key), jax.random.key(0))
    tensors = CheckedTensors(file, lambda name: (source, name))
    leaves = {parameter_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(shapes)}
    _check_names(source, {_theirs(name) for name in leaves}, file)
    model = jax.tree_util.tree_map_with_path(
        lambda path, leaf: _parameter(tensors, parameter_name(path), leaf, file), shapes
    )
    names = {
        kind: _names(file.with_name(f"{kind}.txt"), getattr(config, f"n_{kind}")) for kind in ("speakers", "styles")
    }
    return model, VocoderFacts(config, **names)


class StateDict:
    """A state dict in memory, read as the tensors of a folder (`CheckedTensors`)."""

    def __init__(self, state: Mapping[str, np.ndarray], file: Path):
        self._state, self._file = state, file

    def __contains__(self, name: str) -> bool:
        return name in self._state

    def names(self) -> list[str]:
        return list(self._state)

    def shape(self, name: str) -> tuple[int, ...]:
        return self._state[name].shape

    def read(self, name: str) -> np.ndarray:
        return self._state[name]

    def where(self, name: str) -> Path:
        return self._file


def _find(place: Path) -> Path:
    if place.is_file():
        return place
    found = [path for pattern in ("*.safetensors", "*.pt", "*.pth", "g_*") for path in sorted(place.glob(pattern))]
    if len(found) != 1:
        raise ValueError(
            f"{place} has {len(found)} checkpoints of a vocoder (*.safetensors, *.pt, *.pth, g_*): name the file itself"
        )
    return found[0]


def _open(file: Path) -> TensorFolder | StateDict:
    if file.suffix == ".safetensors":
        return TensorFolder(file.parent, [file.name])
    read = read_torch_file(file)
    state = read.get("generator") if isinstance(read, dict) else None
    if not isinstance(state, dict) or not all(isinstance(value, np.ndarray) for value in state.values()):
        raise ValueError(f"{file} has no state dict under 'generator': name the checkpoint of a unit vocoder (g_...)")
    return StateDict(state, file)


def _config(theirs: Mapping[str, Any], counts: Mapping[str, int], has_durations: bool, where: str) -> VocoderConfig:
    for key, neutral in REFUSED.items():
        if theirs.get(key, neutral) not in (neutral, None, False):
            raise ValueError(f"{where}: {key}={theirs[key]!r} is of a vocoder that is not known here: use one without")
    if str(theirs.get("resblock", "1")) != "1":
        raise ValueError(f"{where}: resblock={theirs['resblock']!r}; only '1' (HiFi-GAN V1, V2) is known here")
    size = lambda key, default: read_value(theirs, key, default, where)  # noqa: E731
    rate, hop = size("sampling_rate", 16_000), size("code_hop_size", 320)
    blocks = theirs.get("resblock_dilation_sizes", [[1, 3, 5]] * 3)
    if not isinstance(blocks, list) or not all(isinstance(each, list) for each in blocks):
        raise ValueError(f"{where}: resblock_dilation_sizes={blocks!r} is no list of lists; copy the file again")
    generator = dict(
        ratios=size("upsample_rates", [5, 4, 4, 2, 2]),
        kernels=size("upsample_kernel_sizes", [11, 8, 8, 4, 4]),
        channels=size("upsample_initial_channel", 512),
        block_kernels=size("resblock_kernel_sizes", [3, 7, 11]),
        dilations=[read_value({"resblock_dilation_sizes": d}, "resblock_dilation_sizes", [1], where) for d in blocks],
        norm="none",
    )
    fields = theirs.get("dur_predictor_params") or {}
    durations = dict(
        hidden=read_value(fields, "var_pred_hidden_dim", 128, where),
        kernel=read_value(fields, "var_pred_kernel_size", 3, where),
        dropout=float(fields.get("var_pred_dropout", 0.5)),
    )
    try:
        return VocoderConfig(
            sample_rate=rate,
            frame_rate=rate / hop,
            n_units=size("num_embeddings", 100),
            dim=size("embedding_dim", 128),
            pitch_frames=max(1, round(_pitch_hop(theirs, rate) / hop)),
            style_frames=max(1, round(size("style_hop_size", 25 * hop) / hop)),
            generator=generator,
            durations=durations if has_durations else None,
            **counts,
        )
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: {error}") from error


def _pitch_hop(theirs: Mapping[str, Any], rate: int) -> float:
    """Samples of a pitch code: as the file says it, or by the strides of speech-resynthesis' F0 quantizer."""
    if "f0_hop_size" in theirs:
        return read_value(theirs, "f0_hop_size", 1, "config.json")
    encoder = (theirs.get("f0_quantizer") or {}).get("f0_encoder_params") or dict(downs_t=[4], strides_t=[2])
    strides = zip(encoder["strides_t"], encoder["downs_t"], strict=True)
    return PITCH_STEP * rate * float(np.prod([stride**down for stride, down in strides]))


def _theirs(ours: str) -> str:
    for pattern, theirs in NAMES:
        if re.match(pattern, ours):
            return re.sub(f"^{pattern}", theirs, ours)
    raise AssertionError(ours)


def _is_kernel(ours: str) -> bool:
    return ours.startswith("generator/") and ours.endswith("/weight")


def _check_names(source: TensorFolder | StateDict, wanted: set[str], file: Path) -> None:
    known = wanted | {k.format(n.removesuffix(".weight")) for n in wanted for spelling in KERNELS for k in spelling}
    unknown = [name for name in source.names() if name not in known and not re.fullmatch(LEFT_OUT, name)]
    if unknown:
        raise ValueError(
            f"{file} has {', '.join(unknown[:3])}{' and more' if len(unknown) > 3 else ''}, which this vocoder has "
            "not: the config.json beside it is of another model; copy both from one"
        )


def _parameter(tensors: CheckedTensors, ours: str, leaf: jax.ShapeDtypeStruct, file: Path) -> jax.Array:
    theirs = _theirs(ours)
    value = tensors.kernel(theirs.removesuffix(".weight")) if _is_kernel(ours) else tensors.read(theirs)
    if ours.startswith(("generator/", "durations/")) and ours.endswith("weight"):
        value = value.transpose()
    if value.shape != leaf.shape:
        raise ValueError(
            f"{file}: {theirs} has shape {list(value.shape)} (axes as here) where {list(leaf.shape)} is expected by "
            "the config.json beside it: copy both from one model"
        )
    return jnp.asarray(value, leaf.dtype)


def _names(file: Path, count: int) -> tuple[str, ...]:
    """Of `count` ids, as the file has them, else their numbers."""
    if not count or not file.is_file():
        return tuple(map(str, range(count)))
    names = tuple(line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip())
    if len(names) > count:
        raise ValueError(f"{file} has {len(names)} names for {count} ids: copy it from the vocoder's own folder")
    return names + tuple(map(str, range(len(names), count)))
