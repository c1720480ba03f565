"""Networks made of layers, one behind the other.

A layer has: `layer(x_BxTxC, lengths_B=None)`, where a row of a padded batch gives what it would give alone and what
comes out beyond its length means nothing; `layer.length(lengths)`, the frames out of `lengths` frames in (an int or an
array); and, for chunks, `layer.start(batch, dtype)`, the state before the first, and `layer.stream(x_chunk, state)`,
(frames of the chunk, state). Streaming raises ValueError where a frame needs later ones.

Legend: B batch, T frames, C channels.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from jaxslm.codec.activations import Snake, SnakeBeta, elu, leaky

ACTIVATIONS = {
    "elu": lambda dim: elu,
    "leaky": lambda dim: leaky,
    "tanh": lambda dim: jnp.tanh,
    "snake": Snake,
    "snakebeta": SnakeBeta,
}


class Activation(nnx.Module):
    """The activation of that name of `dim` channels, as a layer. Raises ValueError for a name not in ACTIVATIONS."""

    def __init__(self, kind: str, dim: int):
        if kind not in ACTIVATIONS:
            raise ValueError(f"activation='{kind}' is not one of {', '.join(ACTIVATIONS)}")
        self.function = ACTIVATIONS[kind](dim)

    def __call__(self, x_BxTxC: jax.Array, lengths_B: jax.Array | None = None) -> jax.Array:
        return self.function(x_BxTxC)

    def length(self, lengths):
        return lengths

    def start(self, batch: int, dtype=jnp.float32) -> tuple:
        return ()

    def stream(self, x_BxTxC: jax.Array, state: tuple) -> tuple[jax.Array, tuple]:
        return self.function(x_BxTxC), state


class Chain(nnx.Module):
    """Each layer gets what the one before it gives; the state of a stream is a tuple of theirs."""

    def __init__(self, layers: list):
        self.layers = nnx.List(layers)

    def __call__(self, x_BxTxC: jax.Array, lengths_B: jax.Array | None = None) -> jax.Array:
        for layer in self.layers:
            x_BxTxC = layer(x_BxTxC, lengths_B)
            lengths_B = None if lengths_B is None else layer.length(lengths_B)
        return x_BxTxC

    def length(self, lengths):
        """Frames out of `lengths` frames in (an int or an array)."""
        for layer in self.layers:
            lengths = layer.length(lengths)
        return lengths

    def start(self, batch: int, dtype=jnp.float32) -> tuple:
        """The state before the first chunk. Raises ValueError where a layer cannot run on chunks."""
        return tuple(layer.start(batch, dtype) for layer in self.layers)

    def stream(self, x_BxTxC: jax.Array, state: tuple) -> tuple[jax.Array, tuple]:
        """(frames of this chunk, state). Raises ValueError for a chunk of no whole frames of what comes out."""
        new = []
        for layer, its_state in zip(self.layers, state, strict=True):
            x_BxTxC, its_state = layer.stream(x_BxTxC, its_state)
            new.append(its_state)
        return x_BxTxC, tuple(new)


class Residual(nnx.Module):
    """`shortcut(x) + block(x)`; without a shortcut, `x + block(x)`. Both keep the number of frames."""

    def __init__(self, block, shortcut=None):
        self.block, self.shortcut = block, shortcut

    def __call__(self, x_BxTxC: jax.Array, lengths_B: jax.Array | None = None) -> jax.Array:
        skipped = x_BxTxC if self.shortcut is None else self.shortcut(x_BxTxC, lengths_B)
        return skipped + self.block(x_BxTxC, lengths_B)

    def length(self, lengths):
        return lengths

    def start(self, batch: int, dtype=jnp.float32) -> tuple:
        return self.block.start(batch, dtype), () if self.shortcut is None else self.shortcut.start(batch, dtype)

    def stream(self, x_BxTxC: jax.Array, state: tuple) -> tuple[jax.Array, tuple]:
        of_block, of_shortcut = state
        y_BxTxC, of_block = self.block.stream(x_BxTxC, of_block)
        if self.shortcut is not None:
            x_BxTxC, of_shortcut = self.shortcut.stream(x_BxTxC, of_shortcut)
        return x_BxTxC + y_BxTxC, (of_block, of_shortcut)
