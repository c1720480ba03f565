"""EnCodec's balancer of losses (Defossez et al. 2022, section 3.4; encodec/balancer.py).

Each loss is differentiated with respect to the decoder's output alone, and these gradients are summed with weights that
give each its share of the norm whatever the loss's own scale; one pullback then takes the sum through the decoder:

    (fake, commitment), pullback = jax.vjp(decode, parameters)
    losses, gradients = gradients_of(losses_of, fake)
    balanced, state = balancer(gradients, state)
    (gradient,) = pullback((balanced.gradient, commitment_weight))

Legend: B batch, N samples.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

Losses = dict[str, jax.Array]


class Balanced(NamedTuple):
    gradient: jax.Array  # [B, N], with respect to the decoder's output
    shares: Losses  # of each loss in the summed norms, before balancing
    scales: Losses  # what each gradient was multiplied by


def gradients_of(losses_of: Callable[[jax.Array], Losses], fake_BxN: jax.Array) -> tuple[Losses, Losses]:
    """(losses, gradient [B, N] of each) of `losses_of(fake_BxN)`. Under jit what they share is computed once."""
    names = list(jax.eval_shape(losses_of, fake_BxN))
    pairs = {name: jax.value_and_grad(lambda x, name=name: losses_of(x)[name])(fake_BxN) for name in names}
    return {name: loss for name, (loss, _) in pairs.items()}, {name: g for name, (_, g) in pairs.items()}


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

    def start(self) -> dict[str, Any]:
        """{"norms": moving sums of the norms, "weights": of the weights of these sums}, by loss."""
        zeros = {name: jnp.zeros(()) for name in self.weights}
        return {"norms": zeros, "weights": dict(zeros)}

    def __call__(self, gradients: Losses, state: dict[str, Any]) -> tuple[Balanced, dict[str, Any]]:
        """The sum of the gradients, balanced, and the new state.

        A gradient that is 0 does not count in its average: a loss may set in later. A norm that is not finite stays in
        the average: put the old state back when a step is skipped. Raises ValueError when the losses are not the
        weights'.
        """
        if set(gradients) != set(self.weights):
            raise ValueError(
                f"balancer.weights has {', '.join(sorted(self.weights))} but the losses are "
                f"{', '.join(sorted(gradients))}: give each loss one weight"
            )
        sums, weights, averages = {}, {}, {}
        for name in self.weights:
            norm = self._norm(gradients[name])
            counts = norm != 0
            sums[name] = jnp.where(counts, self.decay * state["norms"][name] + norm, state["norms"][name])
            weights[name] = jnp.where(counts, self.decay * state["weights"][name] + 1.0, state["weights"][name])
            averages[name] = sums[name] / jnp.maximum(weights[name], 1.0)
        share = self.total_norm / sum(self.weights.values())
        scales = {name: share * w / (self.epsilon + averages[name]) for name, w in self.weights.items()}
        gradient = sum(scales[name].astype(g.dtype) * g for name, g in gradients.items())
        total = jnp.maximum(sum(averages.values()), self.epsilon)
        shares = {name: average / total for name, average in averages.items()}
        return Balanced(gradient, shares, scales), {"norms": sums, "weights": weights}

    def _norm(self, gradient: jax.Array) -> jax.Array:
        squares = jnp.square(gradient.astype(jnp.float32))
        if not self.per_item:
            return jnp.sqrt(squares.sum())
        return jnp.sqrt(squares.sum(axis=tuple(range(1, squares.ndim)))).mean()
