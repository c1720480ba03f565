"""Where codecs come from: the workdir of a training run, a folder of Hugging Face weights, or the copy that a run keeps
of the codec it was trained with.
"""

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxslm.codec.conv import kernel_size
from jaxslm.codec.identity import codebook_sizes, codec_sha256
from jaxslm.codec.model import Codec, CodecConfig
from jaxslm.data.shards import disk_errors
from jaxslm.hf.codec import load_codec
from jaxslm.hf.config_file import read_json
from jaxslm.naming import parameter_name
from jaxslm.tree_files import read_tree, write_tree

KEPT_WEIGHTS, KEPT_FACTS = "codec.safetensors", "kept_codec.json"


def open_codec(place: Path) -> tuple[Codec, str]:
    """(the codec of a folder, its name for people). Raises ValueError where the folder is neither."""
    from jaxslm.tasks.codec import CODEC_FILE, load_run  # here: a Hugging Face folder needs nothing of training

    if (place / KEPT_WEIGHTS).is_file():
        return _load_kept(place)
    if (place / CODEC_FILE).is_file():
        return load_run(place), place.resolve().name
    if (place / "config.json").is_file():
        return load_codec(place), place.resolve().name
    raise ValueError(
        f"{place} is no codec: name the workdir of a run with task='codec' ({CODEC_FILE}), or a folder of Hugging Face "
        "weights (config.json)"
    )


def keep_codec(codec: Codec, name: str, folder: Path) -> None:
    """Writes a copy of a codec for `open_codec`, unless the folder holds it: `codec.safetensors`, and `kept_codec.json`
    with its config, name and SHA-256.
    """
    said = dict(name=name, sha256=codec_sha256(codec), config=codec.config.to_json())
    if (folder / KEPT_WEIGHTS).is_file() and read_json(folder / KEPT_FACTS) == json.loads(json.dumps(said)):
        return
    folder.mkdir(parents=True, exist_ok=True)
    with disk_errors(folder):
        (folder / KEPT_FACTS).write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")
        write_tree(codec.folded(), folder / KEPT_WEIGHTS)


def _load_kept(folder: Path) -> tuple[Codec, str]:
    said = read_json(folder / KEPT_FACTS)
    abstract = jax.eval_shape(functools.partial(Codec, CodecConfig(**said["config"])), jax.random.key(0))
    like = jax.tree.map(lambda leaf: np.ones(leaf.shape, leaf.dtype), abstract).folded()
    codec = read_tree(like, folder / KEPT_WEIGHTS)
    if codec_sha256(codec) != said["sha256"]:
        raise ValueError(f"{folder / KEPT_WEIGHTS} is not the codec that was kept: copy the folder again")
    return codec, said["name"]


def codebook_values(codec: Codec) -> jax.Array:
    """What each code adds to the latents, up to a constant of its level: [Q, K, C].

    Raises ValueError for codebooks of several sizes.
    """
    sizes = codebook_sizes(codec)
    if len(set(sizes)) > 1:
        raise ValueError(f"codebooks of {sizes} codes: an acoustic stage needs as many codes in every level")
    q, k = len(sizes), sizes[0]
    codes_QxKxQ = jnp.eye(q, dtype=jnp.int32)[:, None, :] * jnp.arange(k)[None, :, None]
    return codec.quantizer.decode(codes_QxKxQ)


def import_codec(model: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The model of a run with the codec of a Hugging Face folder in place of its own, which must be of its shape:
    `Task.import_model`. Discriminators start anew.

    Raises ValueError naming what does not fit.
    """
    theirs = load_codec(folder)
    arrays = {parameter_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(theirs)}

    def take(path: tuple, old: jax.Array) -> jax.Array:
        name = parameter_name(path)
        new, kernel = arrays.get(name), arrays.get(f"{name.rpartition('/')[0]}/weight")
        if new is None and kernel is not None:  # theirs has no weight norm any more
            new = kernel if name.endswith("/direction") else kernel_size(kernel)
        if new is None or new.shape != old.shape:
            has = "nothing" if new is None else f"shape {list(new.shape)}"
            raise ValueError(
                f"init_from={folder} has {has} for {name} {list(old.shape)}: give `model` the settings of that codec, "
                f"which are {theirs.config.to_json()}"
            )
        return jax.device_put(jnp.asarray(new, old.dtype), old.sharding)

    codec = jax.tree_util.tree_map_with_path(take, model["codec"])
    average = None if model["average"] is None else jax.tree.map(jnp.copy, codec.with_codebooks(None))
    return {**model, "codec": codec, "average": average}
