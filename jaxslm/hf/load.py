"""A Hugging Face folder of the Llama family as parameters of a Decoder, read shard by shard.

Legend: V rows of our embedding (padded), P rows of theirs, D model.
"""

import functools
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from jaxslm.hf.architectures import DERIVED, Architecture, read_config, read_original_config, sliding_window
from jaxslm.hf.tensors import TABLES, TensorFolder, ahead, all_finite
from jaxslm.models.decoder import Decoder, DecoderConfig
from jaxslm.naming import parameter_name

log = logging.getLogger(__name__)

NEW_ROWS = ("mean", "mean_noise", "random")
NOISE = 1e-5  # of "mean_noise": the variance of new rows over that of the old ones
ROWS_COMPARED = 256  # of a head that should be the embedding


def is_hf_folder(folder: Path) -> bool:
    """Whether `folder` looks like a Hugging Face (or Meta) model, not like a workdir."""
    if (folder / "params.json").exists():
        return True
    try:
        config = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError):
        return any(folder.glob("*.safetensors"))
    return isinstance(config, dict) and ("model_type" in config or "architectures" in config)


@dataclass(frozen=True)
class Source:
    """What a folder says of its model, before any weight is read.

    fields: of DecoderConfig, without vocab_size. config: its config.json as it is ({} for params.json).
    """

    folder: Path
    architecture: Architecture
    fields: Mapping[str, Any]
    config: Mapping[str, Any]

    @property
    def sliding_window(self) -> int | None:
        return sliding_window(self.config)


def open_source(folder: Path) -> Source:
    """Reads config.json, else params.json. Raises ValueError naming the file, the field and the cure."""
    for name in ("config.json", "params.json"):
        path = folder / name
        if not path.exists():
            continue
        try:
            theirs = json.loads(path.read_text())
            assert isinstance(theirs, dict)
        except (ValueError, AssertionError, OSError) as error:
            raise ValueError(f"{path} is no JSON object ({error}): copy it again") from error
        if name == "config.json":
            return Source(folder, *read_config(theirs, str(path)), theirs)
        architecture, fields = read_original_config(theirs, str(path))
        fields["tied_embeddings"] = architecture.names["head/weight"] not in TensorFolder(folder)
        window = theirs.get("sliding_window")
        return Source(folder, architecture, fields, {"use_sliding_window": bool(window), "sliding_window": window})
    raise ValueError(f"{folder} has no config.json; name a folder with a model, or a workdir of jaxslm")


def load_decoder(
    source: Source, model: Decoder, *, text_size: int, size: int, new_rows: str, key: jax.Array
) -> Decoder:
    """`model` with the weights of `source`, each process reading the bytes of its own shards alone.

    Args:
      model: initialised, in its shards. Its arrays are overwritten one by one.
      text_size: rows that are taken over as they are: those of the text vocabulary (or, of an export of a run, all); 0
        leaves the text out and keeps the body (TWIST).
      size: rows that mean something; the new ones are those from text_size on.
      new_rows: "mean" of their rows; "mean_noise": drawn around it with 1e-5 of their covariance (Hewitt 2021);
        "random": as initialised.
      key: of the noise.

    Raises:
      ValueError: naming the tensor that is missing, unexpected or misshapen, the rows the tokenizer does not agree
        with, or a value that is not finite.
    """
    if new_rows not in NEW_ROWS:
        raise ValueError(f"new_rows is {new_rows!r}; use one of {', '.join(NEW_ROWS)}")
    folder = check_tensors(source, model.config, text_size)
    names = source.architecture.tensors(model.config)
    leaves, treedef = jax.tree_util.tree_flatten_with_path(model)
    loaded = []
    for path, old in leaves:
        ours = parameter_name(path)
        if ours in TABLES:
            loaded.append(_table(folder, names[ours], old, ours, text_size, size, new_rows, key))
            continue
        offset = source.architecture.norm_offset if ours.endswith("/scale") else 0.0
        interleaved = source.architecture.interleaved and ours.split("/")[-2] in ("query", "key")
        loaded.append(_parameter(folder, names[ours], old, offset, model.config.head_dim if interleaved else 0))
    return jax.block_until_ready(jax.tree_util.tree_unflatten(treedef, loaded))


