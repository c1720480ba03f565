"""What the backward pass of a layer keeps of the forward pass, and what it computes again.

A choice is one of POLICIES or a list of the tensors to keep, `context,attended`; those behind `host:` wait in the
memory of the host: `context,host:query,host:key`. Everything else is computed again.
"""

from collections.abc import Callable, Mapping

import jax
from jax.ad_checkpoint import checkpoint_name

# The tensors of a layer that have a name, in the order they are made. `context` is what attention returns, with the
# normalisers that its backward pass needs; `attended` is the layer's input with the attention's output added.
NAMES = ("query", "key", "value", "context", "attended", "gate", "up")

POLICIES: Mapping[str, Callable | None] = {
    "full": jax.checkpoint_policies.nothing_saveable,  # keep only the input of each layer
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,  # keep the projections, recompute attention
    "none": None,  # keep everything
}
HOST = "host:"


def named(x: jax.Array, name: str) -> jax.Array:
    """`x` under one of NAMES, by which a choice can keep it."""
    assert name in NAMES, name
    return checkpoint_name(x, name)


def check_choice(choice: str) -> None:
    """Raises ValueError if `choice` is none."""
    if choice in POLICIES:
        return
    names = [name.removeprefix(HOST) for name in choice.split(",")]
    if wrong := [name for name in names if name not in NAMES]:
        raise ValueError(
            f"model.remat='{choice}' is not one of {', '.join(POLICIES)}, and '{wrong[0]}' is no tensor to keep "
            f"({', '.join(NAMES)}, each also as {HOST}NAME)."
        )
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"model.remat='{choice}' has '{twice[0]}' twice; name it once.")


def rematerialized(layer: Callable, choice: str) -> Callable:
    """`layer`, a body of `lax.scan`, with the memory of `choice`."""
    if choice == "none":
        return layer
    return jax.checkpoint(layer, policy=_policy(choice), prevent_cse=False)


def _policy(choice: str) -> Callable:
    if choice in POLICIES:
        return POLICIES[choice]
    names = choice.split(",")
    return jax.checkpoint_policies.save_and_offload_only_these_names(
        names_which_can_be_saved=[name for name in names if not name.startswith(HOST)],
        names_which_can_be_offloaded=[name.removeprefix(HOST) for name in names if name.startswith(HOST)],
        offload_src="device",
        offload_dst="pinned_host",
    )
