"""A Hugging Face folder of the Llama family as parameters of a Decoder, read shard by shard.

Legend: V rows of our embedding (padded), P rows of theirs, D model.
"""

import functools
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxslm.hf.architectures import DERIVED, Architecture, read_config, read_original_config, sliding_window
from jaxslm.hf.tensors import TensorFolder
from jaxslm.models.decoder import Decoder, DecoderConfig

log = logging.getLogger(__name__)

NEW_ROWS = ("mean", "mean_noise", "random")
NOISE = 1e-5  # of "mean_noise": the variance of new rows over that of the old ones
TABLES = ("embedding/weight", "head/weight")


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
        return Source(folder, architecture, fields, {})
    raise ValueError(f"{folder} has no config.json; name a folder with a model, or a workdir of jaxslm")


def load_decoder(
    source: Source, model: Decoder, *, text_size: int, size: int, new_rows: str, key: jax.Array
) -> Decoder:
    """`model` with the weights of `source`, each process reading the bytes of its own shards alone.

    Args:
      model: initialised, in its shards. Its arrays are freed one by one to make room for the new ones.
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
    if model.config.tied_embeddings and "lm_head.weight" in folder:
        log.info("%s: lm_head.weight is not read, the embedding serves as one", source.folder)
    leaves, treedef = jax.tree_util.tree_flatten_with_path(model)
    loaded = []
    for path, old in leaves:
        ours = parameter_name(path)
        if ours in TABLES:
            new = _table(folder, names[ours], old, ours, text_size, size, new_rows, key)
        else:
            convert = _conversion(ours, source.architecture, model.config.head_dim)
            new = _parameter(folder, names[ours], old, convert)
        loaded.append(jax.block_until_ready(new))
    return jax.tree_util.tree_unflatten(treedef, loaded)


def parameter_name(path: tuple) -> str:
    """Such as "layers/attention/query/weight", of a path in the tree of a Decoder."""
    keys = [jax.tree_util.keystr((key,), simple=True) for key in path]
    return "/".join(keys[:-1] if keys[-1] == "value" else keys)


def check_tensors(source: Source, config: DecoderConfig, text_size: int) -> TensorFolder:
    """The tensors of `source`, of which only the headers are read; whatever `config.vocab_size` is.

    Raises ValueError for all that these say: files that are missing, pickled or truncated, tensors that are missing,
    unexpected, misshapen or quantised, fewer rows than `text_size`.
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
    return folder


def _some(names: Sequence[str]) -> str:
    return names[0] + (f" and {len(names) - 1} more tensors" if len(names) > 1 else "")