def check_tensors(source: Source, config: DecoderConfig, text_size: int) -> TensorFolder:
    """The tensors of `source`, of which little more than the headers is read; whatever `config.vocab_size` is.

    Raises ValueError for all that these say: files that are missing, pickled or truncated, tensors that are missing,
    unexpected, misshapen or quantised, fewer rows than `text_size`, a head that is not the embedding though it should.
    """
    folder = TensorFolder(source.folder)
    names = source.architecture.tensors(config)
    layers = range(config.n_layers)
    expected = {theirs.format(i) for theirs in names.values() for i in layers}
    if missing := sorted(name for name in expected if name not in folder):
        raise ValueError(
            f"{source.folder} lacks {_some(missing)}: its config.json and its weights do not belong together"
        )
    ignored = {"lm_head.weight"} if config.tied_embeddings else set()
    unexpected = sorted(n for n in folder.names() if n not in expected | ignored and not n.endswith(DERIVED))
    if unexpected:
        raise ValueError(
            f"{source.folder} has {_some(unexpected)}, which a {source.architecture.model_type} model of this "
            "config.json does not have: the weights belong to another model"
        )
    model = jax.eval_shape(functools.partial(Decoder, config), jax.random.key(0))
    plain = {parameter_name(path): leaf.shape for path, leaf in jax.tree_util.tree_leaves_with_path(model)}
    for ours, theirs in names.items():
        stacked = ours.startswith("layers/")
        shape = plain[ours][1:] if stacked else plain[ours]
        for name in {theirs.format(i) for i in layers}:
            found = folder.shape(name)
            wanted = tuple(reversed(shape)) if ours != "embedding/weight" else shape
            if ours in TABLES:
                wanted = (source.config.get("vocab_size", found[0]), config.d_model)
                if text_size > found[0]:
                    raise ValueError(
                        f"{source.folder}: the tokenizer has {text_size} ids and {name} {found[0]} rows: they do "
                        "not belong together; give the model's own tokenizer"
                    )
            if found != wanted:
                raise ValueError(
                    f"{source.folder}: {name} is {list(found)} and {list(wanted)} was expected by its config.json"
                )
    if config.tied_embeddings and "lm_head.weight" in folder:
        _check_tied(folder, names["embedding/weight"])
    return folder


