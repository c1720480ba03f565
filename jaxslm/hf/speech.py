"""A Hugging Face folder as a `SpeechEncoder`, with its CTC head if wanted, or as a `WhisperEncoder`."""

import dataclasses
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxslm.hf.checked_tensors import KERNELS, CheckedTensors
from jaxslm.hf.config_file import read_json
from jaxslm.hf.speech_architectures import (
    BESIDE,
    SOURCE,
    SpeechArchitecture,
    read_speech_config,
    speech_architecture,
)
from jaxslm.hf.tensors import TensorFolder
from jaxslm.models.speech_encoder import SpeechEncoder, SpeechEncoderConfig
from jaxslm.models.whisper_encoder import WhisperEncoder, WhisperEncoderConfig
from jaxslm.naming import parameter_name

BATCH_NORM_EPS = 1e-5
BATCH_NORM = "encoder.pos_conv_embed.batch_norm"
_STATISTICS = ("weight", "bias", "running_mean", "running_var")


def load_speech_encoder(
    folder: str | Path,
    *,
    layer: int = -1,
    all_layers: bool = False,
    dtype: str = "float32",
    crop: bool = False,
    ctc: bool = False,
    language: str = "",
) -> SpeechEncoder | WhisperEncoder:
    """The encoder of `folder`: config.json, preprocessor_config.json and safetensors of wav2vec 2.0, HuBERT (also
    mHuBERT, ContentVec, Spin), WavLM, data2vec-audio or Whisper. Weights above `layer` are not read.

    Args:
      layer: whose features the encoder gives, as `hidden_states[layer]`; -1 for the last.
      all_layers: the mean over all of them instead (not of Whisper).
      dtype: of the computation, "float32" or "bfloat16".
      crop: Whisper only, see `WhisperEncoderConfig`.
      ctc: with the CTC head of a ...ForCTC model.
      language: of MMS models, such as "eng": adapters and head are those of adapter.{language}.safetensors.

    Raises:
      ValueError: another architecture, a field the encoders do not know, a missing, misshapen or unknown tensor, values
        that are not finite; the message names the file, the field and the cure.
    """
    folder = Path(folder)
    theirs = read_json(folder / "config.json")
    where = str(folder / "config.json")
    preprocessor = folder / "preprocessor_config.json"
    fields = read_speech_config(theirs, read_json(preprocessor) if preprocessor.exists() else None, where)
    tensors = _Tensors(folder, speech_architecture(theirs, where), language)
    fields |= {"layer": layer, "dtype": dtype}
    if ctc:
        fields["vocab_size"] = tensors.head_size()
    if language and not fields.get("adapter_dim"):
        raise ValueError(f"{where}: language={language!r}, but the model has no adapters; leave language out")
    try:
        if tensors.architecture.model_type != "whisper":
            config, model = SpeechEncoderConfig(**fields, all_layers=all_layers), SpeechEncoder
        elif all_layers:
            raise ValueError("all_layers=True is not for Whisper; name one layer")
        else:
            config, model = WhisperEncoderConfig(**fields, crop=crop), WhisperEncoder
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: {error}") from error
    shapes = jax.eval_shape(lambda key: model(config, key), jax.random.key(0))
    complete = dataclasses.replace(config, layer=-1)
    whole = jax.eval_shape(lambda key: model(complete, key), jax.random.key(0))
    tensors.check_names(whole, config.n_layers)
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: tensors.parameter(parameter_name(path), leaf.shape), shapes
    )


def source_sha256(folder: str | Path) -> str:
    """SHA-256 of the file that `convert_speech` made the folder from; "" for a folder of other origin.

    Raises ValueError naming config.json where it holds something else.
    """
    path = Path(folder) / "config.json"
    source = read_json(path).get(SOURCE, "")
    if not isinstance(source, str) or not re.fullmatch(r"([0-9a-f]{64})?", source):
        raise ValueError(f"{path}: {SOURCE} is no SHA-256: convert the file again by jaxslm.hf.convert_speech")
    return source


def _scale_and_shift(*parts: np.ndarray) -> np.ndarray:
    """Of a batch norm at rest, [2, D]."""
    weight, bias, mean, variance = np.stack(parts)
    scale = weight / np.sqrt(variance + BATCH_NORM_EPS)
    return np.stack([scale, bias - mean * scale])


