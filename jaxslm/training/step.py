"""One training step: gradients accumulated by tokens, non-finite steps left out. B batch, A parts, O objectives."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import NamedSharding, PartitionSpec

from jaxslm.training.state import TrainState

# loss_fn(model, batch) -> (sum of weighted losses, {"nll_O": [O], "weight_O": [O]}), O objectives
LossFn = Callable[[Any, Any], tuple[jax.Array, Mapping[str, jax.Array]]]
Metrics = dict[str, jax.Array]


def make_train_step(
    loss_fn: LossFn,
    optimizer: optax.GradientTransformationExtraArgs,
    schedule: Callable[[jax.Array], jax.Array],
    *,
    objectives: Sequence[str],
    accumulate_steps: int = 1,
    state_shardings: Any = None,
    compiler_options: Mapping[str, str] | None = None,
) -> Callable[[TrainState, Any], tuple[TrainState, Metrics]]:
    """Jitted `step(state, batch) -> (state, metrics)`; the old state is donated.

    The gradient is that of the mean over all weighted tokens of the whole batch, whatever `accumulate_steps`: parts
    are summed and divided once, so a part with few tokens does not count more. A step whose loss or gradient is not
    finite (or that has no weighted token) changes nothing but the counters. Metrics are float32 scalars: loss,
    loss/<objective>, tokens/<objective> (sums of loss weights), grad_norm before clipping, learning_rate, skipped,
    skipped_in_a_row. Raises ValueError if `accumulate_steps` is below 1.
    """
    if accumulate_steps < 1:
        raise ValueError(f"optimizer.accumulate_steps is {accumulate_steps}; set it to 1 or more (1: the batch whole).")
    gradients = accumulate(loss_fn, accumulate_steps)

    def step(state: TrainState, batch: Any) -> tuple[TrainState, Metrics]:
        sums, grads = gradients(state.model, batch)
        weight = sums["weight_O"].sum()
        loss = sums["nll_O"].sum() / weight
        grads = jax.tree.map(lambda g: (g / weight).astype(g.dtype), grads)
        grad_norm = optax.tree.norm(grads)
        finite = jnp.isfinite(loss) & jnp.isfinite(grad_norm)

        with jax.named_scope("optimizer"):
            updates, opt_state = optimizer.update(grads, state.opt_state, state.model, finite=finite)
            model = optax.apply_updates(state.model, updates)
        missed = jnp.where(finite, 0, 1)
        new_state = TrainState(
            model, opt_state, state.step + 1, state.key, state.skipped + missed, (state.skipped_in_a_row + 1) * missed
        )
        metrics = {"loss": loss}
        for i, name in enumerate(objectives):
            metrics[f"loss/{name}"] = sums["nll_O"][i] / sums["weight_O"][i]
            metrics[f"tokens/{name}"] = sums["weight_O"][i]
        metrics |= {
            "grad_norm": grad_norm,
            "learning_rate": schedule(state.step - state.skipped),  # updates made so far
            "skipped": new_state.skipped,
            "skipped_in_a_row": new_state.skipped_in_a_row,
        }
        return new_state, {name: value.astype(jnp.float32) for name, value in metrics.items()}

    # out_shardings keep the compiler from re-laying the state out: the next step and the checkpoint expect these
    out_shardings = None if state_shardings is None else (state_shardings, None)
    return jax.jit(step, donate_argnums=0, out_shardings=out_shardings, compiler_options=compiler_options)


def put_batch(batch: Any, sharding: NamedSharding) -> Any:
    """This process's rows of a batch (numpy arrays [B, ...]) as arrays over all devices, copied in the background.

    `sharding` is that of the first dimensions; an array with fewer takes the first of it.
    """

    def put(x: Any) -> jax.Array:
        here = NamedSharding(sharding.mesh, PartitionSpec(*sharding.spec[: x.ndim]))
        return jax.make_array_from_process_local_data(here, x)

    return jax.tree.map(put, batch)


def accumulate(loss_fn: LossFn, parts: int) -> Callable[[Any, Any], tuple[Mapping[str, jax.Array], Any]]:
    """`(model, batch) -> (sums, gradient of the total)`, both added up over `parts` cuts of the batch.

    The cuts are strided (rows 0, A, 2A...), so that each is spread over the devices as the whole batch is.
    """

    def whole(model: Any, batch: Any) -> tuple[Mapping[str, jax.Array], Any]:
        (_, sums), grads = jax.value_and_grad(loss_fn, has_aux=True)(model, batch)
        return sums, grads

    def cut(x: jax.Array) -> jax.Array:
        if x.shape[0] % parts:
            raise ValueError(
                f"a batch of {x.shape[0]} rows cannot be cut into {parts} equal parts; "
                "make the batch size a multiple of the accumulation steps."
            )
        return jnp.moveaxis(x.reshape(x.shape[0] // parts, parts, *x.shape[1:]), 1, 0)

    def scanned(model: Any, batch: Any) -> tuple[Mapping[str, jax.Array], Any]:
        batch_AxB = jax.tree.map(cut, batch)
        first = jax.tree.map(lambda x: x[0], batch_AxB)
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(whole, model, first))
        add = lambda total, part: (jax.tree.map(jnp.add, total, whole(model, part)), None)  # noqa: E731
        return jax.lax.scan(add, zeros, batch_AxB)[0]

    return whole if parts == 1 else scanned
