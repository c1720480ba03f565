"""A Hugging Face folder as a `Codec`, and a codec as a folder that transformers loads."""

import json
import re
import reprlib
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxslm.codec.codebooks import Codebooks
from jaxslm.codec.identity import exact_codes
from jaxslm.codec.model import Codec, CodecConfig
from jaxslm.hf import dac_architecture, encodec_architecture, mimi_architecture
from jaxslm.hf.checked_tensors import KERNELS, CheckedTensors
from jaxslm.hf.config_file import read_json
from jaxslm.hf.export import finished_folder
from jaxslm.hf.tensors import TensorFolder, TensorWriter, saved_anew
from jaxslm.naming import parameter_name
from jaxslm.nn.weight_norm import kernel_length

ARCHITECTURES: Mapping[str, ModuleType] = {
    "encodec": encodec_architecture,
    "mimi": mimi_architecture,
    "dac": dac_architecture,
}
MAX_FILE_BYTES = 5 << 30


def load_codec(folder: str | Path) -> Codec:
    """The codec of `folder`: config.json and safetensors of EnCodec (mono, without chunks), Mimi or DAC.

    Its convolutions are without weight norm. Codes are those of transformers: off the CPU, in
    `jax.default_matmul_precision("highest")`.

    Raises ValueError for another architecture, a field that is not known here, a missing, misshapen or unknown tensor,
    values that are not finite; the message names the file, the field and the cure.
    """
    folder = Path(folder)
    theirs, where = read_json(folder / "config.json"), str(folder / "config.json")
    kind = theirs.get("model_type")
    if not isinstance(kind, str) or kind not in ARCHITECTURES:
        raise ValueError(
            f"{where}: model_type {reprlib.repr(kind)} is not one of {', '.join(ARCHITECTURES)}; name the folder of "
            "such a codec"
        )
    fields = ARCHITECTURES[kind].codec_config(theirs, where)
    try:
        config = CodecConfig(**fields)
        shapes = jax.eval_shape(lambda key: Codec(config, key), jax.random.key(0))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: {error}") from error
    tensors = _Tensors(folder, ARCHITECTURES[kind], config)
    tensors.check_names(shapes)
    return jax.tree_util.tree_map_with_path(lambda path, leaf: tensors.parameter(parameter_name(path), leaf), shapes)


def _is_pointwise(ours: str) -> bool:
    """Whether a linear layer of ours is a convolution with one tap in theirs."""
    return re.search(r"/(project|level)_(in|out)/weight$", ours) is not None


def _is_kernel(ours: str, ndim: int) -> bool:
    """Whether a parameter of ours with that many axes, without that of levels, is one that weight norm can be on."""
    return _is_pointwise(ours) or (ours.endswith("/weight") and ndim == 3)


def _turned(ours: str, value: np.ndarray) -> np.ndarray:
    """Our value of theirs."""
    if _is_pointwise(ours) and value.ndim == 3 and value.shape[2] == 1:
        return value[..., 0].T
    if ours.endswith("/alpha"):
        return value[0, :, 0] if value.ndim == 3 and value.shape[::2] == (1, 1) else value
    return value.transpose() if ours.endswith("weight") else value


def _turned_back(ours: str, value: np.ndarray) -> np.ndarray:
    """Their value of ours."""
    if _is_pointwise(ours):
        return value.T[..., None]
    if ours.endswith("/alpha"):
        return value[None, :, None]
    return value.transpose() if ours.endswith("weight") else value


class _Tensors:
    """Parameters of ours from the tensors of a folder."""

    def __init__(self, folder: Path, architecture: ModuleType, config: CodecConfig):
        self.folder, self.architecture, self.config = folder, architecture, config
        self.tensors = TensorFolder(folder, cure=lambda pickled: saved_anew(folder, "AutoModel"))
        self.checked = CheckedTensors(folder, lambda name: (self.tensors, name))

    def _theirs(self, ours: str) -> tuple[str, ...]:
        names = self.architecture.theirs(ours, self.config)
        return (names,) if isinstance(names, str) else names or ()

    def check_names(self, shapes: Codec) -> None:
        """Refuses tensors that the codec of config.json does not have: they would change its codes or samples."""
        known = set()
        for path, leaf in jax.tree_util.tree_leaves_with_path(shapes):
            for name in self._theirs(ours := parameter_name(path)):
                stacked = "{}" in name
                for full in [name.format(i) for i in range(leaf.shape[0])] if stacked else [name]:
                    known.add(full)
                    if _is_kernel(ours, leaf.ndim - stacked):
                        kernel = full.removesuffix(".weight")
                        known.update(part.format(kernel) for spelling in KERNELS for part in spelling)
        beside = re.compile(self.architecture.BESIDE)
        if unknown := sorted(n for n in self.tensors.names() if n not in known and not beside.fullmatch(n)):
            raise ValueError(
                f"{self.tensors.where(unknown[0])} has {', '.join(unknown[:3])}{' ...' * (len(unknown) > 3)}, which "
                f"the {self.architecture.MODEL} of its config.json does not have: the weights belong to another model, "
                "or config.json does; copy both from one model"
            )

    def parameter(self, ours: str, leaf: jax.ShapeDtypeStruct) -> jax.Array:
        names = self._theirs(ours)
        if not names:
            return jnp.ones(leaf.shape, leaf.dtype)
        if "{}" not in names[0]:
            return jnp.asarray(self._convert(ours, names, leaf.shape))
        rows = [self._convert(ours, [n.format(i) for n in names], leaf.shape[1:]) for i in range(leaf.shape[0])]
        return jnp.asarray(np.stack(rows))

    def _convert(self, ours: str, names: tuple[str, ...] | list[str], shape: tuple[int, ...]) -> np.ndarray:
        if len(names) > 1:
            value = self.checked.made_of(names, np.add)
        elif _is_kernel(ours, len(shape)):
            value = self.checked.kernel(names[0].removesuffix(".weight"))
        else:
            value = self.checked.read(names[0])
        value = _turned(ours, value)
        if value.shape != shape:
            raise ValueError(
                f"{self.folder}: {names[0]} makes {list(value.shape)} and {list(shape)} was expected by its "
                "config.json: they do not belong together; copy both from one model"
            )
        return value