class _Tensors:
    """Parameters of ours from the tensors of a folder, and from those of a language where it has them."""

    def __init__(self, folder: Path, architecture: SpeechArchitecture, language: str):
        self.folder, self.architecture = folder, architecture
        self.tensors = TensorFolder(
            folder,
            cure=lambda pickled: (
                "They can be converted without running what they may hold: convert them once by `python -m "
                f"jaxslm.hf.convert_speech {pickled} NEW_FOLDER`"
            ),
        )
        self.of_language = None
        if language:
            file = f"adapter.{language}.safetensors"
            if not re.fullmatch(r"[\w-]+", language) or not (folder / file).is_file():
                raise ValueError(f"{folder} has no {file}: copy it there, or name a language whose adapter is there")
            self.of_language = TensorFolder(folder, [file])
        marker = "conv1.weight" if architecture.model_type == "whisper" else "feature_projection.projection.weight"
        found = [prefix for prefix in architecture.prefixes if prefix + marker in self.tensors]
        if not found:
            raise ValueError(
                f"{folder} lacks {architecture.prefixes[0]}{marker}: its weights are of another architecture than the "
                f"{architecture.model_type} of its config.json; copy both from one model"
            )
        self.prefix = found[0]
        self.checked = CheckedTensors(folder, self._locate)

    def head_size(self) -> int:
        if self.architecture.model_type == "whisper" or "lm_head.weight" not in self._source("lm_head.weight"):
            raise ValueError(f"{self.folder} lacks lm_head.weight: it has no CTC head; use a ...ForCTC model")
        shape = self._source("lm_head.weight").shape("lm_head.weight")
        if len(shape) != 2 or not shape[0]:
            raise ValueError(
                f"{self.folder}: lm_head.weight has shape {list(shape)}, not [symbols, features]: copy it again"
            )
        return shape[0]

    def check_names(self, whole: SpeechEncoder | WhisperEncoder, n_layers: int) -> None:
        """Refuses tensors that the encoder of config.json, with all its layers, does not have: they would change its
        features in the model they come from. `whole` is that encoder, of abstract arrays.

        Heads, Whisper's decoder and the like are known and left alone.
        """
        known = {f"{BATCH_NORM}.num_batches_tracked"}
        for path, _ in jax.tree_util.tree_leaves_with_path(whole):
            ours = parameter_name(path)
            theirs = self.architecture.theirs(ours)
            names = [theirs.format(i) for i in range(n_layers)] if ours.startswith("layers/") else [theirs]
            if ours.startswith("positions/convs/") and theirs.endswith(".weight"):
                kernel = theirs.removesuffix(".weight")
                names = [name.format(kernel) for spelling in KERNELS for name in spelling]
            if ours.startswith("positions/s"):
                names = [f"{BATCH_NORM}.{name}" for name in _STATISTICS]
            known.update(names)
        beside = re.compile(BESIDE)
        plain = {name: name.removeprefix(self.prefix) for name in self.tensors.names()}
        unknown = sorted(n for n, own in plain.items() if own not in known and not beside.fullmatch(own))
        if unknown := [name for name in unknown if not beside.fullmatch(name)]:
            raise ValueError(
                f"{self.tensors.where(unknown[0])} has {', '.join(unknown[:3])}{' ...' * (len(unknown) > 3)}, which "
                f"the {self.architecture.model_type} encoder of its config.json does not have: the weights belong to "
                "another model, or config.json does; copy both from one model"
            )

    def parameter(self, ours: str, shape: tuple[int, ...]) -> jax.Array:
        """float32, from the tensors that make it up; all layers stacked where the name has a place for the number."""
        theirs = self.architecture.theirs(ours)
        if ours.startswith("layers/"):
            rows = [self._convert(ours, theirs.format(i), shape[1:]) for i in range(shape[0])]
            return jnp.asarray(np.stack(rows))
        return jnp.asarray(self._convert(ours, theirs, shape))

    def _convert(self, ours: str, theirs: str, shape: tuple[int, ...]) -> np.ndarray:
        if ours in ("positions/scale", "positions/shift"):
            value = self._batch_norm()[int(ours == "positions/shift")]
        elif ours.startswith("positions/convs/") and theirs.endswith(".weight"):
            value = self.checked.kernel(theirs.removesuffix(".weight"))
        else:
            value = self.checked.read(theirs)
        if ours.endswith("/weight"):
            value = value.transpose(range(value.ndim)[::-1])
        if ours.endswith("gate_scale"):
            value = value.reshape(-1)
        if value.shape != shape:
            raise ValueError(
                f"{self.folder}: {self.prefix}{theirs} makes {list(value.shape)} and {list(shape)} was expected by its "
                "config.json: they do not belong together; copy both from one model"
            )
        return value

    def _batch_norm(self) -> np.ndarray:
        names = [f"{BATCH_NORM}.{name}" for name in _STATISTICS]
        return self.checked.made_of(names, _scale_and_shift)

    def _source(self, name: str) -> TensorFolder:
        return self.of_language if self.of_language is not None and name in self.of_language else self.tensors

    def _locate(self, theirs: str) -> tuple[TensorFolder, str]:
        name = theirs if theirs.startswith("lm_head.") else self.prefix + theirs
        return self._source(name), name
