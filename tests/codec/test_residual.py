"""Residual quantizers against float64 loops: values, codes, losses, state; gradients; what training drops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxslm.codec.codebooks import Codebooks
from jaxslm.codec.quantizer_config import QuantizerConfig
from jaxslm.codec.residual import ResidualQuantizer
from jaxslm.codec.straight_through import pass_gradient

B, T, D, Q, K = 4, 30, 6, 3, 16


def make(seed: int = 0, **options) -> ResidualQuantizer:
    config = QuantizerConfig(**dict(dim=D, n_levels=Q, codebook_size=K, kmeans_iterations=0, restart="none") | options)
    return ResidualQuantizer(config, jax.random.key(seed))


def batch(seed: int = 0) -> tuple[jax.Array, jax.Array]:
    rng = np.random.default_rng(seed)
    real = np.arange(T) < rng.integers(T // 2, T, B)[:, None]
    return jnp.asarray(rng.normal(size=(B, T, D)), jnp.float32), jnp.asarray(real)


@jax.jit
def train(quantizer, z, real, key):
    return quantizer(z, real, key=key, train=True)


def test_three_batches_are_those_of_a_float64_loop_with_detached_residuals_and_without_padding():
    quantizer = make(decay=0.9)
    usage = np.ones((Q, K))
    sums = np.asarray(quantizer.codebooks.sums_QxKxC, np.float64)
    for step in range(3):
        z, real = batch(step)
        found = train(quantizer, jnp.where(real[..., None], z, 50.0), real, jax.random.key(step))
        quantizer = quantizer.with_codebooks(found.codebooks)
        left, values, losses, real = np.asarray(z, np.float64), np.zeros((B, T, D)), [], np.asarray(real)
        for q in range(Q):
            codes = sums[q] / usage[q][:, None]
            ids = np.argmin(((left[..., None, :] - codes) ** 2).sum(-1), axis=-1)
            np.testing.assert_array_equal(np.asarray(found.codes_BxTxQ)[..., q][real], ids[real])
            losses.append(np.square(left - codes[ids])[real].mean())
            usage[q] = 0.9 * usage[q] + 0.1 * np.bincount(ids[real], minlength=K)
            sums[q] *= 0.9
            np.add.at(sums[q], ids[real], 0.1 * left[real])
            chosen = np.bincount(ids[real], minlength=K) / real.sum()
            entropy = -sum(p * np.log(p) for p in chosen if p)
            np.testing.assert_allclose(found.metrics["usage"][q], np.mean(chosen > 0), rtol=1e-6)
            np.testing.assert_allclose(found.metrics["perplexity"][q], np.exp(entropy), rtol=1e-5)
            assert found.metrics["dead"][q] == np.sum(usage[q] < 0.1 * usage[q].mean())
            values, left = values + codes[ids], left - codes[ids]
        np.testing.assert_allclose(np.asarray(found.values_BxTxD)[real], values[real], atol=1e-5)
        np.testing.assert_allclose(found.commitment, np.mean(losses), rtol=1e-5)
        assert found.codebook_loss == 0
    np.testing.assert_allclose(found.codebooks.usage_QxK, usage, rtol=1e-5)
    np.testing.assert_allclose(found.codebooks.sums_QxKxC, sums, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("options", ({}, dict(projection="shared", codebook_dim=4), dict(projection="level", l2=True)))
def test_decoded_codes_are_the_values_and_fewer_levels_are_the_first(options):
    quantizer, (z, real) = make(**options), batch()
    found = quantizer(z, real)
    codes = quantizer.encode(z)
    np.testing.assert_array_equal(codes, found.codes_BxTxQ)
    np.testing.assert_allclose(quantizer.decode(codes), found.values_BxTxD, atol=1e-5)
    two = quantizer(z, real, n_levels=2)
    np.testing.assert_array_equal(two.codes_BxTxQ, codes[..., :2])
    np.testing.assert_allclose(quantizer.decode(codes[..., :2]), two.values_BxTxD, atol=1e-5)
    assert np.abs(two.values_BxTxD - found.values_BxTxD).max() > 0.1


def test_without_training_the_state_stays_and_with_fewer_levels_only_theirs_moves():
    quantizer, (z, real) = make(), batch()
    same = quantizer(z, real).codebooks
    jax.tree.map(np.testing.assert_array_equal, same, quantizer.codebooks)
    after = quantizer(z, real, key=jax.random.key(0), train=True, n_levels=2).codebooks
    moved = np.any(np.asarray(after.usage_QxK) != quantizer.codebooks.usage_QxK, axis=1)
    assert moved.tolist() == [True, True, False] and after.sums_QxKxC.shape == (Q, K, D)


def test_a_level_is_initialised_only_once_that_before_it_was_on_an_earlier_batch():
    quantizer = make(kmeans_iterations=5)
    for step in range(4):
        z, real = batch(step)
        before = quantizer.codebooks
        found = train(quantizer, z, real, jax.random.key(step))
        started = [int(n > 0) for n in found.codebooks.batches_Q]
        assert started == [1] * min(step + 1, Q) + [0] * (Q - min(step + 1, Q))
        for q in range(Q):  # those that wait add nothing and learn nothing
            if not started[q]:
                assert not np.any(found.codes_BxTxQ[..., q])
                assert not np.any(found.codebooks.sums_QxKxC[q]) and np.all(found.codebooks.usage_QxK[q] == 1)
            elif before.batches_Q[q]:
                old, new = (np.linalg.norm(book.codes_QxKxC[q], axis=-1) for book in (before, found.codebooks))
                assert np.max(np.abs(new / old - 1)) < 0.05
        residual = z - found.values_BxTxD
        if step == 0:
            expected = jnp.mean(jnp.square(residual)[real]) / Q  # of the one level that has codes
            np.testing.assert_allclose(found.commitment, expected, rtol=1e-5)
        quantizer = quantizer.with_codebooks(found.codebooks)


def test_frames_that_are_padding_or_not_finite_change_no_codebook():
    quantizer, (z, real) = make(kmeans_iterations=5), batch()
    quantizer = quantizer.with_codebooks(train(quantizer, z, real, jax.random.key(0)).codebooks)
    nothing = train(quantizer, z, jnp.zeros_like(real), jax.random.key(1))
    jax.tree.map(np.testing.assert_array_equal, nothing.codebooks, quantizer.codebooks)
    assert nothing.commitment == 0
    spoilt = z.at[1, 3].set(jnp.nan).at[2, 0, 1].set(jnp.inf)
    assert real[1, 3] and real[2, 0]
    found = train(quantizer, spoilt, real, jax.random.key(1)).codebooks
    clean = train(quantizer, z, real.at[1, 3].set(False).at[2, 0].set(False), jax.random.key(1)).codebooks
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), found, clean)


@pytest.mark.parametrize("options", ({}, dict(projection="level", codebook_dim=4, learning="gradient")))
def test_the_commitment_of_every_level_reaches_the_frames(options):
    quantizer, (z, real) = make(**options), batch()

    def commitment(z, n_levels):
        return quantizer(z, real, n_levels=n_levels).commitment * n_levels

    gradients = [jax.grad(commitment)(z, n) for n in range(1, Q + 1)]
    for first, second in zip(gradients, gradients[1:], strict=False):
        assert jnp.abs(second - first).max() > 1e-4  # of the level that was added
    if not options:  # detached: it pulls the frame by what that level left
        left = z - quantizer(z, real, n_levels=2).values_BxTxD
        expected = jnp.where(real[..., None], 2 * left / (real.sum() * D), 0)
        np.testing.assert_allclose(gradients[1] - gradients[0], expected, atol=1e-6)


def test_gradients_pass_around_all_levels_at_once():
    quantizer, (z, real) = make(), batch()
    target = jax.random.normal(jax.random.key(9), z.shape)
    gradient = jax.grad(lambda z: jnp.sum(quantizer(z, real).values_BxTxD * target))(z)
    np.testing.assert_allclose(gradient, target, rtol=1e-6)


def test_the_rotation_trick_turns_and_scales_gradients_as_a_float64_matrix_does():
    rng = np.random.default_rng(0)
    x, quantized, gradient = rng.normal(size=(3, 5, D))
    value, back = jax.vjp(lambda x: pass_gradient(x, jnp.float32(quantized), True), jnp.float32(x))
    np.testing.assert_array_equal(value, np.float32(quantized))
    for i in range(5):
        a, b = x[i] / np.linalg.norm(x[i]), quantized[i] / np.linalg.norm(quantized[i])
        r = (a + b) / np.linalg.norm(a + b)
        turn = np.eye(D) - 2 * np.outer(r, r) + 2 * np.outer(b, a)
        np.testing.assert_allclose(turn @ a, b, atol=1e-12)
        scale = np.linalg.norm(quantized[i]) / np.linalg.norm(x[i])
        np.testing.assert_allclose(back(jnp.float32(gradient))[0][i], scale * turn.T @ gradient[i], atol=1e-5)


def test_rotated_gradients_of_nothing_and_of_opposites_are_finite():
    x = jnp.array([[0.0, 0.0], [1.0, 2.0], [1.0, 2.0]])
    quantized = jnp.array([[1.0, 0.0], [0.0, 0.0], [-1.0, -2.0]])
    value, back = jax.vjp(lambda x: pass_gradient(x, quantized, True), x)
    assert np.all(np.isfinite(back(jnp.ones_like(x))[0]))
    np.testing.assert_array_equal(value, quantized)


def test_a_quantizer_with_rotation_passes_rotated_gradients():
    (z, real), target = batch(), jax.random.normal(jax.random.key(9), (B, T, D))
    quantizer = make(rotation=True)
    gradient = jax.grad(lambda z: jnp.sum(quantizer(z, real).values_BxTxD * target))(z)
    values = quantizer(z, real).values_BxTxD
    expected = jax.vjp(lambda z: pass_gradient(z, values, True), z)[1](target)[0]
    np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("share", (0.5, 1.0))
def test_dropped_levels_add_nothing_and_cost_nothing_and_touch_only_their_share_of_the_items(share):
    items = 64
    z = jax.random.normal(jax.random.key(1), (items, 5, D))
    real = jnp.ones((items, 5), bool)
    quantizer = make(dropout=share)
    found = train(quantizer, z, real, jax.random.key(0))
    by_levels = jnp.stack([quantizer(z, real, n_levels=n).values_BxTxD for n in range(1, Q + 1)])
    distances = np.abs(found.values_BxTxD - by_levels).max(axis=(2, 3))
    used = 1 + np.argmin(distances, axis=0)
    assert np.all(distances.min(axis=0) < 1e-5)
    n = int(share * items)
    assert np.all(used[n:] == Q) and set(used[:n]) == {1, 2, 3}
    assert np.all(np.bincount(used[:n], minlength=Q + 1)[1:] > n / Q / 3)
    left, losses = z, []
    for q in range(Q):
        left = z - by_levels[q]
        losses.append(jnp.sum(jnp.square(left).mean(-1) * (used > q)[:, None]) / real.sum())
    np.testing.assert_allclose(found.commitment, np.mean(losses), rtol=1e-5)
    np.testing.assert_array_equal(quantizer(z, real).values_BxTxD, by_levels[-1])  # not in evaluation
    whole = train(make(), z, real, jax.random.key(0)).codebooks  # codebooks learn from all items
    jax.tree.map(np.testing.assert_array_equal, found.codebooks, whole)


def test_unquantized_items_pass_whole_and_in_training_only():
    z, real = jax.random.normal(jax.random.key(1), (200, 5, D)), jnp.ones((200, 5), bool)
    quantizer = make(no_quantization_rate=0.3)
    found = train(quantizer, z, real, jax.random.key(0))
    quantized = quantizer(z, real).values_BxTxD
    skipped = np.asarray(found.values_BxTxD == z).all(axis=(1, 2))
    assert 0.2 < skipped.mean() < 0.4
    np.testing.assert_allclose(found.values_BxTxD[~skipped], quantized[~skipped], atol=1e-6)
    learnt = train(make(), z, real, jax.random.key(0)).codebooks
    jax.tree.map(np.testing.assert_array_equal, found.codebooks, learnt)


def test_an_optimizer_sees_parameters_without_codebooks_and_gradient_codes_move_to_their_frames():
    assert not jax.tree.leaves(make().with_codebooks(None))
    quantizer, (z, real) = make(learning="gradient", projection="level", codebook_dim=4, l2=True), batch()
    model = quantizer.with_codebooks(None)
    assert len(jax.tree.leaves(model)) == 5 and quantizer.codebooks.sums_QxKxC is None

    def loss(model):
        found = model.with_codebooks(quantizer.codebooks)(z, real, key=jax.random.key(0), train=True)
        return found.codebook_loss, found

    (before, found), gradients = jax.value_and_grad(loss, has_aux=True)(model)
    moved = jax.tree.map(lambda p, g: p - 0.5 * g, model, gradients)
    assert loss(moved)[0] < before
    for part in ("level_in", "level_out"):
        assert not any(np.any(g) for g in jax.tree.leaves(getattr(gradients, part)))
    assert found.codebooks.batches_Q.tolist() == [1] * Q


def test_bfloat16_frames_get_the_codes_of_float32_and_values_in_their_own_dtype():
    quantizer, (z, real) = make(), batch()
    narrow = z.astype(jnp.bfloat16)
    found = quantizer(narrow, real)
    assert found.values_BxTxD.dtype == jnp.bfloat16 and found.commitment.dtype == jnp.float32
    np.testing.assert_array_equal(found.codes_BxTxQ, quantizer(narrow.astype(jnp.float32), real).codes_BxTxQ)


def test_published_codes_are_put_in_as_they_are():
    codes = np.random.default_rng(0).normal(size=(Q, K, D)).astype(np.float32)
    quantizer = make(kmeans_iterations=5, restart="ratio").with_codebooks(Codebooks.of(codes))
    z, real = batch()
    np.testing.assert_array_equal(quantizer.codebooks.codes_QxKxC, codes)
    assert np.any(quantizer.encode(z)[..., 0])
    after = train(quantizer, z, real, jax.random.key(0)).codebooks  # not initialised again
    assert after.batches_Q.tolist() == [2] * Q


def test_what_cannot_be_done_is_refused_with_the_field_and_the_cure():
    quantizer, (z, real) = make(), batch()
    with pytest.raises(ValueError, match="give it a key"):
        quantizer(z, real, train=True)
    for call in (lambda: quantizer.encode(z, 4), lambda: quantizer.decode(np.zeros((1, 2, 4), int))):
        with pytest.raises(ValueError, match="n_levels=4, but the quantizer has 3"):
            call()
    with pytest.raises(ValueError, match="n_levels=0"):
        quantizer.encode(z, 0)
    for code in (-1, K):
        with pytest.raises(ValueError, match="but the codebook has 16; use the codec that made them"):
            quantizer.decode(np.full((1, 2, 3), code))
