"""Every remedy for collapsed codebooks against its absence, on frames whose best codes all get used.

Frames are drawn anew for each batch: 1,500 modes in 24 directions of 64 features, with a mean far from 0, as those of
an untrained encoder have. Nothing but the quantizer is trained: EMA codebooks by themselves, gradient codebooks and
projections by Adam on the reconstruction, the codebook loss and a quarter of the commitment. Usage, perplexity and the
error (of the variance) are those of fresh frames. `ours` and `peer` are the perplexities with and without k-means
initialisation and restarts.

    python launch/bench.py codebooks
"""

import argparse
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxslm.benchmarks.measure import report
from jaxslm.codec.quantizer_config import QuantizerConfig
from jaxslm.codec.quantizers import make_quantizer

DIM = 64
MODES = 1500
EVALUATION = 16  # batches

_NOTHING = dict(kmeans_iterations=0, restart="none")
_GRADIENT = dict(learning="gradient")
_LOW = dict(projection="level", codebook_dim=8)

# Name of a row: its QuantizerConfig. Rows that learn by gradient get more batches.
ROWS: dict[str, dict[str, Any]] = {
    "EMA": _NOTHING,
    "EMA, k-means": dict(restart="none"),
    "EMA, ratio restart": dict(kmeans_iterations=0),
    "EMA, absolute restart": dict(kmeans_iterations=0, restart="absolute"),
    "EMA, interval restart": dict(kmeans_iterations=0, restart="interval"),
    "EMA, k-means, ratio restart": {},
    "EMA, k-means, absolute restart": dict(restart="absolute"),
    "EMA, k-means, interval restart": dict(restart="interval"),
    "gradient": _GRADIENT,
    "gradient, l2": _GRADIENT | dict(l2=True),
    "gradient, 8-d": _GRADIENT | _LOW,
    "gradient, 8-d, l2": _GRADIENT | _LOW | dict(l2=True),
    "EMA, 8-d": _LOW | _NOTHING,
    "EMA, 8-d, k-means, ratio restart": _LOW,
    "FSQ 8 x 8 x 8": dict(kind="fsq", fsq_levels=(8, 8, 8)),
}


class Mixture(NamedTuple):
    """A mixture of modes, seen through `directions` and off the origin."""

    modes: jax.Array
    ends: jax.Array  # cumulative weights
    directions: jax.Array
    mean: jax.Array

    @classmethod
    def make(cls, modes: int = MODES, dim: int = DIM) -> "Mixture":
        rng = np.random.default_rng(0)
        ends = np.cumsum(rng.dirichlet(np.full(modes, 3.0)))
        arrays = rng.normal(size=(modes, 24)), ends, rng.normal(size=(24, dim)) / np.sqrt(24), rng.normal(size=dim)
        return cls(*(jnp.asarray(array, jnp.float32) for array in arrays))

    def draw(self, key: jax.Array, n: int) -> jax.Array:
        """Frames, float32 [1, n, dim]."""
        which, near, noise = jax.random.split(key, 3)
        mode_n = jnp.minimum(jnp.searchsorted(self.ends, jax.random.uniform(which, (n,))), len(self.modes) - 1)
        latent = self.modes[mode_n] + 0.2 * jax.random.normal(near, (n, 24))
        frames = latent @ self.directions + 0.1 * jax.random.normal(noise, (n, len(self.mean)))
        return (frames + self.mean)[None]


def fit(config: QuantizerConfig, mixture: Mixture, *, steps: int, batch: int, rate: float = 3e-3, seed: int = 0):
    """A quantizer trained on `steps` batches of so many frames."""
    start, draws = jax.random.split(jax.random.key(seed))
    quantizer = make_quantizer(config, start)
    optimizer = optax.adam(rate)
    real = jnp.ones((1, batch), bool)

    def loss(model, state, frames, key):
        found = model.with_codebooks(state)(frames, real, key=key, train=True)
        error = jnp.mean(jnp.square(found.values_BxTxD - frames))
        return error + found.codebook_loss + 0.25 * found.commitment, found.codebooks

    def step(carry, key):
        model, moments, state = carry
        frames_key, own_key = jax.random.split(key)
        frames = mixture.draw(frames_key, batch)
        grads, state = jax.grad(loss, has_aux=True)(model, state, frames, own_key)
        updates, moments = optimizer.update(grads, moments)
        return (optax.apply_updates(model, updates), moments, state), None

    @jax.jit
    def run(model, state, keys):
        return jax.lax.scan(step, (model, optimizer.init(model), state), keys)[0]

    model, _, state = run(quantizer.with_codebooks(None), quantizer.codebooks, jax.random.split(draws, steps))
    return model.with_codebooks(state)


def judge(quantizer, mixture: Mixture, batch: int) -> dict[str, float]:
    """Usage, perplexity and error over the variance, on frames that were not trained on."""
    frames = mixture.draw(jax.random.key(12345), EVALUATION * batch)
    found = jax.jit(lambda quantizer, frames: quantizer(frames, jnp.ones(frames.shape[:2], bool)))(quantizer, frames)
    error = jnp.mean(jnp.square(found.values_BxTxD - frames)) / jnp.mean(jnp.var(frames, axis=1))
    metrics = {name: float(found.metrics[name][0]) for name in ("usage", "perplexity")}
    return metrics | {"error": float(error)}


def run(argv: list[str]) -> dict:
    """Trains and judges every row; see `measure.report`."""
    parser = argparse.ArgumentParser(prog="bench.py codebooks", formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--codes", type=int, default=512)
    parser.add_argument("--batch", type=int, default=2048)
    parser.add_argument("--steps", type=int, default=400, help="of rows whose codes are running means alone")
    parser.add_argument("--gradient-steps", type=int, default=3000, help="of rows with anything learnt by gradient")
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=list(ROWS), metavar="ROW")
    flags = parser.parse_args(argv)
    mixture = Mixture.make()
    width = max(map(len, flags.rows))
    print(f"{'':<{width}}  steps  usage  perplexity  (of K)  error  seconds")
    rows = {}
    for name in flags.rows:
        config = QuantizerConfig(**dict(dim=DIM, n_levels=1, codebook_size=flags.codes) | ROWS[name])
        alone = config.kind == "rvq" and config.learning == "ema" and config.projection == "none"
        steps = flags.steps if alone else flags.gradient_steps
        start = time.perf_counter()
        row = judge(fit(config, mixture, steps=steps, batch=flags.batch), mixture, flags.batch)
        rows[name] = row | {"steps": steps}
        print(
            f"{name:<{width}}  {steps:>5}  {row['usage']:>5.3f}  {row['perplexity']:>10.1f}  "
            f"{row['perplexity'] / flags.codes:>6.2f}  {row['error']:>5.3f}  {time.perf_counter() - start:>7.1f}",
            flush=True,
        )
    ours, peer = rows.get("EMA, k-means, ratio restart"), rows.get("EMA")
    return report(
        "codebooks",
        ours=ours["perplexity"] if ours else None,
        peer=peer["perplexity"] if ours and peer else None,
        unit=f"perplexity of {flags.codes} codes, with k-means and restarts and without",
        shapes={key: value for key, value in vars(flags).items() if key != "rows"},
        packages=("jax", "optax"),
        rows=rows,
    )
