"""Trees of arrays in safetensors files, an array under the name of its place."""

import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from jaxslm.naming import parameter_name


def write_tree(tree: Any, path: Path) -> None:
    """Writes the file, which has its name when it is whole."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    arrays = {parameter_name(place): np.ascontiguousarray(leaf) for place, leaf in leaves}
    new = path.with_name(path.name + ".new")
    save_file(arrays, new)
    os.replace(new, path)


def read_tree(abstract: Any, path: Path) -> Any:
    """A tree like `abstract` of what `write_tree` wrote. Raises ValueError for a file that is damaged or of another."""
    try:
        arrays = load_file(path)
        return jax.tree_util.tree_map_with_path(
            lambda place, leaf: jnp.asarray(arrays[parameter_name(place)].reshape(leaf.shape), leaf.dtype), abstract
        )
    except (SafetensorError, KeyError, ValueError, OSError) as error:
        raise ValueError(f"{path} is missing, damaged or of another model ({error}): copy its folder again") from error
