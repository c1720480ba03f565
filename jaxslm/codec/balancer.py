"""EnCodec's balancer of losses (Defossez et al. 2022, section 3.4; encodec/balancer.py).

Each loss is differentiated with respect to the decoder's output alone, and these gradients are summed with weights that
give each its share of the norm whatever the loss's own scale; one pullback then takes the sum through the decoder:

    (fake, commitment), pullback = jax.vjp(decode, parameters)
    balanced, state = balancer(losses_of, fake, state)
    (gradient,) = pullback((balanced.gradient, commitment_weight))

Legend: B batch, N samples.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import jax.numpy as jnp


class BalancerState(NamedTuple):
    """Moving sums of the norms by loss, and of the weights of these sums."""

    norms: dict[str, jax.Array]
    weight: jax.Array


class Balanced(NamedTuple):
    gradient: jax.Array  # [B, N], with respect to the decoder's output
    losses: dict[str, jax.Array]
    shares: dict[str, jax.Array]  # of each loss in the summed norms, before balancing
    scales: dict[str, jax.Array]  # what each gradient was multiplied by


@dataclass(frozen=True)
class Balancer:
    """weights: by loss. total_norm: of the balanced gradient. decay: of the moving average of norms.

    per_item: the norm is the mean over rows of each row's norm, else the norm of the whole batch. Under jit both are of
    the batch over all devices.
    """

    weights: Mapping[str, float] = field(default_factory=lambda: {"adv": 4.0, "feat": 4.0, "l1": 0.1, "msspec": 2.0})
    total_norm: float = 1.0
    decay: float = 0.999
    per_item: bool = True
    epsilon: float = 1e-12

    def start(self) -> BalancerState:
        return BalancerState({name: jnp.zeros(()) for name in self.weights}, jnp.zeros(()))

    def __call__(
        self, losses_of: Callable[[jax.Array], Mapping[str, jax.Array]], fake_BxN: jax.Array, state: BalancerState
    ) -> tuple[Balanced, BalancerState]:
        """Gradients of the losses `losses_of(fake_BxN)`, balanced, and the new state.

        Call it under jit: what the losses share is then computed once. A norm that is not finite stays in the moving
        average: put the old state back when a step is skipped. Raises ValueError when the losses are not the weights'.
        """
        names = set(jax.eval_shape(losses_of, fake_BxN))
        if names != set(self.weights):
            raise ValueError(
                f"balancer.weights has {', '.join(sorted(self.weights))} but the losses are "
                f"{', '.join(sorted(names))}: give each loss one weight"
            )
        losses, gradients = {}, {}
        for name in self.weights:
            losses[name], gradients[name] = jax.value_and_grad(lambda x, name=name: losses_of(x)[name])(fake_BxN)
        weight = self.decay * state.weight + 1.0
        sums = {name: self.decay * state.norms[name] + self._norm(g) for name, g in gradients.items()}
        averages = {name: total / weight for name, total in sums.items()}
        share = self.total_norm / sum(self.weights.values())
        scales = {name: share * w / (self.epsilon + averages[name]) for name, w in self.weights.items()}
        gradient = sum(scales[name].astype(g.dtype) * g for name, g in gradients.items())
        shares = {name: average / sum(averages.values()) for name, average in averages.items()}
        return Balanced(gradient, losses, shares, scales), BalancerState(sums, weight)

    def _norm(self, gradient: jax.Array) -> jax.Array:
        squares = jnp.square(gradient.astype(jnp.float32))
        if not self.per_item:
            return jnp.sqrt(squares.sum())
        return jnp.sqrt(squares.sum(axis=tuple(range(1, squares.ndim)))).mean()
