"""What parameters are called, in checkpoints, files of weights and messages."""

import jax


def parameter_names(path: tuple) -> list[str]:
    """Attribute names, keys and indices on the way to a leaf of a tree, without the `nnx.Param` around the array."""
    if path[-1] == jax.tree_util.GetAttrKey("value"):
        path = path[:-1]
    return [jax.tree_util.keystr((key,), simple=True) for key in path]


def parameter_name(path: tuple) -> str:
    """The same in one: "layers/attention/query/weight"."""
    return "/".join(parameter_names(path))
