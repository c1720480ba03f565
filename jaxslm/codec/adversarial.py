"""One step of adversarial training of what makes samples, in one program: the discriminators move first, the generator
then hears from what they have become.

The model of the state is that of the generator (of a codec: codec_generator.py) and {"discriminators": Discriminators |
None, "average": parameters of the generator | None}; the state of the optimizers {name of the generator,
"discriminators", "balancer"}.

Legend: B batch, N samples.
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax

from jaxslm.codec.balancer import Balancer, Losses, gradients_of
from jaxslm.codec.losses import discriminator_loss
from jaxslm.codec.objective import Objective, weighted
from jaxslm.training.state import TrainState

DIVERGED = 100.0  # mean loss of the discriminators; at chance the hinge loss is 2, the least squares 0.5


class Made(NamedTuple):
    """samples_BxN: float32, as many as the batch has. inner: losses of what is inside the generator, by names of
    `Objective.inner`. state: of the generator after the step, for `Generator.after`. metrics: float scalars by name.
    """

    samples_BxN: jax.Array
    inner: Losses
    state: Any
    metrics: Losses


class Generator(Protocol):
    """What the step trains. name: of its part of the model and of the state of the optimizers."""

    name: str

    def moving(self, model: Mapping[str, Any]) -> dict[str, Any]:
        """Parts of the model that its optimizer moves, parameters only; `name` is one of them."""

    def prepare(
        self, model: Mapping[str, Any], batch: Mapping[str, jax.Array], key: jax.Array, teacher: Any, dtype: str
    ) -> Callable[[Any], Made]:
        """What it makes of the batch, as a function of the moving parts alone, which is differentiated."""

    def after(self, moving: Mapping[str, Any], state: Any) -> dict[str, Any]:
        """Its parts of the model, of the parameters and the state after a step."""


@dataclass(frozen=True)
class AdversarialTraining:
    """What moves how. optimizers, schedules: {name of the generator, "discriminators"}. average_decay: of the running
    mean of the generator's parameters, 0 for none. dtype: of the computation of the networks.
    """

    generator: Generator
    objective: Objective
    optimizers: Mapping[str, optax.GradientTransformation]
    schedules: Mapping[str, Callable[[jax.Array], jax.Array]]
    average_decay: float = 0.0
    dtype: str = "float32"

    @property
    def balancer(self) -> Balancer | None:
        weights = self.objective.distances | self.objective.adversarial
        return Balancer(weights) if self.objective.losses["balance"] else None

    def init(self, model: Mapping[str, Any]) -> dict[str, Any]:
        """State of the optimizers and of the balancer, which `make_init` asks for as of an optimizer."""
        moving = {self.generator.name: self.generator.moving(model), "discriminators": model["discriminators"]}
        states = {name: None if part is None else self.optimizers[name].init(part) for name, part in moving.items()}
        return states | {"balancer": self.balancer and self.balancer.start()}

    def has_started(self, state: TrainState) -> bool:
        """Whether discriminators take part in the next step. It waits for the state, but where they always do."""
        start = self.objective.losses["adversarial"]["start"]
        if not self.objective.adversarial or not start:
            return bool(self.objective.adversarial)
        steps, skipped = (int(count.addressable_data(0)) for count in (state.step, state.skipped))
        return steps - skipped >= start

    def step(
        self, state: TrainState, batch: Mapping[str, jax.Array], teacher: Any, contest: bool
    ) -> tuple[TrainState, Losses]:
        """(state, metrics) after the clips of a batch: "samples" [B, N], "length" [B, 1], how many of them count, and
        what the generator needs.

        contest: `has_started`, for which there are two programs: XLA:CPU runs what stands in a condition on one core.
        A step of which any loss or gradient is not finite, or in which the discriminators diverge (a mean loss above
        DIVERGED), changes nothing but the counters; metrics name it: "bad/<generator>", "bad/discriminators".
        """
        real, n_B = batch["samples"], batch["length"][:, 0]
        model, objective, name = state.model, self.objective, self.generator.name
        key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
        moving = self.generator.moving(model)
        generate = functools.partial(self._generate, self.generator.prepare(model, batch, key, teacher, self.dtype))
        (fake, _), pullback, (inner_state, inner, metrics) = jax.vjp(generate, moving, has_aux=True)

        losses, gradients = self._distances(fake, real, n_B)
        opponents = model["discriminators"], state.opt_state["discriminators"]
        bad = {}
        if contest:
            steps = state.step - state.skipped
            opponents, judged, more, of_opponents = self._contest(steps, *opponents, fake, real, n_B)
            losses |= judged
            gradients |= more
            metrics |= of_opponents
            limit = DIVERGED * (1 if objective.losses["adversarial"]["average"] else len(model["discriminators"].subs))
            bad["discriminators"] = (of_opponents["loss/discriminators"] > limit) | ~_finite(of_opponents)
        gradient, balance, shares = self._sum(gradients, state.opt_state["balancer"])
        (of_generator,) = pullback((gradient.astype(fake.dtype), jnp.ones(())))
        norm = optax.tree.norm(of_generator)
        bad[name] = ~(_finite(losses) & _finite(inner) & jnp.isfinite(norm))

        updates, moments = self.optimizers[name].update(of_generator, state.opt_state[name], moving)
        moving = optax.apply_updates(moving, updates)
        new_model = self.generator.after(moving, inner_state) | {
            "discriminators": opponents[0],
            "average": self._averaged(model["average"], moving[name], state.step - state.skipped),
        }
        opt_state = {name: moments, "discriminators": opponents[1], "balancer": balance}
        new_state = _unless(functools.reduce(jnp.logical_or, bad.values()), state, new_model, opt_state)
        metrics |= {"loss": weighted({n: losses[n] for n in objective.yardstick}, objective.yardstick)}
        metrics |= {f"loss/{name}": value for name, value in (losses | inner).items()}
        metrics |= {f"bad/{name}": value for name, value in bad.items()} | shares
        metrics |= {"grad_norm": norm, "learning_rate": self.schedules[name](state.step - state.skipped)}
        metrics |= {"skipped": new_state.skipped, "skipped_in_a_row": new_state.skipped_in_a_row}
        return new_state, {name: value.astype(jnp.float32) for name, value in metrics.items()}

    def _generate(self, forward: Callable[[Any], Made], moving):
        """((samples, sum of the inner losses), (state, inner losses, metrics))."""
        made = forward(moving)
        inner = {name: made.inner[name] for name in self.objective.inner}
        total = jnp.asarray(weighted(inner, self.objective.inner), jnp.float32)
        return (made.samples_BxN, total), (made.state, inner, made.metrics)

    def _distances(self, fake, real, n_B) -> tuple[Losses, Losses]:
        """(distances of samples and reconstructions, their gradients as of `_output_gradients`)."""
        losses_of = lambda x: self.objective.distance(x, real, n_B)  # noqa: E731
        if not self.objective.distances:
            return losses_of(fake), {}
        return self._output_gradients(losses_of, fake, self.objective.distances)

    def _output_gradients(self, losses_of, fake, weights) -> tuple[Losses, Losses]:
        """(losses, their gradients by name), or with fixed weights (losses, {"all of them": the weighted one})."""
        if self.balancer is not None:
            return gradients_of(losses_of, fake)

        def total(x):
            losses = losses_of(x)
            return weighted(losses, weights), losses

        (_, losses), gradient = jax.value_and_grad(total, has_aux=True)(fake)
        return losses, {" and ".join(losses): gradient}

    def _contest(self, steps, discriminators, moments, fake, real, n_B):
        """((discriminators, their optimizer's state), losses of the generator, their gradients, metrics); the gradients
        are 0 as long as the generator does not hear."""
        settings = self.objective.losses["adversarial"]
        form = settings["form"].removeprefix("clipped_")
        fake, real = fake.astype(self.dtype), real.astype(self.dtype)

        def loss_of(subs):
            fakes, reals = subs(fake, n_B), subs(real, n_B)
            return discriminator_loss(fakes, reals, form, average=settings["average"])

        loss, gradient = jax.value_and_grad(loss_of)(discriminators)
        updates, moments = self.optimizers["discriminators"].update(gradient, moments, discriminators)
        moved = optax.apply_updates(discriminators, updates)
        reals = moved(real, n_B)
        judge = lambda x: self.objective.judged(moved(x, n_B), reals)  # noqa: E731
        losses, gradients = self._output_gradients(judge, fake, self.objective.adversarial)
        if settings["delay"]:
            hears = steps >= settings["start"] + settings["delay"]
            gradients = {name: jnp.where(hears, g, 0) for name, g in gradients.items()}
        metrics = {"loss/discriminators": loss, "grad_norm/discriminators": optax.tree.norm(gradient)}
        return (moved, moments), losses, gradients, metrics

    def _sum(self, gradients: Losses, state):
        """(gradient of the output, state of the balancer, metrics)."""
        if self.balancer is None:
            return sum(g.astype(jnp.float32) for g in gradients.values()), state, {}
        silent = jnp.zeros_like(next(iter(gradients.values())))
        gradients = {name: gradients.get(name, silent) for name in self.balancer.weights}
        balanced, state = self.balancer(gradients, state)
        return balanced.gradient, state, {f"share/{name}": value for name, value in balanced.shares.items()}

    def _averaged(self, average, newest, updates):
        """The mean with weights that fall by `average_decay` an update, after `updates` before this one; what the
        parameters were at the start has no part in it (audiocraft/optim/ema.py)."""
        if average is None:
            return None
        new_share = (1 - self.average_decay) / (1 - self.average_decay ** (updates + 1.0))
        return jax.tree.map(lambda old, new: old + new_share * (new - old), average, newest)


def _unless(bad: jax.Array, state: TrainState, model, opt_state) -> TrainState:
    """The state after a step; after a bad one, that before it but for the counters."""
    new = jax.tree.map(lambda a, b: jnp.where(bad, b, a), (model, opt_state), (state.model, state.opt_state))
    missed = jnp.where(bad, 1, 0)
    in_a_row = (state.skipped_in_a_row + 1) * missed
    return TrainState(*new, state.step + 1, state.key, state.skipped + missed, in_a_row)


def _finite(values: Losses) -> jax.Array:
    return functools.reduce(jnp.logical_and, [jnp.isfinite(value).all() for value in values.values()], jnp.bool(True))
