import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxslm.codec.discriminators import Discriminators, level_rows
from jaxslm.codec.plane_conv import PlaneConv
from jaxslm.codec.spectral_discriminators import BandConfig, StftConfig
from jaxslm.codec.wave_discriminators import HIFIGAN_SCALE, SOUNDSTREAM_SCALE, PeriodConfig

torch = pytest.importorskip("torch")
from tests.codec import torch_discriminators as published  # noqa: E402
from tests.codec.dilations import dilates_inputs  # noqa: E402

HIFIGAN = tuple((c // 16, k, s, min(g, 4)) for c, k, s, g in HIFIGAN_SCALE)
SOUNDSTREAM = ((4, 15, 1, 1), (8, 41, 4, 2), (16, 41, 4, 4), (16, 5, 1, 1))
FRACTIONS = BandConfig().bands
TINY = {
    "period": {"periods": (2, 3), "channels": (3, 4, 5)},
    "scale": {"n_scales": 3, "layers": SOUNDSTREAM},
    "stft": {"windows": (128, 64), "channels": 4},
    "residual_stft": {"window": 128, "channels": 4, "multipliers": (2, 1, 2)},
    "band": {"windows": (128,), "channels": 3},
}
REFERENCES = {
    "period": lambda sub, x: published.period(sub, x),
    "scale": lambda sub, x: published.scale(sub, x, SOUNDSTREAM),
    "stft": lambda sub, x: published.ms_stft(sub, x, (1, 2, 4)),
    "residual_stft": lambda sub, x: published.residual_stft(sub, x),
    "band": lambda sub, x: published.bands(sub, x, FRACTIONS),
}


def clips(batch, n, seed=0):
    return np.random.default_rng(seed).uniform(-0.5, 0.5, (batch, n)).astype(np.float32)


def randomized(discriminators):
    """With other norms than those of the directions, so that both parts of weight norm count."""
    leaves, tree = jax.tree.flatten(discriminators)
    rng = np.random.default_rng(1)
    return jax.tree.unflatten(tree, [x * rng.uniform(0.5, 1.5, x.shape).astype(np.float32) for x in leaves])


def one_kind(kind, **fields):
    return randomized(Discriminators({kind: TINY[kind] | fields}, jax.random.key(0)))


def same(scores, reference, atol=1e-4):
    logits, features = reference
    np.testing.assert_allclose(scores.logits, published.ours(logits), atol=atol)
    assert len(scores.features) == len(features)
    for ours, theirs in zip(scores.features, features, strict=True):
        np.testing.assert_allclose(ours, published.ours(theirs), atol=atol)


@pytest.mark.parametrize("kind", TINY)
def test_equals_the_published_architecture_in_torch(kind):
    discriminators, x = one_kind(kind), clips(2, 601)
    for sub, scores in zip(discriminators.subs, jax.jit(discriminators.__call__)(x), strict=True):
        same(scores, REFERENCES[kind](sub, torch.tensor(x)))


def test_scales_of_hifigan_equal_those_in_torch():
    discriminators, x = one_kind("scale", layers=HIFIGAN, n_scales=2), clips(2, 1000)
    for sub, scores in zip(discriminators.subs, jax.jit(discriminators.__call__)(x), strict=True):
        same(scores, published.scale(sub, torch.tensor(x), HIFIGAN))


@pytest.mark.parametrize("kind", TINY)
def test_a_padded_row_has_the_scores_it_has_alone(kind):
    discriminators = Discriminators({kind: TINY[kind]}, jax.random.key(0), level=kind in ("period", "band"))
    n = np.array([600, 371])
    batch = np.where(np.arange(600) < n[:, None], clips(2, 600), 7.0).astype(np.float32)
    together = jax.jit(discriminators.__call__)(batch, jnp.array(n))
    for row, alone in [(1, jax.jit(discriminators.__call__)(batch[1:, : n[1]]))]:
        for ours, single in zip(together, alone, strict=True):
            maps = (*ours.features, ours.logits), ours.counts, (*single.features, single.logits)
            for x, count, y in zip(*maps, strict=True):
                assert count[row] == y.shape[1]
                np.testing.assert_allclose(x[row, : y.shape[1]], y[0], atol=1e-5)
                assert not np.any(x[row, y.shape[1] :])


def test_published_sizes():
    def n_parameters(configs):
        shapes = jax.eval_shape(lambda key: Discriminators(configs, key), jax.random.key(0))
        return sum(x.size for x in jax.tree.leaves(shapes))

    conv_weights = 5 * (5 * 32 + 5 * 32 * 128 + 5 * 128 * 512 + 5 * 512 * 1024 + 5 * 1024**2 + 3 * 1024)
    outputs = 32 + 128 + 512 + 1024 + 1024 + 1
    assert n_parameters({"period": {}}) == conv_weights + 5 * 2 * outputs
    assert PeriodConfig().channels[-1] == SOUNDSTREAM_SCALE[-1][0] == 1024 and len(StftConfig().windows) == 5
    inner = 27 * 2 * 32 + 3 * 27 * 32 * 32 + 9 * 32 * 32 + 9 * 32
    assert n_parameters({"stft": {}}) == 5 * (inner + 2 * (5 * 32 + 1))


@pytest.mark.parametrize("stride,groups", [((4, 1), 1), ((4, 1), 2), ((1, 2), 1), ((2, 2), 1)])
def test_gradients_of_a_strided_convolution_equal_those_of_torch_and_dilate_no_input(stride, groups):
    kernel = (41, 1) if stride[0] == 4 else (3, 9)
    conv = PlaneConv(4, 6, kernel, jax.random.key(0), stride=stride, groups=groups)
    x = np.random.default_rng(0).normal(size=(2, 50, 11, 4)).astype(np.float32)

    def loss(direction, x):
        moved = jax.tree.map(lambda a: a, conv)
        moved.direction[...] = direction
        return jnp.sum(jnp.sin(moved(x)))

    gradient = jax.jit(jax.grad(loss, argnums=(0, 1)))
    d_direction, d_x = gradient(conv.direction[...], x)
    padding = ((kernel[0] - 1) // 2, (kernel[1] - 1) // 2)
    theirs = published.conv_like(conv, stride=stride, groups=groups, padding=padding)
    torch_x = torch.tensor(x.transpose(0, 3, 1, 2), requires_grad=True)
    theirs(torch_x).sin().sum().backward()
    np.testing.assert_allclose(d_x, torch_x.grad.numpy().transpose(0, 2, 3, 1), atol=1e-4)
    expected = theirs.parametrizations.weight.original1.grad.numpy().transpose(2, 3, 1, 0)
    np.testing.assert_allclose(d_direction, expected, atol=2e-4 * np.abs(expected).max())
    assert not dilates_inputs(gradient.lower(conv.direction[...], x).compile().as_text())


def test_rows_lose_their_mean_and_get_a_peak():
    x = clips(2, 50) + 0.3
    levelled = np.array(level_rows(jnp.array(x)))
    np.testing.assert_allclose(levelled.mean(axis=1), 0, atol=1e-6)
    np.testing.assert_allclose(np.abs(levelled).max(axis=1), 0.8, rtol=1e-5)
    assert not np.any(level_rows(jnp.zeros((1, 8))))


def test_an_unknown_kind_and_a_short_segment_are_refused():
    with pytest.raises(ValueError, match="no kind 'bands'.*band"):
        Discriminators({"bands": {}}, jax.random.key(0))
    with pytest.raises(ValueError, match="100 samples are less than one window of 128"):
        one_kind("stft")(clips(1, 100))
    with pytest.raises(ValueError, match="use longer segments"):
        one_kind("residual_stft", multipliers=(1,) * 6)(clips(1, 60))