def _check_tied(folder: TensorFolder, embedding: str) -> None:
    """Raises ValueError if the head, which some files have beside the embedding it should be, differs in some rows."""
    head, table = folder.read("lm_head.weight"), folder.read(embedding)
    rows = slice(None, None, max(1, len(table) // ROWS_COMPARED))
    if head.shape != table.shape or not np.array_equal(head[rows], table[rows]):
        raise ValueError(
            f"{folder.where('lm_head.weight')}: lm_head.weight is not {embedding}, though config.json says that they "
            "are one: set tie_word_embeddings to false there"
        )


def _some(names: Sequence[str]) -> str:
    return names[0] + (f" and {len(names) - 1} more tensors" if len(names) > 1 else "")


def _parameter(folder: TensorFolder, theirs: str, old: jax.Array, offset: float, interleaved_head: int) -> jax.Array:
    """One parameter in the shards and in the memory of `old`, layer by layer where the name has a `{}`.

    The host turns what it reads to [in, out] while it copies it; devices cast the layers read before. A head of
    `interleaved_head` rows (0: not interleaved) goes from (pair, half) to (half, pair).
    """
    stacked = "{}" in theirs
    shape, sharding = old.shape, old.sharding
    if stacked:
        shape = shape[1:]
        if isinstance(sharding, NamedSharding):
            sharding = NamedSharding(sharding.mesh, PartitionSpec(*sharding.spec[1:]))
    order = np.arange(shape[-1])
    if interleaved_head:
        order = order.reshape(-1, interleaved_head // 2, 2).swapaxes(1, 2).reshape(-1)

    def stored(layer: int) -> jax.Array:
        name = theirs.format(layer)

        def part(index: tuple[slice, ...]) -> np.ndarray:
            *rows, columns = index
            return _read(folder, name, (order[columns] if interleaved_head else columns, *rows)).T

        return jax.make_array_from_callback(shape, sharding, part)

    for layer, values in ahead(stored, range(old.shape[0] if stacked else 1)):
        old = _put(old, values, layer, offset=offset, sharding=old.sharding)
    return old


@functools.partial(jax.jit, static_argnames=("offset", "sharding"), donate_argnums=0)
def _put(old: jax.Array, values: jax.Array, layer: int, *, offset: float, sharding: Any) -> jax.Array:
    """`old` with `values + offset` in place of its layer, or of all of it if it has no axis of layers."""
    values = values.astype(jnp.float32)
    values = values + offset if offset else values
    stacked = old.ndim - values.ndim
    start = (layer,) * stacked + (0,) * values.ndim
    new = jax.lax.dynamic_update_slice(old, values.reshape((1,) * stacked + values.shape), start)
    return jax.lax.with_sharding_constraint(new, sharding)


def _read(folder: TensorFolder, name: str, index: Any) -> np.ndarray:
    """`tensor[index]` as it is stored. Raises ValueError naming the tensor if it has NaN or infinite values."""
    values = folder.read(name, index)
    if not all_finite(values):
        raise ValueError(
            f"{folder.where(name)}: {name} has values that are not finite (NaN, infinite): the model is broken; "
            "use another copy of it"
        )
    return values


def _table(
    folder: TensorFolder, name: str, old: jax.Array, ours: str, text_size: int, size: int, new_rows: str, key: jax.Array
) -> jax.Array:
    """The embedding [V, D] or the head [D, V] with the text rows of theirs and new ones behind."""
    if not text_size and new_rows == "random":
        return old
    n_rows = text_size or folder.shape(name)[0]
    transposed = ours == "head/weight"
    axis = int(transposed)
    shape = list(old.shape)
    shape[axis] *= -(-n_rows // shape[axis])  # a number of rows that the mesh can deal out as it does ours

    def part(index: tuple[slice, ...]) -> np.ndarray:
        rows, features = index[:: -1 if transposed else 1]
        start, stop, _ = rows.indices(shape[axis])
        values = _read(folder, name, (slice(start, min(stop, n_rows)), features))
        values = np.pad(values, ((0, stop - start - len(values)), (0, 0))) if stop > n_rows else values
        return values.T if transposed else values

    stored = jax.make_array_from_callback(tuple(shape), old.sharding, part)
    options = dict(n_rows=n_rows, text_size=text_size, size=size, new_rows=new_rows, transposed=transposed)
    extend = jax.jit(functools.partial(_extend, **options), out_shardings=old.sharding, donate_argnums=0)
    return extend(old, stored, jax.random.fold_in(key, axis))


def _extend(
    old: jax.Array,
    stored: jax.Array,
    key: jax.Array,
    *,
    n_rows: int,
    text_size: int,
    size: int,
    new_rows: str,
    transposed: bool,
) -> jax.Array:
    """`old` with its first `text_size` rows from theirs and those up to `size` by `new_rows`; columns if transposed."""
    table = jax.lax.dynamic_update_slice(
        old, (stored[:, :text_size] if transposed else stored[:text_size]).astype(jnp.float32), (0, 0)
    )
    if new_rows == "random":
        return table
    known_PxD = (stored.T if transposed else stored)[:n_rows].astype(jnp.float32)
    mean_D = known_PxD.mean(axis=0)
    new_NxD = jnp.broadcast_to(mean_D, (size - text_size, len(mean_D)))
    if new_rows == "mean_noise":  # sums of centred rows with normal factors have their covariance
        factors_NxP = jax.random.normal(key, (size - text_size, n_rows)) * jnp.sqrt(NOISE / n_rows)
        new_NxD = new_NxD + factors_NxP @ known_PxD - factors_NxP.sum(axis=1, keepdims=True) * mean_D
    return jax.lax.dynamic_update_slice(
        table, new_NxD.T if transposed else new_NxD, (0, text_size) if transposed else (text_size, 0)
    )
