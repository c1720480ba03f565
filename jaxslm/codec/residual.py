"""Residual vector quantization: each level quantizes what those before it left.

Legend: B batch, T frames, N = B * T, D features of a frame, C features of a code, Q levels, K codes of a level.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from jaxslm.codec import codebooks
from jaxslm.codec.codebooks import Codebooks
from jaxslm.codec.quantizer_config import Quantized, QuantizerConfig
from jaxslm.codec.straight_through import pass_gradient
from jaxslm.nn.layers import Linear


class _Level(NamedTuple):
    """What one level has of its own; stacked, with a leading axis Q, that of all."""

    book: Codebooks
    codes: jax.Array | None  # [K, C] where learnt by gradient
    project_in: Linear | None
    project_out: Linear | None


class ResidualQuantizer(nnx.Module):
    """RVQ (SoundStream; EnCodec; DAC with one projection a level; Mimi's halves with one around all).

    `codebooks` is state, not parameters: `with_codebooks(None)` is what an optimizer sees. Everything is computed in
    float32, whatever the dtype of the frames. `kind`, `n_semantic` and `n_groups` of the config are not looked at.
    """

    def __init__(self, config: QuantizerConfig, key: jax.Array):
        self.config = config
        q, k, c, d = config.n_levels, config.codebook_size, config.code_dim, config.dim
        keys = jax.random.split(key, 3)

        def linear(d_in: int, d_out: int, key: jax.Array, bias: bool) -> Linear:
            return Linear(d_in, d_out, key, axes=(None, None), bias=bias, std=d_in**-0.5)

        def stacked(d_in: int, d_out: int, key: jax.Array) -> Linear:
            return jax.vmap(lambda key: linear(d_in, d_out, key, True))(jax.random.split(key, q))

        shared, level = config.projection == "shared", config.projection == "level"
        self.project_in = linear(d, c, keys[0], False) if shared else None
        self.project_out = linear(c, d, keys[1], False) if shared else None
        self.level_in = stacked(d, c, keys[0]) if level else None
        self.level_out = stacked(c, d, keys[1]) if level else None
        if config.learning == "gradient":
            codes_QxKxC = jax.random.uniform(keys[2], (q, k, c), jnp.float32, -1 / k, 1 / k)  # as VQ-VAE
            self.codes = nnx.Param(codes_QxKxC, logical_axes=(None, None, None))
            sums_QxKxC = None
        else:
            self.codes = None
            limit = (6 / c) ** 0.5  # EnCodec's `kaiming_uniform_`
            sums_QxKxC = jax.random.uniform(keys[2], (q, k, c), jnp.float32, -limit, limit)
            sums_QxKxC = sums_QxKxC if config.started else jnp.zeros_like(sums_QxKxC)
        self.codebooks = nnx.data(Codebooks(jnp.ones((q, k)), sums_QxKxC, jnp.zeros(q, jnp.int32)))

    @property
    def n_codebooks(self) -> int:
        """Codes of a frame."""
        return self.config.n_levels

    def with_codebooks(self, state: Codebooks | None) -> "ResidualQuantizer":
        """The same quantizer with this state."""
        new = codebooks.renewed(self)
        new.codebooks = nnx.data(state)
        return new

    def __call__(
        self,
        z_BxTxD: jax.Array,
        real_BxT: jax.Array,
        *,
        key: jax.Array | None = None,
        train: bool = False,
        n_levels: int | None = None,
    ) -> Quantized:
        """Quantizes frames with the first `n_levels` levels, all by default.

        Codes come from the codebooks as they were, or as k-means has just made them. A level is initialised only once
        that before it was on an earlier batch: behind codes fitted to this very batch, little is left to learn from.
        Until then its values are 0 and it has no losses. Frames that are not finite are padding to the codebooks.

        Raises ValueError for too many levels, and for training without a key.
        """
        config, n_levels = self.config, self._checked(n_levels)
        if train and key is None:
            raise ValueError("a quantizer in training draws frames and levels; give it a key")
        with jax.default_matmul_precision("highest"):
            z = z_BxTxD.astype(jnp.float32)
            x = z if self.project_in is None else self.project_in(z)
            keys = jax.random.split(key, 3) if train else [jax.random.key(0)] * 3  # drawn from in training only
            used_B = _levels_used(len(z), n_levels, config.dropout if train else 0.0, keys[0])

            def level(carry, this):
                return self._level(*carry, *this, used_B, real_BxT, train)

            levels = jax.tree.map(lambda stack: stack[:n_levels], self._levels())
            numbers = jnp.arange(n_levels)
            start = x, jnp.zeros_like(x), jnp.bool(True)
            (_, total, _), (ids, losses, books, metrics) = jax.lax.scan(
                level, start, (levels, numbers, jax.random.split(keys[1], n_levels))
            )
            values = total if self.level_out is not None else pass_gradient(x, total, config.rotation)
            if train and config.no_quantization_rate:
                skips_B = jax.random.bernoulli(keys[2], config.no_quantization_rate, (len(z),))
                values = jnp.where(skips_B[:, None, None], x, values)
            values = values if self.project_out is None else self.project_out(values)
        state = self.codebooks
        if train:
            state = jax.tree.map(lambda new, old: jnp.concatenate([new, old[n_levels:]]), books, state)
        commitment, codebook_loss = losses[:, 0].mean(), losses[:, 1].mean()
        codes_BxTxQ = jnp.moveaxis(ids, 0, -1)
        return Quantized(values.astype(z_BxTxD.dtype), codes_BxTxQ, commitment, codebook_loss, state, metrics)

    def encode(self, z_BxTxD: jax.Array, n_levels: int | None = None) -> jax.Array:
        """Codes of frames, int32 [B, T, n_levels]."""
        return self(z_BxTxD, jnp.ones(z_BxTxD.shape[:2], bool), n_levels=n_levels).codes_BxTxQ

    def decode(self, codes_BxTxQ: jax.Array) -> jax.Array:
        """Values of codes of the first levels, float32 [B, T, D]. Raises ValueError for too many, or out of range."""
        n_levels = self._checked(codes_BxTxQ.shape[-1])
        codebooks.check_codes(codes_BxTxQ, self.config.codebook_size)
        levels = jax.tree.map(lambda stack: stack[:n_levels], self._levels())

        def add(total, this):
            level, ids_BxT = this
            return total + self._value(level, _codes(level)[ids_BxT]), None

        with jax.default_matmul_precision("highest"):
            dim = self.config.code_dim if self.level_out is None else self.config.dim
            start = jnp.zeros((*codes_BxTxQ.shape[:2], dim))
            total, _ = jax.lax.scan(add, start, (levels, jnp.moveaxis(codes_BxTxQ, -1, 0)))
            return total if self.project_out is None else self.project_out(total)

    def _checked(self, n_levels: int | None) -> int:
        n_levels = self.config.n_levels if n_levels is None else n_levels
        if not 0 < n_levels <= self.config.n_levels:
            raise ValueError(
                f"n_levels={n_levels}, but the quantizer has {self.config.n_levels}; ask for 1 to that many"
            )
        return n_levels

    def _levels(self) -> _Level:
        codes = None if self.codes is None else self.codes[...]
        return _Level(self.codebooks, codes, self.level_in, self.level_out)

    @staticmethod
    def _value(level: _Level, code: jax.Array) -> jax.Array:
        return code if level.project_out is None else level.project_out(code)

    def _level(self, residual, total, may_start, level: _Level, number, key, used_B, real_BxT, train: bool):
        """One step of the scan: ((residual, total, whether the next may start), (ids, losses, codebook, metrics))."""
        config, book = self.config, level.book
        x_BxTxC = residual if level.project_in is None else level.project_in(residual)
        x_NxC = jax.lax.stop_gradient(x_BxTxC).reshape(-1, config.code_dim)
        counts_N = real_BxT.reshape(-1) & jnp.isfinite(x_NxC).all(axis=1)
        was_started = config.started | (book.batches_Q > 0)
        if train and not config.started:
            starts = ~was_started & may_start & counts_N.any()
            book = jax.lax.cond(starts, lambda: codebooks.kmeans(x_NxC, counts_N, config, key), lambda: book)
        is_started = config.started | (book.batches_Q > 0)

        codes_KxC = _codes(level._replace(book=book))
        ids_N = codebooks.nearest(x_NxC, codes_KxC, config.l2)
        code_BxTxC = codes_KxC[ids_N].reshape(x_BxTxC.shape)
        if train:
            learnt = codebooks.learn(book, ids_N, x_NxC, counts_N, config, key)
            learns = is_started & counts_N.any()
            book = jax.tree.map(lambda new, old: jnp.where(learns, new, old), learnt, book)
        metrics = codebooks.measure(ids_N, counts_N, book)

        used_Bx1 = number < used_B[:, None]
        counted_BxT = used_Bx1 & real_BxT & is_started
        n_real = jnp.maximum(real_BxT.sum(), 1)

        def loss(moving, still):
            error_BxT = jnp.square(moving - jax.lax.stop_gradient(still)).mean(axis=-1)
            return jnp.sum(jnp.where(counted_BxT, error_BxT, 0)) / n_real

        losses = jnp.stack(
            [loss(x_BxTxC, code_BxTxC), jnp.float32(0) if self.codes is None else loss(code_BxTxC, x_BxTxC)]
        )
        if level.project_out is None:
            # Detached, so that the commitment of this level and those after it reaches the frames whole; gradients
            # of the values go around all levels at once.
            value = jax.lax.stop_gradient(code_BxTxC)
        else:
            # As DAC: gradients reach the projections through the level, and what it passes on is what it left.
            value = level.project_out(pass_gradient(x_BxTxC, code_BxTxC, config.rotation))
        total = total + jnp.where(used_Bx1[..., None], value, 0)
        return (residual - value, total, was_started), (ids_N.reshape(real_BxT.shape), losses, book, metrics)


def _codes(level: _Level) -> jax.Array:
    return level.book.codes_QxKxC if level.codes is None else level.codes


def _levels_used(batch: int, n_levels: int, share: float, key: jax.Array) -> jax.Array:
    """Levels that count for each item, int32 [B]."""
    drawn_B = jax.random.randint(key, (batch,), 1, n_levels + 1)
    return jnp.where(jnp.arange(batch) < int(share * batch), drawn_B, n_levels)
