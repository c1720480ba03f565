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
) -> tuple[optax.GradientTransformationExtraArgs, Schedule]:
    """(AdamW, schedule) of `config` = {peak_lr, final_lr, schedule, warmup_steps, b1, b2, eps, weight_decay, clip_norm,
    moment_dtype}.

    clip_norm 0 does not clip. moment_dtype is that of the first moment only: a bfloat16 second moment would lose the
    increments of 1 - b2. The state is {"mu", "nu", "count"}: two trees like the parameters and int32 updates made.
    `update(..., finite=False)` changes nothing: updates of 0, and the state as it was.
    """
    schedule = make_schedule(config, steps)
    clip = optax.clip_by_global_norm(config["clip_norm"]) if config["clip_norm"] else optax.identity()
    b1, b2, eps, decay = (config[name] for name in ("b1", "b2", "eps", "weight_decay"))
    if config["moment_dtype"] not in ("float32", "bfloat16"):
        raise ValueError(f"optimizer.moment_dtype is '{config['moment_dtype']}'; use float32 or bfloat16.")
    mu_dtype = jnp.dtype(config["moment_dtype"])

    def init(params: Any) -> dict[str, Any]:
        mu, nu = optax.tree.zeros_like(params, dtype=mu_dtype), optax.tree.zeros_like(params)
        return {"mu": mu, "nu": nu, "count": jnp.zeros((), jnp.int32)}

    def update(
        grads: Any, state: dict[str, Any], params: Any, *, finite: jax.Array | bool = True
    ) -> tuple[Any, dict[str, Any]]:
        # optax.scale_by_adam, but for `finite`: chosen after it, old and new moments would have to lie side by side.
        grads, _ = clip.update(grads, clip.init(params))

        def chosen(new: Any, old: Any) -> Any:
            return jax.tree.map(lambda x, y: jnp.where(finite, x, y), new, old)

        mu = chosen(optax.tree.update_moment(grads, state["mu"], b1, 1), state["mu"])
        nu = chosen(optax.tree.update_moment_per_elem_norm(grads, state["nu"], b2, 2), state["nu"])
        count = optax.safe_increment(state["count"])
        first, second = optax.tree.bias_correction(mu, b1, count), optax.tree.bias_correction(nu, b2, count)
        rate = schedule(state["count"])

        def change(m: jax.Array, v: jax.Array, p: jax.Array, decays: bool) -> jax.Array:
            return jnp.where(finite, -rate * (m / (jnp.sqrt(v) + eps) + decays * decay * p), 0.0)

        updates = jax.tree.map(change, first, second, params, decay_mask(params))
        return updates, {"mu": optax.tree.cast(mu, mu_dtype), "nu": nu, "count": chosen(count, state["count"])}

    return optax.GradientTransformationExtraArgs(init, update), schedule
