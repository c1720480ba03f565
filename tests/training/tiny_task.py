"""A small real task for the tests of training: two objectives, stacked layers, any mesh.

As a program (`python -m tests.training.tiny_task --workdir=... --config.KEY=VALUE`) it is launch/train.py for this
task.
"""

import logging
import os
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from jaxslm import configure
from jaxslm.sharding import make_partitioner
from jaxslm.training import distributed, loop, optimizer, state, step
from jaxslm.training.task import Task

VOCABULARY, WIDTH, ROWS, LENGTH = 32, 16, 8, 12
OBJECTIVES = ("text", "speech")


class Block(nnx.Module):
    def __init__(self, key):
        self.weight = nnx.Param(jax.random.normal(key, (WIDTH, WIDTH)) * 0.2, logical_axes=("embed", "ffn"))
        self.bias = nnx.Param(jnp.zeros(WIDTH), logical_axes=("ffn",))


class Bigram(nnx.Module):
    """Predicts the next token from this one, through two stacked residual layers."""

    def __init__(self, key):
        first, second = jax.random.split(key)
        table = jax.random.normal(first, (VOCABULARY, WIDTH))
        self.table = nnx.Param(table, logical_axes=("vocab", "embed"))
        self.layers = jax.vmap(Block)(jax.random.split(second, 2))

    def __call__(self, tokens_BxT):
        layer = lambda x, block: (x + jnp.tanh(x @ block.weight[...] + block.bias[...]), None)  # noqa: E731
        x, _ = jax.lax.scan(layer, self.table[...][tokens_BxT], self.layers)
        return x @ self.table[...].T


def loss(model, batch):
    logp = jax.nn.log_softmax(model(batch["tokens"]))
    nll = -jnp.take_along_axis(logp, batch["targets"][..., None], -1)[..., 0] * batch["weights"]
    on = jax.nn.one_hot(batch["objective"], len(OBJECTIVES))
    sums = {"nll_O": jnp.einsum("bt,bto->o", nll, on), "weight_O": jnp.einsum("bt,bto->o", batch["weights"], on)}
    return nll.sum(), sums


def batch_of(seed, n, bad=()):
    """Batch after `n` others; rows of objective 1 are shorter, a step in `bad` has an infinite weight."""
    rng = np.random.default_rng([seed, n])
    tokens = rng.integers(VOCABULARY, size=(ROWS, LENGTH), dtype=np.int32)
    objective = np.broadcast_to(np.arange(ROWS, dtype=np.int32)[:, None] % 2, tokens.shape)
    weights = np.where((objective == 1) & (np.arange(LENGTH) > 6), 0, 1).astype(np.float32)
    if n + 1 in bad:
        weights = np.full_like(weights, np.inf)
    share = ROWS // jax.process_count()
    mine = slice(jax.process_index() * share, (jax.process_index() + 1) * share)
    batch = dict(tokens=tokens, targets=(tokens * 5 + 3) % VOCABULARY, weights=weights, objective=objective)
    return {name: np.ascontiguousarray(x[mine]) for name, x in batch.items()}


def get_config(arg: str = "") -> ConfigDict:
    return ConfigDict(
        dict(
            seed=0,
            steps=30,
            log_every=1,
            profile_steps="",
            init_from="",
            checkpoint=dict(every=5, keep=2),
            eval=dict(every=7),
            export=dict(every=0),
            mesh=dict(data=-1, fsdp=1, tensor=1, sequence=1),
            optimizer=dict(
                peak_lr=0.02,
                final_lr=0.0,
                schedule="cosine",
                warmup_steps=3,
                b1=0.9,
                b2=0.95,
                eps=1e-8,
                weight_decay=0.1,
                clip_norm=1.0,
                moment_dtype="float32",
                accumulate_steps=1,
                max_skipped=3,
            ),
            vocabulary="a",
            bad_steps=(0,),
            step_seconds=0.0,
            fill_megabytes=0,  # ballast in the state, to make its checkpoint large
        )
    )


def make(config, devices=None) -> Task:
    partitioner = make_partitioner(config.mesh, devices)
    adamw, schedule = optimizer.make_optimizer(
        config.optimizer, 30
    )  # not config.steps: tests stop a run by lowering it

    def build(key):
        model = Bigram(key)
        if config.fill_megabytes:
            noise = jax.random.normal(key, (config.fill_megabytes, 2**18))
            model.ballast = nnx.Param(noise, logical_axes=("layers", "head_dim"))
        return model

    init, abstract = state.make_init(build, adamw, partitioner)
    train_step = step.make_train_step(
        loss,
        adamw,
        schedule,
        objectives=OBJECTIVES,
        accumulate_steps=config.optimizer.accumulate_steps,
        state_shardings=jax.tree.map(lambda x: x.sharding, abstract),
    )
    sums_of = jax.jit(lambda model, batch: loss(model, batch)[1])

    def batches(n):
        while True:
            time.sleep(config.step_seconds)
            yield batch_of(config.seed, n, config.bad_steps)
            n += 1

    def evaluate(train_state):
        sums = sums_of(train_state.model, step.put_batch(batch_of(99, 0), partitioner.batch_sharding()))
        return {"loss": float(sums["nll_O"].sum() / sums["weight_O"].sum())}

    def samples(train_state, folder: Path, at: int) -> str:
        if jax.process_index() == 0:  # which made the folder
            (folder / f"{at}.txt").write_text("a sample")
        return "sample: a sample"

    return Task(
        init=init,
        step=train_step,
        batches=batches,
        batch_sharding=partitioner.batch_sharding(),
        abstract_state=lambda: abstract,
        work_per_step=ROWS * LENGTH,
        flops_per_step=1e6,
        evaluate=evaluate,
        samples=samples,
        artifacts={"vocabulary.json": {"units": config.vocabulary}},
    )


def main() -> None:
    sys.modules["torch"] = None  # tensorboardX would import it for seconds
    logging.basicConfig(format="%(message)s", force=True)
    logging.getLogger("jaxslm").setLevel(logging.INFO)
    source = f"--config={os.path.relpath(__file__)}"
    config, others = configure.from_arguments([source, *sys.argv[1:]])
    distributed.start()
    loop.run(make(config), config, others[0].removeprefix("--workdir="))


if __name__ == "__main__":
    main()
