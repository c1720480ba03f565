"""AdamW with learning-rate schedules. Its state is a plain dict, so that checkpoints name no library's classes."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxslm.sharding import is_param

Schedule = Callable[[jax.Array], jax.Array]
SCHEDULES = ("constant", "linear", "cosine", "exponential", "inverse_sqrt")


def make_schedule(config: Mapping[str, Any], steps: int) -> Schedule:
    """Learning rate of the update that follows `count` updates.

    Linear warm-up over `warmup_steps` updates (the first one is not wasted at rate 0), then from `peak_lr` to
    `final_lr` at update `steps`, "exponential" by the same factor each update; inverse_sqrt is peak_lr *
    sqrt(warmup_steps / update), never below final_lr.
    """
    kind, peak, final = config["schedule"], config["peak_lr"], config["final_lr"]
    warmup = config["warmup_steps"]
    if kind not in SCHEDULES:
        raise ValueError(f"optimizer.schedule is '{kind}'; use one of {', '.join(SCHEDULES)}.")
    if kind == "exponential" and not (peak > 0 and final > 0):
        raise ValueError(f"optimizer.schedule='exponential' never reaches final_lr={final}; set it above 0")

    def schedule(count: jax.Array) -> jax.Array:
        update = count + 1.0
        done = jnp.clip((update - warmup) / max(steps - warmup, 1), 0.0, 1.0)
        after = {
            "constant": peak + 0.0 * done,
            "linear": peak + (final - peak) * done,
            "cosine": final + (peak - final) * 0.5 * (1.0 + jnp.cos(jnp.pi * done)),
            "exponential": peak * (max(final, 1e-30) / max(peak, 1e-30)) ** done,
            "inverse_sqrt": jnp.maximum(final, peak * jnp.sqrt(max(warmup, 1) / update)),
        }[kind]
        return jnp.where(update < warmup, peak * update / max(warmup, 1), after)

    return schedule


def decay_matrices(params: Any) -> Any:
    """Which parameters weight decay acts on: True for two dimensions and more, not counting the stacked-layers one."""

    def of(leaf: Any) -> Any:
        ndim = len(leaf.get_metadata()["logical_axes"]) if is_param(leaf) else leaf.ndim
        return jax.tree.map(lambda _: ndim > 1, leaf)

    return jax.tree.map(of, params, is_leaf=is_param)


def make_optimizer(
    config: Mapping[str, Any], steps: int, decay_mask: Callable[[Any], Any] = decay_matrices
) -> tuple[optax.GradientTransformation, Schedule]:
    """(AdamW, schedule) of `config` = {peak_lr, final_lr, schedule, warmup_steps, b1, b2, eps, weight_decay, clip_norm,
    moment_dtype}.

    clip_norm 0 does not clip. moment_dtype is that of the first moment only: a bfloat16 second moment would lose the
    increments of 1 - b2. The state is {"mu", "nu", "count"}: two trees like the parameters and int32 updates made.
    """
    schedule = make_schedule(config, steps)
    clip = optax.clip_by_global_norm(config["clip_norm"]) if config["clip_norm"] else optax.identity()
    adam = optax.scale_by_adam(config["b1"], config["b2"], config["eps"], mu_dtype=jnp.dtype(config["moment_dtype"]))
    decay = config["weight_decay"]

    def init(params: Any) -> dict[str, Any]:
        state = adam.init(params)
        return {"mu": state.mu, "nu": state.nu, "count": state.count}

    def update(grads: Any, state: dict[str, Any], params: Any) -> tuple[Any, dict[str, Any]]:
        grads, _ = clip.update(grads, clip.init(params))
        updates, moments = adam.update(grads, optax.ScaleByAdamState(state["count"], state["mu"], state["nu"]))
        rate = schedule(state["count"])
        updates = jax.tree.map(lambda u, p, on: -rate * (u + on * decay * p), updates, params, decay_mask(params))
        return updates, {"mu": moments.mu, "nu": moments.nu, "count": moments.count}

    return optax.GradientTransformation(init, update), schedule