def check_exportable(config: CodecConfig) -> None:
    """Raises ValueError naming the field by which a codec is none of ARCHITECTURES."""
    _architecture_of(config)


def _architecture_of(config: CodecConfig) -> tuple[ModuleType, dict[str, Any]]:
    """(architecture, its config.json)."""
    seanet = "encodec" if config.encoder.get("transformer") is None else "mimi"
    architecture = ARCHITECTURES["dac" if config.encoder["kind"] == "dac" else seanet]
    return architecture, architecture.config_json(config)


def save_codec(codec: Codec, folder: str | Path) -> None:
    """Writes a new folder that transformers loads as `DacModel`, as `MimiModel` if the codec has a transformer, else as
    `EncodecModel`.

    Raises ValueError naming the field that the model does not have, or the parameter that is not finite; if the folder
    is there already.
    """
    config = codec.config
    architecture, theirs = _architecture_of(config)
    tensors: dict[str, np.ndarray] = {}
    leaves = jax.tree_util.tree_leaves_with_path(codec.folded())
    for ours, value in ((parameter_name(path), np.asarray(leaf)) for path, leaf in leaves):
        if not np.isfinite(value).all():
            raise ValueError(
                f"{ours} has values that are not finite: the training went wrong; use an earlier checkpoint"
            )
        if "/codebooks/" not in ours and not ours.endswith("/codes"):
            tensors |= _written(ours, value, architecture, config)
    for ours, quantizer in _residual_quantizers(codec.quantizer):
        tensors |= _codebooks(ours, quantizer, architecture, config)
    with finished_folder(Path(folder)) as unfinished:
        shapes = {name: value.shape for name, value in tensors.items()}
        with TensorWriter(unfinished, shapes, "float32", MAX_FILE_BYTES) as writer:
            for name, value in tensors.items():
                writer.write(name, value)
        _write_json(unfinished / "preprocessor_config.json", architecture.preprocessor_json(config))
        _write_json(unfinished / "config.json", dict(architectures=[architecture.MODEL]) | theirs)


def _written(ours: str, value: np.ndarray, architecture: ModuleType, config: CodecConfig) -> dict[str, np.ndarray]:
    """Their tensors of a parameter of ours."""
    names = architecture.theirs(ours, config)
    if isinstance(names, str) and "{}" in names:
        return {names.format(i): _turned_back(ours, row) for i, row in enumerate(value)}
    value = _turned_back(ours, value)
    first, *others = (names,) if isinstance(names, str) else names
    if architecture.WEIGHT_NORM and _is_kernel(ours, value.ndim):
        size = kernel_length(value, (1, 2))
        # The direction of nothing is any but 0.
        return {f"{first}_g": size, f"{first}_v": np.where(size > 0, value, 1)}
    return {first: value} | {name: np.zeros_like(value) for name in others}


def _residual_quantizers(quantizer) -> list[tuple[str, Any]]:
    """(our name, quantizer) of those that `quantizer` is made of."""
    parts = getattr(quantizer, "parts", None)
    if parts is None:
        return [("quantizer", quantizer)]
    return [(f"quantizer/parts/{i}", part) for i, part in enumerate(parts)]


def _codebooks(ours: str, quantizer, architecture: ModuleType, config: CodecConfig) -> dict[str, np.ndarray]:
    book: Codebooks = quantizer.codebooks
    learnt = book.batches_Q > 0
    if not quantizer.config.started and not learnt.all():
        raise ValueError(
            f"{ours}: level {int(np.argmin(learnt))} has seen no batch and has no codes yet; train the codec first"
        )
    codes = exact_codes(book) if quantizer.codes is None else quantizer.codes[...]
    sums = codes * book.usage_QxK[..., None] if book.sums_QxKxC is None else book.sums_QxKxC
    values = dict(codes=codes, sums=sums, usage=book.usage_QxK, started=jnp.ones((len(codes), 1)))
    prefix = architecture.codebook_prefix(ours, config)
    return {
        prefix.format(q) + key: np.asarray(values[what][q])
        for key, what in architecture.CODEBOOK.items()
        for q in range(len(codes))
    }


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
