"""What the tasks that train adversarially have in common: a codec and a unit vocoder."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxslm.codec.adversarial import AdversarialTraining, Generator
from jaxslm.codec.objective import Objective
from jaxslm.sharding import Partitioner
from jaxslm.training.optimizer import make_optimizer
from jaxslm.training.step import put_batch

Row = Mapping[str, np.ndarray]


def plain(config: Any) -> dict[str, Any]:
    """A part of a config as a dict."""
    return config.to_dict() if hasattr(config, "to_dict") else dict(config)


def adversarial_training(config: Mapping, sample_rate: int, generator: Generator) -> AdversarialTraining:
    """Losses, optimizers and the rest of what a step is made of, of a config with `optimizer` {name of the generator,
    "discriminators"}, `losses`, `average_decay` and `dtype`.
    """
    names = (generator.name, "discriminators")
    made = {name: make_optimizer(config["optimizer"][name], config["steps"]) for name in names}
    return AdversarialTraining(
        generator,
        Objective(plain(config["losses"]), sample_rate),
        {name: optimizer for name, (optimizer, _) in made.items()},
        {name: schedule for name, (_, schedule) in made.items()},
        average_decay=config["average_decay"],
        dtype=config["dtype"],
    )


def evaluation(
    rows: Sequence[Row],
    size: int,
    measure: Callable[[Any, Mapping[str, jax.Array]], Mapping[str, tuple[jax.Array, jax.Array]]],
    partitioner: Partitioner,
) -> Callable[[Any], dict[str, float]]:
    """`evaluate(state)`: means over held-out rows, `size` of them in a batch.

    measure: (model, batch) -> {figure: (its value, its weight in the mean)}, compiled here; empty rows fill the last
      batch. A figure without any weight is left out.
    """
    rows = list(rows)
    empty = {name: np.zeros_like(value) for name, value in rows[0].items()}
    rows += [empty] * (-len(rows) % size)
    share = size // jax.process_count()
    first = jax.process_index() * share
    compiled = jax.jit(measure)

    def evaluate(state) -> dict[str, float]:
        totals: dict[str, np.ndarray] = {}
        for start in range(0, len(rows), size):
            mine = rows[start + first : start + first + share]
            batch = {name: np.stack([row[name] for row in mine]) for name in empty}
            measured = jax.device_get(compiled(state.model, put_batch(batch, partitioner.batch_sharding())))
            for name, (value, weight) in measured.items():
                totals[name] = totals.get(name, 0.0) + np.array([value * weight, weight], np.float64)
        return {name: float(total / weight) for name, (total, weight) in totals.items() if weight}

    return evaluate


def step_flops(step, abstract_state, row: Row, batch_size: int, teacher: Any, contest: bool) -> float:
    """Of a step on rows like `row`, as XLA counts them before it compiles; NaN where it does not."""
    batch = {
        name: jax.ShapeDtypeStruct((batch_size, *value.shape), jnp.asarray(value).dtype) for name, value in row.items()
    }
    cost = step.lower(abstract_state, batch, teacher, contest).cost_analysis() or {}
    return float(cost.get("flops", np.nan))


def check_mesh(partitioner: Partitioner, batch_size: int, what: str) -> None:
    """Raises ValueError for a mesh on which `what` cannot be trained."""
    mesh = partitioner.mesh.shape
    if mesh["tensor"] * mesh["sequence"] > 1:
        raise ValueError(f"a {what} trains data-parallel: set mesh.tensor and mesh.sequence to 1")
    if batch_size % (devices := mesh["data"] * mesh["fsdp"]):
        raise ValueError(
            f"data.batch_size={batch_size} is no multiple of the {devices} devices of mesh.data x mesh.fsdp"
        )
