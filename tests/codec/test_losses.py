import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxslm.codec import losses
from jaxslm.codec.scores import Scores

torch = pytest.importorskip("torch")
F = torch.nn.functional


def scores(seed, counts=None):
    rng = np.random.default_rng(seed)
    shapes = [[(2, 6, 3, 4), (2, 5, 3, 2), (2, 5, 3, 1)], [(2, 7, 1, 3), (2, 4, 1, 1)]]
    out = []
    for maps in shapes:
        *features, logits = (jnp.array(rng.normal(size=s), jnp.float32) * 2 for s in maps)
        out.append(Scores(logits, tuple(features), counts and tuple(jnp.array(counts[s[1]]) for s in maps)))
    return out


def in_torch(subs):
    return [(torch.tensor(np.array(s.logits)), [torch.tensor(np.array(f)) for f in s.features]) for s in subs]


def published_feature_loss(fake, real, form):
    by_sub = []
    for (_, xs), (_, ys) in zip(fake, real, strict=True):
        maps = [F.l1_loss(x, y) / (y.abs().mean() if form == "relative" else 1) for x, y in zip(xs, ys, strict=True)]
        by_sub.append(sum(maps) / (1 if form == "sum" else len(maps)))
    return sum(by_sub) / (1 if form == "sum" else len(by_sub))


def test_adversarial_losses_equal_the_published_ones():
    fake, real = scores(0), scores(1)
    f, r = [x for x, _ in in_torch(fake)], [x for x, _ in in_torch(real)]
    hinge = sum(F.relu(1 + a).mean() + F.relu(1 - b).mean() for a, b in zip(f, r, strict=True))
    squares = sum((a**2).mean() + ((1 - b) ** 2).mean() for a, b in zip(f, r, strict=True))
    np.testing.assert_allclose(losses.discriminator_loss(fake, real), hinge / 2, rtol=1e-5)
    ours = losses.discriminator_loss(fake, real, "least_squares", average=False)
    np.testing.assert_allclose(ours, squares, rtol=1e-5)
    np.testing.assert_allclose(losses.generator_loss(fake), -sum(x.mean() for x in f) / 2, rtol=1e-5)
    clipped = sum(F.relu(1 - x).mean() for x in f) / 2
    np.testing.assert_allclose(losses.generator_loss(fake, "clipped_hinge"), clipped, rtol=1e-5)
    ones = sum(F.mse_loss(x, torch.ones_like(x)) for x in f)
    np.testing.assert_allclose(losses.generator_loss(fake, "least_squares", average=False), ones, rtol=1e-5)


@pytest.mark.parametrize("form", ["relative", "mean", "sum"])
def test_feature_matching_equals_the_published_one_and_leaves_the_real_side_alone(form):
    fake, real = scores(0), scores(1)
    expected = published_feature_loss(in_torch(fake), in_torch(real), form)
    np.testing.assert_allclose(losses.feature_matching(fake, real, form), expected, rtol=1e-5)
    gradient = jax.grad(lambda real: losses.feature_matching(fake, real, form))(real)
    assert not any(np.any(x) for x in jax.tree.leaves(gradient))


def test_positions_beyond_the_ends_do_not_count():
    counts = {6: [6, 3], 5: [5, 2], 7: [7, 4], 4: [4, 0]}
    fake, real = scores(0, counts), scores(1, counts)

    def kept(x):
        return np.concatenate([np.array(x[row, : counts[x.shape[1]][row]]) for row in range(2)])

    subs = list(zip(fake, real, strict=True))
    hinge = [np.maximum(0, 1 + kept(f.logits)).mean() + np.maximum(0, 1 - kept(r.logits)).mean() for f, r in subs]
    np.testing.assert_allclose(losses.discriminator_loss(fake, real), np.mean(hinge), rtol=1e-5)
    np.testing.assert_allclose(losses.generator_loss(fake), -np.mean([kept(f.logits).mean() for f in fake]), rtol=1e-5)
    maps = []
    for f, r in subs:
        pairs = [(kept(x), kept(y)) for x, y in zip(f.features, r.features, strict=True)]
        maps.append(np.mean([np.abs(x - y).mean() / np.abs(y).mean() for x, y in pairs]))
    np.testing.assert_allclose(losses.feature_matching(fake, real), np.mean(maps), rtol=1e-5)


def test_waveform_losses_count_real_samples():
    x, y = np.random.default_rng(0).normal(size=(2, 2, 9)).astype(np.float32)
    off = np.concatenate([(x - y)[0, :9], (x - y)[1, :4]])
    n = jnp.array([9, 4])
    np.testing.assert_allclose(losses.waveform_l1(x, y, n), np.abs(off).mean(), rtol=1e-5)
    np.testing.assert_allclose(losses.waveform_l2(x, y, n), (off**2).mean(), rtol=1e-5)
    np.testing.assert_allclose(losses.waveform_l1(x, y), np.abs(x - y).mean(), rtol=1e-5)
    assert losses.waveform_l1(x, y, jnp.array([0, 0])) == 0


def test_distillation_equals_torch_and_does_not_see_padding():
    rng = np.random.default_rng(0)
    student, teacher = (rng.normal(size=(2, t, 5)).astype(np.float32) for t in (8, 7))
    s, t = torch.tensor(student[:, :7]), torch.tensor(teacher)
    by_dimension = -torch.log(torch.sigmoid(F.cosine_similarity(s, t, dim=1))).mean()
    by_frame = (1 - F.cosine_similarity(s, t, dim=2)).mean()
    np.testing.assert_allclose(losses.distil_by_dimension(student, teacher), by_dimension, rtol=1e-5)
    np.testing.assert_allclose(losses.distil_by_frame(student, teacher), by_frame, rtol=1e-5)
    for ours in (losses.distil_by_dimension, losses.distil_by_frame):
        alone = ours(student[:1, :4], teacher[:1, :4])
        garbage = np.where(np.arange(8)[:, None] < 4, student[:1], 9.0)
        loss, gradient = jax.value_and_grad(ours)(garbage, teacher[:1], jnp.array([4]))
        np.testing.assert_allclose(loss, alone, rtol=1e-5)
        assert np.any(gradient[:, :4]) and not np.any(gradient[:, 4:])
        assert np.all(np.isfinite(jax.grad(ours)(jnp.zeros((1, 4, 5)), jnp.zeros((1, 4, 5)))))


def test_an_unknown_form_is_refused():
    with pytest.raises(ValueError, match="form is 'wasserstein'"):
        losses.generator_loss(scores(0), "wasserstein")
