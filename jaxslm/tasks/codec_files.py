"""Where codecs come from: the workdir of a training run, or a folder of Hugging Face weights."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from jaxslm.codec.conv import kernel_size
from jaxslm.codec.model import Codec
from jaxslm.hf.codec import load_codec
from jaxslm.naming import parameter_name


def open_codec(place: Path) -> tuple[Codec, str]:
    """(the codec of a folder, its name for people). Raises ValueError where the folder is neither."""
    from jaxslm.tasks.codec import CODEC_FILE, load_run  # here: a Hugging Face folder needs nothing of training

    if (place / CODEC_FILE).is_file():
        return load_run(place), place.resolve().name
    if (place / "config.json").is_file():
        return load_codec(place), place.resolve().name
    raise ValueError(
        f"{place} is no codec: name the workdir of a run with task='codec' ({CODEC_FILE}), or a folder of Hugging Face "
        "weights (config.json)"
    )


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
