"""Split, grouped and finite scalar quantizers; configs."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxslm.codec.quantizer_config import KINDS, QuantizerConfig
from jaxslm.codec.quantizers import make_quantizer

B, T, D, K = 3, 20, 8, 16


def make(kind: str, **options):
    settings = dict(dim=D, kind=kind, n_levels=3, codebook_size=K, kmeans_iterations=0, fsq_levels=(4, 3, 5))
    return make_quantizer(QuantizerConfig(**settings | options), jax.random.key(0))


Z = jax.random.normal(jax.random.key(1), (B, T, D))
REAL = jnp.arange(T) < jnp.array([20, 15, 10])[:, None]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_trains_in_one_compiled_step_whose_state_is_put_back(kind):
    quantizer = make(kind, kmeans_iterations=3, dropout=0.5, no_quantization_rate=0.2)
    model, state = quantizer.with_codebooks(None), quantizer.codebooks

    @jax.jit
    def step(model, state, key):
        found = model.with_codebooks(state)(Z, REAL, key=key, train=True)
        return found.codebooks, found

    for i in range(4):
        before = state
        state, found = step(model, state, jax.random.key(i))
        assert jax.tree.structure(state) == jax.tree.structure(before)
        assert jax.tree.map(lambda x: (x.shape, x.dtype), state) == jax.tree.map(lambda x: (x.shape, x.dtype), before)
    quantizer = model.with_codebooks(state)
    assert found.values_BxTxD.shape == (B, T, D)
    assert found.codes_BxTxQ.shape == (B, T, quantizer.n_codebooks) and found.codes_BxTxQ.dtype == jnp.int32
    for name in ("usage", "perplexity", "dead"):
        assert found.metrics[name].shape == (quantizer.n_codebooks,)
    codes = quantizer.encode(Z)
    np.testing.assert_allclose(quantizer.decode(codes), quantizer(Z, REAL).values_BxTxD, atol=1e-5)
    assert all(
        np.any(np.asarray(b) != a) for a, b in zip(*map(jax.tree.leaves, (make(kind).codebooks, state)), strict=True)
    )


def test_the_halves_of_a_split_quantize_the_same_frames_and_are_added():
    split = make("split_rvq", projection="shared", codebook_dim=4)
    semantic, acoustic = split.parts
    found = split(Z, REAL)
    one, rest = semantic(Z, REAL), acoustic(Z, REAL)
    np.testing.assert_allclose(found.values_BxTxD, one.values_BxTxD + rest.values_BxTxD, atol=1e-6)
    np.testing.assert_array_equal(found.codes_BxTxQ, jnp.concatenate([one.codes_BxTxQ, rest.codes_BxTxQ], -1))
    np.testing.assert_allclose(found.commitment, (one.commitment + 2 * rest.commitment) / 3, rtol=1e-6)
    assert np.abs(semantic.project_in.weight[...] - acoustic.project_in.weight[...]).max() > 0.01
    alone = split(Z, REAL, n_levels=1)
    np.testing.assert_allclose(alone.values_BxTxD, one.values_BxTxD, atol=1e-6)
    np.testing.assert_allclose(split.decode(alone.codes_BxTxQ), one.values_BxTxD, atol=1e-6)
    assert jax.tree.structure(alone.codebooks) == jax.tree.structure(split.codebooks)


def test_the_semantic_level_of_a_split_never_drops_out():
    split = make("split_rvq", dropout=1.0, n_levels=4)
    found = jax.jit(lambda z, key: split(z, jnp.ones(z.shape[:2], bool), key=key, train=True))(
        jnp.tile(Z, (10, 1, 1)), jax.random.key(0)
    )
    values = [split(jnp.tile(Z, (10, 1, 1)), jnp.ones((30, T), bool), n_levels=n).values_BxTxD for n in (2, 3, 4)]
    nearest = jnp.abs(jnp.stack(values) - found.values_BxTxD).max(axis=(2, 3))
    assert np.all(nearest.min(axis=0) < 1e-5) and set(np.asarray(nearest.argmin(axis=0)).tolist()) == {0, 1, 2}


def test_groups_quantize_their_own_features_and_the_first_codes_are_a_coarser_version():
    grouped = make("grouped_rvq")
    left, right = grouped.parts
    found = grouped(Z, REAL)
    a, b = left(Z[..., :4], REAL), right(Z[..., 4:], REAL)
    np.testing.assert_allclose(found.values_BxTxD, jnp.concatenate([a.values_BxTxD, b.values_BxTxD], -1), atol=1e-6)
    np.testing.assert_array_equal(found.codes_BxTxQ[..., 0::2], a.codes_BxTxQ)
    np.testing.assert_array_equal(found.codes_BxTxQ[..., 1::2], b.codes_BxTxQ)
    np.testing.assert_array_equal(found.metrics["usage"][1::2], b.metrics["usage"])
    np.testing.assert_allclose(found.commitment, (a.commitment + b.commitment) / 2, rtol=1e-6)
    coarse = grouped(Z, REAL, n_levels=2)
    np.testing.assert_array_equal(coarse.codes_BxTxQ, found.codes_BxTxQ[..., :4])
    np.testing.assert_allclose(grouped.decode(found.codes_BxTxQ[..., :4]), coarse.values_BxTxD, atol=1e-6)
    with pytest.raises(ValueError, match="3 codes a frame are no whole levels of 2 groups"):
        grouped.decode(found.codes_BxTxQ[..., :3])


def test_finite_scalar_codes_and_values_are_those_of_a_float64_loop():
    fsq = make("fsq")
    found = fsq(2 * Z, REAL)
    weight_in, bias_in, weight_out, bias_out = (
        np.asarray(p[...], np.float64)
        for layer in (fsq.project_in, fsq.project_out)
        for p in (layer.weight, layer.bias)
    )
    x = 2 * np.asarray(Z, np.float64) @ weight_in + bias_in
    for b, t in itertools.product(range(B), range(T)):
        code, place, steps = 0, 1, []
        for value, n in zip(x[b, t], (4, 3, 5), strict=True):
            half, offset = (n - 1) * 0.999 / 2, 0 if n % 2 else 0.5
            step = round(float(np.tanh(value + np.arctanh(offset / half)) * half - offset))
            code, place = code + (step + n // 2) * place, place * n
            steps.append(step / (n // 2))
        assert code == found.codes_BxTxQ[b, t, 0]
        np.testing.assert_allclose(found.values_BxTxD[b, t], np.array(steps) @ weight_out + bias_out, atol=1e-5)


def test_finite_scalar_codes_use_all_steps_and_no_other():
    fsq = make("fsq")
    ends = fsq.project_in.bias[...][None] + jnp.array([[-9.0], [9.0]]) * jnp.ones((1, 3))
    lowest, highest = fsq._round(ends)
    np.testing.assert_array_equal(lowest, [-2, -1, -2])
    np.testing.assert_array_equal(highest, [1, 1, 2])
    np.testing.assert_array_equal(fsq._round(jnp.zeros(3)), [0, 0, 0])
    every = jnp.arange(60)[None, :, None]
    assert len(np.unique(np.asarray(fsq.decode(every))[0], axis=0)) == 60


def test_finite_scalar_gradients_reach_the_frames_and_padding_is_not_counted():
    fsq = make("fsq")
    assert jnp.abs(jax.grad(lambda z: jnp.sum(fsq(z, REAL).values_BxTxD ** 2))(Z)).min(axis=-1).max() > 0
    found = fsq(Z, REAL, key=jax.random.key(0), train=True)
    counts = np.bincount(np.asarray(found.codes_BxTxQ)[..., 0][np.asarray(REAL)], minlength=60)
    np.testing.assert_allclose(found.codebooks.usage_QxK[0], 0.99 + 0.01 * counts, rtol=1e-6)
    spoilt = fsq(Z.at[0, 0].set(jnp.nan), REAL, key=jax.random.key(0), train=True)
    np.testing.assert_allclose(spoilt.codebooks.usage_QxK.sum(), 0.99 * 60 + 0.01 * 44, rtol=1e-5)
    with pytest.raises(ValueError, match="one level; ask for 1"):
        fsq(Z, REAL, n_levels=2)
    with pytest.raises(ValueError, match="codes run from 60 to 60, but the codebook has 60"):
        fsq.decode(np.full((1, 1, 1), 60))


@pytest.mark.parametrize(
    ("options", "message"),
    (
        (dict(kind="vqvae"), "quantizer.kind='vqvae' is not one of rvq, split_rvq, grouped_rvq, fsq"),
        (dict(restart="often"), "quantizer.restart='often'"),
        (dict(codebook_dim=4), "set quantizer.projection to shared or level"),
        (dict(kind="split_rvq", n_semantic=3, n_levels=3), "set it to 1 to 2"),
        (dict(kind="grouped_rvq", n_groups=3), "not a multiple of n_groups=3"),
        (dict(kind="fsq", fsq_levels=(8, 2)), "each 3 or more"),
        (dict(kmeans_iterations=-1), "quantizer.kmeans_iterations=-1; set it to 0 or more"),
        (dict(restart_every=0), "quantizer.restart_every=0; set it to 1 or more"),
        (dict(restart="interval", restart_threshold=1.0), "not for restart='interval'"),
        (dict(dropout=1.5), "quantizer.dropout=1.5 is a share"),
        (dict(decay=1.0), "quantizer.decay=1.0"),
        (dict(n_levels=0), "quantizer.n_levels=0"),
    ),
)
def test_configs_that_make_no_sense_are_refused(options, message):
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        QuantizerConfig(**dict(dim=D) | options)


def test_splits_refuse_fewer_levels_than_the_semantic_ones():
    with pytest.raises(ValueError, match="the split quantizer takes 2 to 3"):
        make("split_rvq", n_semantic=2).encode(Z, 1)


@pytest.mark.parametrize("kind", ("split_rvq", "grouped_rvq"))
def test_an_item_passes_unquantized_in_all_parts_or_in_none(kind):
    quantizer, whole = make(kind, no_quantization_rate=0.5), make(kind)
    z, real = jax.random.normal(jax.random.key(1), (100, 3, D)), jnp.ones((100, 3), bool)
    found = jax.jit(lambda q: q(z, real, key=jax.random.key(2), train=True))(quantizer).values_BxTxD
    quantized = jax.jit(lambda q: q(z, real, key=jax.random.key(2), train=True))(whole).values_BxTxD
    passed = {"split_rvq": 2 * z, "grouped_rvq": z}[kind]  # each half of a split gives the frames
    skipped = np.isclose(found, passed, atol=1e-5).all(axis=(1, 2))
    assert 0.3 < skipped.mean() < 0.7
    np.testing.assert_allclose(found[~skipped], quantized[~skipped], atol=1e-5)


def test_an_item_drops_the_same_levels_in_all_groups():
    quantizer = make("grouped_rvq", dropout=1.0)
    z, real = jax.random.normal(jax.random.key(1), (50, 3, D)), jnp.ones((50, 3), bool)
    found = jax.jit(lambda q: q(z, real, key=jax.random.key(2), train=True))(quantizer)
    used = set()
    for values, codes in zip(found.values_BxTxD, found.codes_BxTxQ, strict=True):
        with_levels = [
            np.allclose(quantizer.decode(codes[None, :, : n * quantizer.config.n_groups])[0], values, atol=1e-5)
            for n in range(1, quantizer.config.n_levels + 1)
        ]
        assert sum(with_levels) == 1
        used.add(with_levels.index(True))
    assert used == set(range(quantizer.config.n_levels))
