"""The chunked loss and its gradient against the plain formula in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxslm.nn.loss import chunked_cross_entropy

B, T, D, V, REAL_V, OBJECTIVES = 2, 12, 8, 40, 37, 3


def inputs():
    rng = np.random.default_rng(0)
    return dict(
        hidden=rng.standard_normal((B, T, D)).astype(np.float32),
        unembedding=rng.standard_normal((D, V)).astype(np.float32),
        targets=rng.integers(0, REAL_V, (B, T)).astype(np.int32),
        weights=(rng.random((B, T)) * (rng.random((B, T)) < 0.7)).astype(np.float32),
        objective=rng.integers(0, OBJECTIVES, (B, T)).astype(np.int32),
    )


def in_float64(x, z_loss):
    """Loss, its per-objective sums and its gradients by the formula, no library differentiating anything."""
    hidden, unembedding = x["hidden"].reshape(-1, D).astype(np.float64), x["unembedding"].astype(np.float64)
    targets, weights, objective = x["targets"].ravel(), x["weights"].ravel().astype(np.float64), x["objective"].ravel()
    logits = hidden @ unembedding[:, :REAL_V]
    lse = np.log(np.exp(logits).sum(-1))
    nll = lse - logits[np.arange(B * T), targets]
    total = (weights * (nll + z_loss * lse**2)).sum()
    d_logits = (1 + 2 * z_loss * lse)[:, None] * np.exp(logits - lse[:, None])
    d_logits[np.arange(B * T), targets] -= 1
    d_logits = np.pad(d_logits * weights[:, None], ((0, 0), (0, V - REAL_V)))
    sums = [np.array([(x * (objective == o)).sum() for o in range(OBJECTIVES)]) for x in (weights * nll, weights)]
    return total, sums, ((d_logits @ unembedding.T).reshape(B, T, D), hidden.T @ d_logits)


@pytest.mark.parametrize("n_chunks", [1, 3, 5, 100])
@pytest.mark.parametrize("z_loss", [0.0, 0.1])
def test_loss_and_gradient(n_chunks, z_loss):
    x = inputs()
    scale = 7.5  # an outer factor: a hand-written gradient that ignores its cotangent is wrong only then

    def loss(hidden, unembedding):
        total, sums = chunked_cross_entropy(
            hidden, unembedding, x["targets"], x["weights"], x["objective"],
            n_objectives=OBJECTIVES, vocab_size=REAL_V, n_chunks=n_chunks, z_loss=z_loss,
        )  # fmt: skip
        return scale * total, (total, sums)

    (_, (total, sums)), gradients = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(
        x["hidden"], x["unembedding"]
    )
    expected_total, (nll_O, weight_O), expected_gradients = in_float64(x, z_loss)
    assert float(total) == pytest.approx(expected_total, rel=1e-5)
    np.testing.assert_allclose(sums["nll_O"], nll_O, rtol=1e-5)
    np.testing.assert_allclose(sums["weight_O"], weight_O, rtol=1e-6)
    for ours, expected in zip(gradients, expected_gradients, strict=True):
        np.testing.assert_allclose(ours, scale * expected, atol=1e-4)
    assert np.all(np.asarray(gradients[1])[:, REAL_V:] == 0)
    assert float(loss(x["hidden"], x["unembedding"])[0]) == pytest.approx(scale * expected_total, rel=1e-5)


def test_bfloat16_hidden_states_keep_a_float32_loss():
    x = inputs()
    hidden = jnp.asarray(x["hidden"], jnp.bfloat16)
    kwargs = dict(n_objectives=OBJECTIVES, vocab_size=REAL_V)
    total, _ = chunked_cross_entropy(hidden, x["unembedding"], x["targets"], x["weights"], x["objective"], **kwargs)
    assert total.dtype == jnp.float32
    assert float(total) == pytest.approx(in_float64(x, 0.0)[0], rel=2e-2)


def test_weight_zero_silences_what_is_not_finite():
    x = inputs()
    x["weights"][0, 0] = 0
    x["hidden"][0, 0] = np.inf
    kwargs = dict(n_objectives=OBJECTIVES, vocab_size=REAL_V)
    total, sums = chunked_cross_entropy(*[x[n] for n in x], **kwargs)
    assert np.isfinite(total) and np.isfinite(sums["nll_O"]).all()


def test_no_array_of_tokens_by_vocabulary():
    """The compiled gradient never holds the logits of more than one chunk."""
    tokens, vocab = 512, 2048
    x = [jnp.zeros((1, tokens, D)), jnp.zeros((D, vocab)), jnp.zeros((1, tokens), int), jnp.ones((1, tokens))]

    def temporary_bytes(n_chunks):
        def loss(hidden, unembedding):
            kwargs = dict(n_objectives=1, vocab_size=vocab, n_chunks=n_chunks)
            return chunked_cross_entropy(hidden, unembedding, x[2], x[3], x[2], **kwargs)[0]

        compiled = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(*x[:2]).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert temporary_bytes(16) < tokens * vocab * 4 / 2 < temporary_bytes(1)
