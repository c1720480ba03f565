"""Quantizers of a codec, by kind; those here are made of residual quantizers.

Every quantizer: `quantizer(z_BxTxD, real_BxT, key=, train=, n_levels=) -> Quantized`, `encode(z, n_levels) -> codes`,
`decode(codes) -> values`. Its `codebooks` are state that a training step returns in `Quantized.codebooks`, is stored
beside the parameters and put back by `with_codebooks`; `with_codebooks(None)` leaves the parameters alone.

Legend: B batch, T frames, D features of a frame, Q codes of a frame.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxslm.codec.codebooks import renewed
from jaxslm.codec.finite_scalar import FiniteScalarQuantizer
from jaxslm.codec.quantizer_config import Quantized, QuantizerConfig
from jaxslm.codec.residual import ResidualQuantizer


class _Joined(nnx.Module):
    """Several residual quantizers as one; their states are a tuple. All draw from one key, so that an item passes
    unquantized, and drops levels, in all of them or in none.
    """

    parts: nnx.List

    @property
    def n_codebooks(self) -> int:
        return sum(part.n_codebooks for part in self.parts)

    @property
    def codebooks(self) -> tuple:
        return tuple(part.codebooks for part in self.parts)

    def with_codebooks(self, state: tuple | None):
        states = [None] * len(self.parts) if state is None else state
        new = renewed(self)
        new.parts = nnx.List([part.with_codebooks(s) for part, s in zip(self.parts, states, strict=True)])
        return new

    def encode(self, z_BxTxD: jax.Array, n_levels: int | None = None) -> jax.Array:
        """Codes of frames, int32 [B, T, Q]."""
        return self(z_BxTxD, jnp.ones(z_BxTxD.shape[:2], bool), n_levels=n_levels).codes_BxTxQ


class SplitResidualQuantizer(_Joined):
    """Mimi's: `n_semantic` levels and the rest quantize the same frames, each half between projections of its own, and
    their values are added. Levels count through both halves, the semantic ones first, and only the others drop out.
    """

    def __init__(self, config: QuantizerConfig, key: jax.Array):
        self.config = config
        n_acoustic = config.n_levels - config.n_semantic
        semantic = dataclasses.replace(config, kind="rvq", n_levels=config.n_semantic, dropout=0.0)
        acoustic = dataclasses.replace(config, kind="rvq", n_levels=n_acoustic)
        keys = jax.random.split(key)
        self.parts = nnx.List([ResidualQuantizer(c, k) for c, k in zip((semantic, acoustic), keys, strict=True)])

    def __call__(
        self,
        z_BxTxD: jax.Array,
        real_BxT: jax.Array,
        *,
        key: jax.Array | None = None,
        train: bool = False,
        n_levels: int | None = None,
    ) -> Quantized:
        """As `ResidualQuantizer`; no fewer than the semantic levels."""
        n_levels = self._checked(self.config.n_levels if n_levels is None else n_levels)
        n_parts = self.config.n_semantic, n_levels - self.config.n_semantic
        parts = [
            part(z_BxTxD, real_BxT, key=key, train=train, n_levels=n)
            for part, n in zip(self.parts, n_parts, strict=True)
            if n
        ]
        state = *(part.codebooks for part in parts), *self.codebooks[len(parts) :]
        weights = [n / n_levels for n in n_parts if n]
        return Quantized(
            values_BxTxD=sum(part.values_BxTxD for part in parts),
            codes_BxTxQ=jnp.concatenate([part.codes_BxTxQ for part in parts], axis=-1),
            commitment=sum(w * part.commitment for w, part in zip(weights, parts, strict=True)),
            codebook_loss=sum(w * part.codebook_loss for w, part in zip(weights, parts, strict=True)),
            codebooks=state,
            metrics=jax.tree.map(lambda *values_Q: jnp.concatenate(values_Q), *(part.metrics for part in parts)),
        )

    def decode(self, codes_BxTxQ: jax.Array) -> jax.Array:
        """Values of codes of the first levels, float32 [B, T, D]."""
        n_semantic = self.config.n_semantic
        n_levels = self._checked(codes_BxTxQ.shape[-1])
        values = self.parts[0].decode(codes_BxTxQ[..., :n_semantic])
        return values if n_levels == n_semantic else values + self.parts[1].decode(codes_BxTxQ[..., n_semantic:])

    def _checked(self, n_levels: int) -> int:
        least, most = self.config.n_semantic, self.config.n_levels
        if not least <= n_levels <= most:
            raise ValueError(f"n_levels={n_levels}, but the split quantizer takes {least} to {most}")
        return n_levels


class GroupedResidualQuantizer(_Joined):
    """HiFi-Codec's: each of `n_groups` equal parts of the features has an RVQ of `n_levels`.

    Codes are ordered by level, then group, so that the first codes are a coarser version; `n_levels` counts levels of
    a group, `codebook_dim` features of a group's code.
    """

    def __init__(self, config: QuantizerConfig, key: jax.Array):
        self.config = config
        part = dataclasses.replace(config, kind="rvq", dim=config.dim // config.n_groups)
        self.parts = nnx.List([ResidualQuantizer(part, k) for k in jax.random.split(key, config.n_groups)])

    def __call__(
        self,
        z_BxTxD: jax.Array,
        real_BxT: jax.Array,
        *,
        key: jax.Array | None = None,
        train: bool = False,
        n_levels: int | None = None,
    ) -> Quantized:
        """As `ResidualQuantizer`."""
        n_groups = self.config.n_groups
        parts = [
            part(z, real_BxT, key=key, train=train, n_levels=n_levels)
            for part, z in zip(self.parts, jnp.split(z_BxTxD, n_groups, axis=-1), strict=True)
        ]

        def by_level(*arrays: jax.Array) -> jax.Array:
            stacked = jnp.stack(arrays, axis=-1)
            return stacked.reshape(*stacked.shape[:-2], -1)

        return Quantized(
            values_BxTxD=jnp.concatenate([part.values_BxTxD for part in parts], axis=-1),
            codes_BxTxQ=by_level(*(part.codes_BxTxQ for part in parts)),
            commitment=sum(part.commitment for part in parts) / n_groups,
            codebook_loss=sum(part.codebook_loss for part in parts) / n_groups,
            codebooks=tuple(part.codebooks for part in parts),
            metrics=jax.tree.map(by_level, *(part.metrics for part in parts)),
        )

    def decode(self, codes_BxTxQ: jax.Array) -> jax.Array:
        """Values of codes, float32 [B, T, D]. Raises ValueError unless there is one a group for each of some levels."""
        n_groups = self.config.n_groups
        if codes_BxTxQ.shape[-1] % n_groups:
            raise ValueError(f"{codes_BxTxQ.shape[-1]} codes a frame are no whole levels of {n_groups} groups")
        values = [part.decode(codes_BxTxQ[..., g::n_groups]) for g, part in enumerate(self.parts)]
        return jnp.concatenate(values, axis=-1)


KINDS: dict[str, Any] = {
    "rvq": ResidualQuantizer,
    "split_rvq": SplitResidualQuantizer,
    "grouped_rvq": GroupedResidualQuantizer,
    "fsq": FiniteScalarQuantizer,
}


def make_quantizer(config: QuantizerConfig, key: jax.Array):
    """The quantizer of this config, initialised from `key`."""
    return KINDS[config.kind](config, key)
