import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxslm.codec.balancer import Balancer, gradients_of

WEIGHTS = {"l1": 0.1, "l2": 3.0, "far": 2.0}


def losses_of(real):
    return lambda x: {
        "l1": jnp.abs(x - real).mean(),
        "l2": 100 * jnp.square(x - real).mean(),
        "far": jnp.sin(x).sum(),
    }


def gradients(x, real):
    return {"l1": np.sign(x - real) / x.size, "l2": 200 * (x - real) / x.size, "far": np.cos(x)}


@pytest.mark.parametrize("per_item", [True, False])
def test_gradients_over_steps_equal_the_published_algorithm(per_item):
    rng = np.random.default_rng(0)
    real = rng.normal(size=(3, 11))
    balancer = Balancer(WEIGHTS, total_norm=0.7, decay=0.9, per_item=per_item)

    @jax.jit
    def step(x, state):
        losses, of_losses = gradients_of(losses_of(jnp.array(real, jnp.float32)), x)
        return losses, *balancer(of_losses, state)

    state, totals, fix = balancer.start(), dict.fromkeys(WEIGHTS, 0.0), 0.0
    for _ in range(4):
        x = rng.normal(size=real.shape) * rng.uniform(0.1, 3)
        losses, balanced, state = step(jnp.array(x, jnp.float32), state)
        fix, expected, loss_gradients = 0.9 * fix + 1, 0.0, gradients(x, real)
        for name, g in loss_gradients.items():
            norm = np.mean([np.linalg.norm(row) for row in g]) if per_item else np.linalg.norm(g)
            totals[name] = 0.9 * totals[name] + norm
            expected = expected + WEIGHTS[name] / sum(WEIGHTS.values()) * 0.7 / (1e-12 + totals[name] / fix) * g
        np.testing.assert_allclose(balanced.gradient, expected, atol=1e-5)
        np.testing.assert_allclose(losses["far"], np.sin(x).sum(), rtol=1e-4)
        for name in WEIGHTS:
            np.testing.assert_allclose(balanced.shares[name], totals[name] / sum(totals.values()), rtol=1e-4)


def test_one_pullback_gives_the_decoder_the_balanced_gradient():
    matrix = jnp.array(np.random.default_rng(0).normal(size=(4, 6)), jnp.float32)
    latents, real = jnp.ones((2, 4)), jnp.zeros((2, 6))
    balancer = Balancer(WEIGHTS)
    fake, pullback = jax.vjp(lambda m: jnp.tanh(latents @ m), matrix)
    balanced, _ = balancer(gradients_of(losses_of(real), fake)[1], balancer.start())

    def weighted(m):
        values = losses_of(real)(jnp.tanh(latents @ m))
        return sum(balanced.scales[name] * value for name, value in values.items())

    np.testing.assert_allclose(pullback(balanced.gradient)[0], jax.grad(weighted)(matrix), rtol=1e-4, atol=1e-6)


def test_what_the_losses_share_is_computed_once_under_jit():
    weight = jnp.ones((6, 6))

    def shared(x):
        y = jnp.tanh(x @ weight)
        return {"a": y.sum(), "b": jnp.square(y).sum()}

    text = jax.jit(lambda x: gradients_of(shared, x)).lower(jnp.ones((2, 6))).compile().as_text()
    assert text.count(" tanh(") == 1


def test_losses_and_weights_must_agree():
    balancer = Balancer({"l1": 1.0})
    with pytest.raises(ValueError, match="balancer.weights has l1 but the losses are far, l1, l2"):
        balancer(gradients_of(losses_of(jnp.zeros((1, 4))), jnp.zeros((1, 4)))[1], balancer.start())


def test_a_loss_that_sets_in_later_begins_with_its_own_average():
    balancer = Balancer({"early": 1.0, "late": 1.0}, decay=0.9)
    state, one = balancer.start(), jnp.ones((2, 4))
    for _ in range(50):
        balanced, state = balancer({"early": one, "late": 0 * one}, state)
    np.testing.assert_allclose(balanced.gradient, 0.25 * one, rtol=1e-5)  # norm 1/2 of a row of norm 2
    balanced, state = balancer({"early": one, "late": 7 * one}, state)
    np.testing.assert_allclose(balanced.gradient, 0.5 * one, rtol=1e-5)
