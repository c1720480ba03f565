"""Codebooks as state: looking codes up, running means, restarts of dead codes, metrics.

Sums run over all frames of the batch: of a batch that is sharded over devices, over those of all devices.

Legend: N frames of the batch, C features of a code, K codes, Q levels.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxslm.codec.quantizer_config import QuantizerConfig

EPSILON = 1e-5  # a code whose running usage would fall below this is left where it is
BLOCK = 8192  # codes looked at together: distances take [N, 8192]
_PRODUCT_CODES = 4096  # most codes for which membership is held as a matrix [N, K], off the CPU
_DEAD_SHARE = 0.1


class Codebooks(NamedTuple):
    """State of the levels of a quantizer, each with a leading axis Q; without it, of one level.

    usage_QxK: running mean of the frames a batch gives to each code, float32.
    sums_QxKxC: running mean of their sum, float32; a code is its sum over its usage. None where codes are parameters.
    batches_Q: batches learnt from, int32; 0 if still to be initialised by k-means.
    """

    usage_QxK: jax.Array
    sums_QxKxC: jax.Array | None
    batches_Q: jax.Array

    @classmethod
    def of(cls, codes_QxKxC: jax.Array) -> "Codebooks":
        """Codebooks with these codes, as published weights give them."""
        sums_QxKxC = jnp.asarray(codes_QxKxC, jnp.float32)
        return cls(jnp.ones(sums_QxKxC.shape[:2]), sums_QxKxC, jnp.ones(len(sums_QxKxC), jnp.int32))

    @property
    def codes_QxKxC(self) -> jax.Array:
        return self.sums_QxKxC / jnp.maximum(self.usage_QxK, EPSILON)[..., None]


def unit(x: jax.Array) -> jax.Array:
    """`x` with length 1 along its last axis, as `torch.nn.functional.normalize`."""
    return x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-12)


def nearest(x_NxC: jax.Array, codes_KxC: jax.Array, l2: bool = False) -> jax.Array:
    """Id of the nearest code, int32 [N], the first of equally near ones; with `l2` that at the smallest angle.

    float32 with full products: bfloat16 ones would change the nearest code.
    """
    x_NxC, codes_KxC = jax.lax.stop_gradient((x_NxC, codes_KxC))
    if l2:
        x_NxC, codes_KxC = unit(x_NxC), unit(codes_KxC)
    squares_K = jnp.sum(jnp.square(codes_KxC), axis=1)
    if len(codes_KxC) <= BLOCK:
        return _nearest(x_NxC, codes_KxC, squares_K)[1]
    padding = -len(codes_KxC) % BLOCK
    blocks_SxBxC = jnp.pad(codes_KxC, ((0, padding), (0, 0))).reshape(-1, BLOCK, codes_KxC.shape[1])
    squares_SxB = jnp.pad(squares_K, (0, padding), constant_values=jnp.inf).reshape(-1, BLOCK)

    def better(best, block):
        first, codes_BxC, squares_B = block
        least_N, ids_N = _nearest(x_NxC, codes_BxC, squares_B)
        nearer_N = least_N < best[0]
        return (jnp.where(nearer_N, least_N, best[0]), jnp.where(nearer_N, first + ids_N, best[1])), None

    firsts_S = jnp.arange(len(blocks_SxBxC), dtype=jnp.int32) * BLOCK
    none = jnp.full_like(x_NxC[:, 0], jnp.inf), jnp.zeros_like(x_NxC[:, 0], jnp.int32)
    return jax.lax.scan(better, none, (firsts_S, blocks_SxBxC, squares_SxB))[0][1]


def _nearest(x_NxC: jax.Array, codes_KxC: jax.Array, squares_K: jax.Array) -> tuple[jax.Array, jax.Array]:
    half_NxK = squares_K / 2 - jnp.matmul(x_NxC, codes_KxC.T, precision="highest")
    least_N = jnp.min(half_NxK, axis=1)
    # Two minima: XLA:CPU takes several times as long for `argmin`. Of a frame that is not a number, the last code.
    last = len(codes_KxC) - 1
    ids_NxK = jnp.where(half_NxK <= least_N[:, None], jnp.arange(last + 1, dtype=jnp.int32), last)
    return least_N, jnp.min(ids_NxK, axis=1)


def count(ids_N: jax.Array, real_N: jax.Array, k: int) -> jax.Array:
    """Real frames of each code, float32 [K]."""
    return jnp.zeros(k, jnp.float32).at[ids_N].add(real_N.astype(jnp.float32))


def add_up(ids_N: jax.Array, x_NxC: jax.Array, real_N: jax.Array, k: int) -> jax.Array:
    """Sum of the real frames of each code, float32 [K, C]."""

    def by_scatter(ids_N, x_NxC):
        return jnp.zeros((k, x_NxC.shape[1]), jnp.float32).at[ids_N].add(x_NxC)

    def by_product(ids_N, x_NxC):
        members_NxK = (ids_N[:, None] == jnp.arange(k)).astype(jnp.float32)
        return jnp.matmul(members_NxK.T, x_NxC, precision="highest")

    x_NxC = jnp.where(real_N[:, None], x_NxC, 0)
    if k > _PRODUCT_CODES:
        return by_scatter(ids_N, x_NxC)
    # A GPU scatters by atomic additions, in another order every time, and a TPU row after row; a product is ordered.
    return jax.lax.platform_dependent(ids_N, x_NxC, cpu=by_scatter, default=by_product)


def draw(x_NxC: jax.Array, real_N: jax.Array, wanted_K: jax.Array, key: jax.Array) -> jax.Array:
    """For each wanted code a real frame, [K, C], no frame twice while they last. Rows of other codes mean nothing."""
    n = min(len(x_NxC), len(wanted_K))
    draws_N = jnp.where(real_N, jax.random.uniform(key, real_N.shape), -1.0)
    order_n = jax.lax.top_k(draws_N, n)[1]
    last = jnp.clip(real_N.sum(), 1, n)
    rank_K = jnp.maximum(jnp.cumsum(wanted_K) - 1, 0)
    return x_NxC[order_n[rank_K % last]]


def kmeans(x_NxC: jax.Array, real_N: jax.Array, config: QuantizerConfig, key: jax.Array) -> Codebooks:
    """A level's codebook from the real frames of one batch, by Lloyd's algorithm from frames of it.

    Clusters that nothing is nearest to start again from a frame. Sums are means times usage, so that the first running
    mean moves codes by little (EnCodec's code stores the bare means, and its first step throws them away).
    """
    k = config.codebook_size

    def lloyd(i, found):
        means_KxC, _ = found
        ids_N = nearest(x_NxC, means_KxC, config.l2)
        counts_K = count(ids_N, real_N, k)
        sums_KxC = add_up(ids_N, x_NxC, real_N, k)
        fresh_KxC = draw(x_NxC, real_N, counts_K == 0, jax.random.fold_in(key, i))
        means_KxC = jnp.where(counts_K[:, None] > 0, sums_KxC / jnp.maximum(counts_K, 1)[:, None], fresh_KxC)
        return means_KxC, jnp.maximum(counts_K, 1)

    start = draw(x_NxC, real_N, jnp.ones(k, bool), jax.random.fold_in(key, config.kmeans_iterations)), jnp.ones(k)
    means_KxC, usage_K = jax.lax.fori_loop(0, config.kmeans_iterations, lloyd, start)
    return Codebooks(usage_K, means_KxC * usage_K[:, None], jnp.int32(1))


def learn(
    book: Codebooks, ids_N: jax.Array, x_NxC: jax.Array, real_N: jax.Array, config: QuantizerConfig, key: jax.Array
) -> Codebooks:
    """A level's codebook after a batch: running means, then restarts, which therefore stay as they were drawn."""
    k = config.codebook_size
    usage_K = config.decay * book.usage_QxK + (1 - config.decay) * count(ids_N, real_N, k)
    lives_K = usage_K > EPSILON
    after = book._replace(usage_QxK=jnp.where(lives_K, usage_K, book.usage_QxK), batches_Q=book.batches_Q + 1)
    if book.sums_QxKxC is None:
        return after
    sums_KxC = config.decay * book.sums_QxKxC + (1 - config.decay) * add_up(ids_N, x_NxC, real_N, k)
    after = after._replace(sums_QxKxC=jnp.where(lives_K[:, None], sums_KxC, book.sums_QxKxC))
    if config.restart == "none":
        return after
    due = after.batches_Q % config.restart_rule[1] == 0
    return jax.lax.cond(due, lambda: restart(after, x_NxC, real_N, config, key), lambda: after)


def restart(book: Codebooks, x_NxC: jax.Array, real_N: jax.Array, config: QuantizerConfig, key: jax.Array) -> Codebooks:
    """The codebook with its dead codes put on frames of this batch; usage and sum are replaced with them.

    A code is dead if its usage is below the threshold times an even share ("ratio": does not depend on the size of the
    batch); below the threshold ("absolute"); or below what a restarted code keeps to the next check if no frame takes
    it ("interval").
    """
    even = book.usage_QxK.mean()
    threshold, every = config.restart_rule
    limit, usage = {
        "ratio": lambda: (threshold * even, even),
        "absolute": lambda: (threshold, threshold),
        "interval": lambda: (config.decay ** (every - 0.5), 1.0),  # a frame on the way would have kept it above
    }[config.restart]()
    dead_K = book.usage_QxK < limit
    frames_KxC = draw(x_NxC, real_N, dead_K, key)
    return book._replace(
        usage_QxK=jnp.where(dead_K, usage, book.usage_QxK),
        sums_QxKxC=jnp.where(dead_K[:, None], usage * frames_KxC, book.sums_QxKxC),
    )


def measure(ids_N: jax.Array, real_N: jax.Array, book: Codebooks) -> dict[str, jax.Array]:
    """Metrics of a level; see `Quantized`."""
    counts_K = count(ids_N, real_N, len(book.usage_QxK))
    shares_K = counts_K / jnp.maximum(counts_K.sum(), 1)
    return {
        "usage": jnp.mean(counts_K > 0, dtype=jnp.float32),
        "perplexity": jnp.exp(-jnp.sum(jax.scipy.special.xlogy(shares_K, shares_K))),
        "dead": jnp.sum(book.usage_QxK < _DEAD_SHARE * book.usage_QxK.mean(), dtype=jnp.float32),
    }


def renewed(module):
    """A copy whose attributes may be set, also while tracing where the module was made outside."""
    leaves, structure = jax.tree.flatten(module)
    return jax.tree.unflatten(structure, leaves)


def check_codes(codes: jax.Array, size: int) -> None:
    """Raises ValueError where codes are known (not while tracing) and one is outside 0..size-1."""
    if isinstance(codes, jax.core.Tracer) or not codes.size:
        return
    least, most = int(np.min(codes)), int(np.max(codes))
    if least < 0 or most >= size:
        raise ValueError(f"codes run from {least} to {most}, but the codebook has {size}; use the codec that made them")