def _conversion(ours: str, architecture: Architecture, head: int) -> Callable[[jax.Array], jax.Array]:
    """From tensors of theirs, [..., out, in] or [..., out], to ours in float32."""
    if ours.endswith("/scale"):
        return lambda x: x.astype(jnp.float32) + architecture.norm_offset
    if ours.endswith("/bias"):
        return lambda x: x.astype(jnp.float32)
    interleaved = architecture.interleaved and ours.split("/")[-2] in ("query", "key")

    def convert(x: jax.Array) -> jax.Array:
        if interleaved:  # rows of a head from (pair, half) to (half, pair)
            x = x.reshape(*x.shape[:-2], -1, head // 2, 2, x.shape[-1]).swapaxes(-3, -2).reshape(x.shape)
        return x.swapaxes(-1, -2).astype(jnp.float32)

    return convert


def _parameter(folder: TensorFolder, name: str, old: jax.Array, convert: Callable[[jax.Array], jax.Array]) -> jax.Array:
    """One parameter in the shards of `old`, which is freed; where the name has a `{}`, those of all layers stacked.

    The host reads bytes as they are stored, in the order they are stored; devices turn and cast them.
    """
    n_layers = old.shape[0] if "{}" in name else 0
    dtype = jnp.result_type(*(folder.dtype(name.format(layer)) for layer in range(n_layers or 1)))
    turned = len(old.shape) - bool(n_layers) == 2
    shape = (*old.shape[:-2], old.shape[-1], old.shape[-2]) if turned else old.shape
    sharding, result_sharding = _turned(old) if turned else old.sharding, old.sharding
    old.delete()

    def shard(index: tuple[slice, ...]) -> np.ndarray:
        if not n_layers:
            return folder.read(name, index)
        layers = range(*index[0].indices(n_layers))
        out = np.empty(
            (len(layers), *(len(range(*i.indices(n))) for i, n in zip(index[1:], shape[1:], strict=True))), dtype
        )
        for row, layer in enumerate(layers):
            out[row] = folder.read(name.format(layer), index[1:])
        return out

    stored = jax.make_array_from_callback(shape, sharding, shard)
    _check_finite(folder, name, stored)
    return jax.jit(convert, out_shardings=result_sharding)(stored)


def _turned(array: jax.Array) -> Any:
    """The sharding of `array` with its last two dimensions exchanged."""
    sharding = array.sharding
    if not isinstance(sharding, jax.sharding.NamedSharding):
        return sharding
    spec = [*sharding.spec, *[None] * (len(array.shape) - len(sharding.spec))]
    spec[-2:] = spec[-1], spec[-2]
    return jax.sharding.NamedSharding(sharding.mesh, jax.sharding.PartitionSpec(*spec))


@jax.jit
def _finite(array: jax.Array) -> jax.Array:
    return jnp.isfinite(array).all()


def _check_finite(folder: TensorFolder, name: str, stored: jax.Array) -> None:
    """Raises ValueError naming the tensor if it has NaN or infinite values."""
    if _finite(stored):
        return
    if "{}" in name:
        broken = ~jnp.isfinite(stored).all(axis=tuple(range(1, stored.ndim)))
        name = name.format(int(broken.argmax()))
    raise ValueError(
        f"{folder.where(name)}: {name} has values that are not finite (NaN, infinite): the model is broken; use "
        "another copy of it"
    )


def _table(
    folder: TensorFolder, name: str, old: jax.Array, ours: str, text_size: int, size: int, new_rows: str, key: jax.Array
) -> jax.Array:
    """The embedding [V, D] or the head [D, V] with the text rows of theirs and new ones behind."""
    if not text_size and new_rows == "random":
        return old
    n_rows = text_size or folder.shape(name)[0]
    transposed = ours == "head/weight"
    shape = (old.shape[1], old.shape[0]) if transposed else old.shape
    padded = -(-n_rows // shape[0]) * shape[0]  # a number of rows that the mesh can deal out as it does ours

    def part(index: tuple[slice, ...]) -> np.ndarray:
        start, stop, _ = index[0].indices(padded)
        if stop <= n_rows:
            return folder.read(name, (slice(start, stop), index[1]))
        out = np.zeros((stop - start, len(range(*index[1].indices(shape[1])))), folder.dtype(name))
        if start < n_rows:
            stop = min(stop, n_rows)
            out[: stop - start] = folder.read(name, (slice(start, stop), index[1]))
        return out

    sharding = _turned(old) if transposed else old.sharding
    stored = jax.make_array_from_callback((padded, shape[1]), sharding, part)
    _check_finite(folder, name, stored)
    options = dict(n_rows=n_rows, text_size=text_size, size=size, new_rows=new_rows, transposed=transposed)
    extend = jax.jit(functools.partial(_extend, **options), out_shardings=old.sharding, donate_argnums=0)
    return extend(old, stored, jax.random.fold_in(key, int(transposed)))


def _extend(
    old: jax.Array,
    stored_PxD: jax.Array,
    key: jax.Array,
    *,
    n_rows: int,
    text_size: int,
    size: int,
    new_rows: str,
    transposed: bool,
) -> jax.Array:
    """`old` with its first `text_size` rows from theirs and those up to `size` by `new_rows`."""
    table_VxD = old.T if transposed else old
    if new_rows != "random":
        known_PxD = stored_PxD[:n_rows].astype(jnp.float32)
        mean_D = known_PxD.mean(axis=0)
        new = jnp.broadcast_to(mean_D, (size - text_size, len(mean_D)))
        if new_rows == "mean_noise":  # sums of centred rows with normal factors have their covariance
            factors = jax.random.normal(key, (size - text_size, n_rows)) * jnp.sqrt(NOISE / n_rows)
            new = new + factors @ (known_PxD - mean_D)
        table_VxD = jax.lax.dynamic_update_slice(table_VxD, new, (text_size, 0))
    table_VxD = jax.lax.dynamic_update_slice(table_VxD, stored_PxD[:text_size].astype(jnp.float32), (0, 0))
    return table_VxD.T if transposed else table_VxD
