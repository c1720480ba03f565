"""Writes a folder that stock transformers loads, with nothing of jaxslm installed.

The folder has its final name only when all of it is there: until then it is called NAME.incomplete and has no
config.json, so nothing takes half a model for one.
"""

import contextlib
import dataclasses
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import jax
import numpy as np

from jaxslm.hf.architectures import ARCHITECTURES, Architecture, architecture_of, write_config
from jaxslm.hf.tensors import DTYPES, TABLES, TensorWriter, ahead, all_finite
from jaxslm.locking import held
from jaxslm.models.decoder import DecoderConfig
from jaxslm.vocabulary import Vocabulary


class Array(Protocol):
    """A parameter of ours, somewhere; see training/stored.py."""

    shape: tuple[int, ...]

    def __getitem__(self, index: Any) -> np.ndarray: ...

    def pieces(self, axis: int, stop: int | None = None) -> Iterator[slice]: ...


@contextlib.contextmanager
def finished_folder(out: Path) -> Iterator[Path]:
    """A folder OUT.incomplete to write into; it becomes OUT at the end. Left as it is if anything fails.

    Raises ValueError if OUT is there already and not empty or another process writes it, OSError naming the folder if
    writing fails.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} is there already: remove it, or write to another folder")
    unfinished = out.with_name(f"{out.name}.incomplete")
    if unfinished.exists() and not unfinished.is_dir():
        raise ValueError(f"{unfinished} is a file, where a folder is written first: remove it")
    unfinished.mkdir(parents=True, exist_ok=True)
    with held(unfinished) as mine:
        if not mine:
            raise ValueError(f"{unfinished} is being written by another export: wait for it, or write elsewhere")
        for left in unfinished.iterdir():  # of an export that was cut off
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        try:
            yield unfinished
        except OSError as error:
            cure = "export again where there is room"
            raise OSError(f"{error}; {unfinished} is unfinished and no model: {cure}") from error
        if out.exists():
            out.rmdir()
        unfinished.rename(out)


def exported_as(
    config: DecoderConfig, base: Mapping[str, Any], *, qwen_tokenizer: bool
) -> tuple[Architecture, DecoderConfig]:
    """(family, what its config.json says) that computes what `config` does.

    The family of `base`, the config.json the training started from, if the model still is of it; else the one that
    fits. Qwen2 without `qwen_tokenizer` (see tokenizer_files.py: read_as_qwen2) is written as Llama with attention
    biases: the same function, with one more bias, of the output projection, that is zero.
    """
    fitting = architecture_of(config)
    if fitting.model_type == "qwen2" and not qwen_tokenizer:
        config = dataclasses.replace(config, output_bias=True)
        fitting = architecture_of(config)
    named = ARCHITECTURES.get(base.get("model_type"))
    if named is not None and {named.model_type, fitting.model_type} == {"llama", "mistral"} and not config.qkv_bias:
        return named, config
    return fitting, config


def write_weights(
    folder: Path,
    arrays: Mapping[str, Array],
    config: DecoderConfig,
    architecture: Architecture,
    *,
    n_rows: int,
    dtype: str,
    max_file_bytes: int,
    progress: Callable[[int], None] = lambda n_bytes: None,
) -> int:
    """Writes model*.safetensors tensor by tensor; returns the bytes of all weights.

    Embedding and head keep their first `n_rows` rows: what pads them for the mesh is left out. No more than a few
    chunks of one array are in memory. `progress` gets the bytes written since its last call. Raises OSError if there is
    no room.
    """
    names = architecture.tensors(config)
    stacked = {ours: theirs for ours, theirs in names.items() if "{}" in theirs}
    shapes = {}
    for ours in ("embedding/weight", "norm/scale", "head/weight"):
        if ours in names:
            shapes[names[ours]] = _their_shape(ours, arrays[ours].shape, n_rows)
    for layer in range(config.n_layers):
        for ours, theirs in stacked.items():
            shapes[theirs.format(layer)] = _their_shape(ours, arrays[ours].shape[1:], n_rows)
    try:
        cpu = jax.local_devices(backend="cpu")[0]
    except RuntimeError:  # JAX was told to know no CPU
        cpu = jax.local_devices()[0]

    def pieces() -> Iterator[tuple[str, slice]]:
        for ours in names:
            axis = 1 if ours == "head/weight" else 0
            yield from ((ours, piece) for piece in arrays[ours].pieces(axis, n_rows if ours in TABLES else None))

    def converted(job: tuple[str, slice]) -> np.ndarray:
        ours, piece = job
        values = arrays[ours][:, piece] if ours == "head/weight" else arrays[ours][piece]
        if ours.endswith("/scale") and architecture.norm_offset:
            values = values - np.float32(architecture.norm_offset)
        with np.errstate(over="ignore"):  # said below, by name
            values = values.astype(DTYPES[dtype][1])
        if not all_finite(values):
            cure = "the training went wrong; export an earlier checkpoint"
            cure = "export in bfloat16 or float32" if dtype == "float16" else cure
            raise ValueError(f"{ours} has values that are not finite in {dtype}: {cure}")
        turned = ours == "head/weight" or values.ndim == 3
        # JAX copies what is transposed in blocks, four times as fast as numpy does.
        return np.asarray(jax.device_put(values.swapaxes(-1, -2), cpu)) if turned else values

    with TensorWriter(folder, shapes, dtype, max_file_bytes) as writer:
        for (ours, piece), values in ahead(converted, pieces()):
            if ours in stacked:
                for layer, value in enumerate(values, piece.start):
                    progress(writer.write(names[ours].format(layer), value))
            else:
                progress(writer.write(names[ours], values, piece.start))
    return writer.total_bytes


def _their_shape(ours: str, shape: tuple[int, ...], n_rows: int) -> tuple[int, ...]:
    if ours == "embedding/weight":
        return n_rows, shape[1]
    if ours == "head/weight":
        return n_rows, shape[0]
    return tuple(reversed(shape))


def write_configs(
    folder: Path,
    config: DecoderConfig,
    architecture: Architecture,
    vocabulary: Vocabulary,
    *,
    base: Mapping[str, Any],
    generation: Mapping[str, Any],
    dtype: str,
    context_length: int,
    pad_id: int | None,
) -> None:
    """generation_config.json and, last of all, config.json. `generation`: temperature, top_p and their like."""
    special = special_ids(vocabulary, base, pad_id)
    ours = write_config(architecture, config, base) | special
    ours["vocab_size"] = vocabulary.size
    ours["max_position_embeddings"] = max(context_length, base.get("max_position_embeddings") or 0)
    ours["torch_dtype"] = dtype
    sampled = bool(generation.get("temperature"))  # top_k=0 is written, too: without the key transformers takes 50
    sampling = {"do_sample": sampled} | {k: v for k, v in generation.items() if sampled and v is not None}
    _write_json(folder / "generation_config.json", special | sampling)
    _write_json(folder / "config.json", ours)


def special_ids(vocabulary: Vocabulary, base: Mapping[str, Any], pad_id: int | None) -> dict[str, Any]:
    """bos_token_id, eos_token_id and, if there is one, pad_token_id, as both configs have them.

    What ends a text in `base`, the config.json the training started from, stops generation, too.
    """
    theirs = _ids(base.get("eos_token_id"), vocabulary.text_size) if vocabulary.has_text else []
    stop_ids = sorted({vocabulary.eos_id, *theirs})
    special = {"bos_token_id": vocabulary.bos_id, "eos_token_id": stop_ids[0] if len(stop_ids) == 1 else stop_ids}
    return special if pad_id is None else special | {"pad_token_id": pad_id}


def _ids(value: Any, below: int) -> list[int]:
    values = value if isinstance(value, list) else [value]
    return [v for v in values if isinstance(v, int) and v < below]


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
