"""What training a language model computes: state, loss and step, of a config and the size of its vocabulary.

It needs no data, so that a run, a plan and a benchmark compile the same step.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jaxslm.models.decoder import Decoder, DecoderConfig, flops_per_token
from jaxslm.nn.loss import chunked_cross_entropy
from jaxslm.nn.quantized import product_of
from jaxslm.sharding import Partitioner
from jaxslm.training.compiled import compiler_options
from jaxslm.training.optimizer import make_optimizer
from jaxslm.training.state import TrainState, make_init
from jaxslm.training.step import LossFn, make_train_step

BATCH = {  # what a batch consists of, each [batch, context length]
    "tokens": jnp.int32,
    "targets": jnp.int32,
    "segment_ids": jnp.int32,
    "positions": jnp.int32,
    "objective": jnp.int32,
    "loss_weights": jnp.float32,
}


@dataclass(frozen=True)
class Program:
    """Functions as `Task` has them; `loss(model, batch)` is that of make_train_step."""

    model_config: DecoderConfig
    partitioner: Partitioner
    init: Callable[[jax.Array], TrainState]
    abstract_state: TrainState
    loss: LossFn  # as evaluated: unquantized
    step: Callable[[TrainState, Any], tuple[TrainState, Mapping[str, jax.Array]]]
    abstract_batch: Mapping[str, jax.ShapeDtypeStruct]
    accumulate_steps: int
    flops_per_step: float


def make_program(
    config: Mapping, *, vocab_size: int, padded_size: int, objectives: Sequence[str], partitioner: Partitioner
) -> Program:
    """The program of a config with `model`, `optimizer`, `steps`, `loss_chunks`, `data.batch_size` and
    `data.context_length`; ids from `vocab_size` up to `padded_size` are padding."""
    model_config = DecoderConfig(vocab_size=padded_size, **config["model"])
    optimizer, schedule = make_optimizer(config["optimizer"], config["steps"])
    init, abstract_state = make_init(functools.partial(Decoder, model_config), optimizer, partitioner)
    product_of(model_config.quantization)  # raises here what else the first step would
    evaluated, trained = (
        make_loss(config, vocab_size, len(objectives), partitioner, training=training) for training in (False, True)
    )
    step = make_train_step(
        trained,
        optimizer,
        schedule,
        objectives=objectives,
        accumulate_steps=config["optimizer"]["accumulate_steps"],
        state_shardings=jax.tree.map(lambda leaf: leaf.sharding, abstract_state),
        compiler_options=compiler_options(partitioner.mesh.devices.ravel()),
    )
    shape = config["data"]["batch_size"], config["data"]["context_length"]
    sharding = partitioner.batch_sharding()
    batch = {name: jax.ShapeDtypeStruct(shape, dtype, sharding=sharding) for name, dtype in BATCH.items()}
    flops = shape[0] * shape[1] * flops_per_token(model_config, shape[1])
    parts = config["optimizer"]["accumulate_steps"]
    return Program(model_config, partitioner, init, abstract_state, evaluated, step, batch, parts, flops)


def make_loss(
    config: Mapping, vocab_size: int, n_objectives: int, partitioner: Partitioner, *, training: bool = False
) -> LossFn:
    """`loss(model, batch) -> (total, sums)` for make_train_step; see chunked_cross_entropy for both.

    training: with the model's quantization.
    """

    def loss(model: Decoder, batch: Mapping[str, jax.Array]):
        hidden_BxTxD = model(
            batch["tokens"],
            positions_BxT=batch["positions"],
            segment_ids_BxT=batch["segment_ids"],
            constrain=partitioner.constrain,
            training=training,
        )
        return chunked_cross_entropy(
            hidden_BxTxD,
            model.unembedding(),
            batch["targets"],
            batch["loss_weights"],
            batch["objective"],
            n_objectives=n_objectives,
            vocab_size=vocab_size,
            n_chunks=config["loss_chunks"],
            z_loss=config["optimizer"]["z_loss"],
            constrain=partitioner.constrain,
        )

    return loss
