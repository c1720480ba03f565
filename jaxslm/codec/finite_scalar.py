"""Finite scalar quantization: each of a few features is rounded to a few steps (Mentzer et al. 2023, appendix A).

Legend: B batch, T frames, D features of a frame, C features of a code.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxslm.codec import codebooks
from jaxslm.codec.codebooks import Codebooks
from jaxslm.codec.quantizer_config import Quantized, QuantizerConfig
from jaxslm.nn.layers import Linear

_EPSILON = 1e-3  # the outermost step is never quite reached by the tanh


class FiniteScalarQuantizer(nnx.Module):
    """Frames projected to one feature a number of `fsq_levels`, bounded, rounded, projected back.

    A code is `sum_i step_i * prod(fsq_levels[:i])`, steps from 0. There is one level and nothing to learn but the
    projections; `codebooks` holds only the running usage of codes, for the metrics. Of the config, `dim`,
    `fsq_levels` and `decay` count.
    """

    def __init__(self, config: QuantizerConfig, key: jax.Array):
        self.config = config
        key_in, key_out = jax.random.split(key)
        d, c = config.dim, len(config.fsq_levels)
        self.project_in = Linear(d, c, key_in, axes=(None, None), bias=True, std=d**-0.5)
        self.project_out = Linear(c, d, key_out, axes=(None, None), bias=True, std=c**-0.5)
        self.codebooks = nnx.data(Codebooks(jnp.ones((1, self.size)), None, jnp.zeros(1, jnp.int32)))

    @property
    def size(self) -> int:
        return math.prod(self.config.fsq_levels)

    @property
    def n_codebooks(self) -> int:
        return 1

    def with_codebooks(self, state: Codebooks | None) -> "FiniteScalarQuantizer":
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
        """As `ResidualQuantizer`, with one level and no losses; nothing is drawn."""
        if n_levels not in (None, 1):
            raise ValueError(f"n_levels={n_levels}, but finite scalar quantization has one level; ask for 1")
        with jax.default_matmul_precision("highest"):
            rounded = self._round(self.project_in(z_BxTxD.astype(jnp.float32)))
            half_C = self._steps // 2
            values = self.project_out(rounded / half_C)
        steps = jax.lax.stop_gradient(rounded) + half_C
        ids_BxT = jnp.sum(jnp.nan_to_num(steps).astype(jnp.int32) * self._places, axis=-1)
        counts_N = (real_BxT & jnp.isfinite(steps).all(axis=-1)).reshape(-1)
        ids_N = ids_BxT.reshape(-1)
        book = jax.tree.map(lambda x: x[0], self.codebooks)
        if train:
            decay = self.config.decay
            usage_K = decay * book.usage_QxK + (1 - decay) * codebooks.count(ids_N, counts_N, self.size)
            book = Codebooks(usage_K, None, book.batches_Q + 1)
        metrics = codebooks.measure(ids_N, counts_N, book)
        state, metrics = jax.tree.map(lambda x: x[None], (book, metrics))
        none = jnp.float32(0)
        return Quantized(values.astype(z_BxTxD.dtype), ids_BxT[..., None], none, none, state, metrics)

    def encode(self, z_BxTxD: jax.Array, n_levels: int | None = None) -> jax.Array:
        """Codes of frames, int32 [B, T, 1]."""
        return self(z_BxTxD, jnp.ones(z_BxTxD.shape[:2], bool), n_levels=n_levels).codes_BxTxQ

    def decode(self, codes_BxTx1: jax.Array) -> jax.Array:
        """Values of codes, float32 [B, T, D]. Raises ValueError for more than one a frame, or out of range."""
        if codes_BxTx1.shape[-1] != 1:
            raise ValueError(f"codes have {codes_BxTx1.shape[-1]} levels, but finite scalar quantization has one")
        codebooks.check_codes(codes_BxTx1, self.size)
        steps = codes_BxTx1 // self._places % self._steps
        with jax.default_matmul_precision("highest"):
            return self.project_out((steps - self._steps // 2) / (self._steps // 2))

    @property
    def _steps(self) -> np.ndarray:
        return np.array(self.config.fsq_levels, np.int32)

    @property
    def _places(self) -> np.ndarray:
        return np.cumprod([1, *self.config.fsq_levels[:-1]], dtype=np.int32)

    def _round(self, x: jax.Array) -> jax.Array:
        """Whole numbers from -(L // 2), L of them; 0 for 0. Gradients pass the rounding as they are."""
        half = (self._steps - 1) * (1 - _EPSILON) / 2
        offset = np.where(self._steps % 2, 0.0, 0.5)
        half, offset, shift = (array.astype(np.float32) for array in (half, offset, np.arctanh(offset / half)))
        bounded = jnp.tanh(x + shift) * half - offset
        return bounded + jax.lax.stop_gradient(jnp.round(bounded) - bounded)
