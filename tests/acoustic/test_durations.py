"""Durations of units: the predictor against torch, padding, what is rounded, drawn, learnt and refused."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

from jaxslm.acoustic.durations import (
    DurationConfig,
    DurationModel,
    DurationPredictor,
    LogDurations,
    duration_loss,
    predict,
    whole_frames,
)
from jaxslm.units.units import UnitSequence

RATE = 50.0


@functools.cache
def model(spread: bool = True) -> DurationModel:
    return DurationModel(12, DurationConfig(dim=8, hidden=16, spread=spread), jax.random.key(0))


def sequences(*lengths, seed=0):
    rng = np.random.default_rng(seed)
    ids = [np.cumsum(rng.integers(1, 12, n)) % 12 for n in lengths]  # no two neighbours alike
    return [UnitSequence(each, np.ones(len(each)), RATE) for each in ids]


def torch_predictor(ours: DurationPredictor, x_BxUxD: np.ndarray) -> np.ndarray:
    """The same layers by torch's functions, [B, U, outputs]."""
    of = lambda part: torch.from_numpy(np.array(part[...]))  # noqa: E731
    x = torch.from_numpy(x_BxUxD)
    for conv, norm in ((ours.conv_1, ours.norm_1), (ours.conv_2, ours.norm_2)):
        weight = of(conv.weight).permute(2, 1, 0)
        y = torch.nn.functional.conv1d(x.transpose(1, 2), weight, of(conv.bias), padding=weight.shape[2] // 2)
        x = torch.nn.functional.layer_norm(torch.relu(y).transpose(1, 2), y.shape[1:2], of(norm.scale), of(norm.bias))
    return (x @ of(ours.project.weight) + of(ours.project.bias)).numpy()


@pytest.mark.parametrize("kernel", [3, 5])
def test_the_predictor_is_torchs(kernel):
    ours = DurationPredictor(6, 10, jax.random.key(1), kernel=kernel, spread=True)
    ours = jax.tree.map(lambda x: x + 0.1 * jax.random.normal(jax.random.key(x.size), x.shape), ours)
    x = np.random.default_rng(0).normal(size=(2, 11, 6)).astype(np.float32)
    made = ours(x)
    np.testing.assert_allclose(np.stack(made, axis=-1), torch_predictor(ours, x), atol=1e-5)


def test_a_padded_row_has_what_it_has_alone():
    ids = np.random.default_rng(0).integers(0, 12, (3, 14))
    lengths = np.array([14, 5, 1])
    together = model().log_durations(ids, lengths)
    for row, n in enumerate(lengths):
        alone = model().log_durations(ids[row : row + 1, :n])
        for a, b in zip(together, alone, strict=True):
            np.testing.assert_allclose(a[row, :n], b[0], atol=1e-6)
    changed = model().log_durations(np.where(np.arange(14) < lengths[:, None], ids, 3), lengths)
    np.testing.assert_array_equal(changed.mean_BxU[1, :5], together.mean_BxU[1, :5])


def test_the_losses_are_those_written_out():
    rng = np.random.default_rng(0)
    mean, log_std = rng.normal(size=(2, 3, 7)).astype(np.float32)
    frames, measured = rng.integers(1, 20, (3, 7)), rng.random((3, 7)) < 0.5
    y = torch.from_numpy(np.log(frames[measured] + 1.0))
    plain = torch.nn.functional.mse_loss(torch.from_numpy(mean[measured]).double(), y)
    np.testing.assert_allclose(duration_loss(LogDurations(mean), frames, measured), plain, rtol=1e-5)
    normal = torch.distributions.Normal(*(torch.from_numpy(v[measured]).double() for v in (mean, np.exp(log_std))))
    expected = -normal.log_prob(y).mean() - 0.5 * np.log(2 * np.pi)
    np.testing.assert_allclose(duration_loss(LogDurations(mean, log_std), frames, measured), expected, rtol=1e-5)
    assert duration_loss(LogDurations(mean), frames, np.zeros_like(measured)) == 0


def test_at_speed_one_each_duration_is_rounded_as_published():
    y = np.array([-2.0, 0.0, 0.5, 1.0, np.log(3.4), np.log(3.6), 3.0, 100.0])
    expected = torch.clamp(torch.round(torch.exp(torch.from_numpy(y[:-1])) - 1).long(), min=1)
    np.testing.assert_array_equal(whole_frames(y)[:-1], expected)
    assert whole_frames(y)[-1] == 3000


@pytest.mark.parametrize("speed", [0.5, 0.8, 1.3, 2.0, 2.9])
def test_at_another_speed_the_whole_is_right_to_a_frame(speed):
    d = np.random.default_rng(0).uniform(3, 12, 200)
    frames = whole_frames(np.log1p(d), speed)
    assert frames.min() >= 1 and abs(frames.sum() - d.sum() / speed) <= 0.5001
    ends = np.cumsum(frames) - np.cumsum(d) / speed
    assert np.abs(ends).max() <= 1  # nor does any part run away


def test_units_that_must_last_a_frame_are_made_up_for_by_others():
    d = np.array([0.1] * 5 + [40.0] * 5)
    frames = whole_frames(np.log1p(d), 4.0)
    assert frames[:5].tolist() == [1] * 5 and abs(frames.sum() - d.sum() / 4) <= 0.5


def test_sequences_of_all_lengths_have_what_they_have_alone_and_equal_neighbours_are_joined():
    units = sequences(1, 7, 40, 16, 0, 300)
    made = predict(model(), units)
    for given, each in zip(units, made, strict=True):
        np.testing.assert_array_equal(each.ids, given.ids)
        np.testing.assert_array_equal(each.durations, predict(model(), [given])[0].durations)
    y = model().log_durations(units[1].ids[None])
    expected = whole_frames(np.asarray(y.mean_BxU[0]), log_std_U=np.asarray(y.log_std_BxU[0]))
    np.testing.assert_array_equal(made[1].durations, expected)
    plain = model(spread=False)
    y = plain.log_durations(units[1].ids[None]).mean_BxU[0]
    np.testing.assert_array_equal(predict(plain, [units[1]])[0].durations, whole_frames(np.asarray(y)))
    doubled = UnitSequence(np.repeat(units[1].ids, 2), np.ones(14), RATE)
    assert predict(model(), [doubled])[0] == made[1]


def test_drawn_durations_have_the_predicted_spread():
    one = jax.tree.map(jnp.zeros_like, model())
    one.predictor.project.bias[...] = jnp.array([np.log(201.0), np.log(0.1)])
    units = sequences(3000)
    drawn = predict(one, units, temperature=1.0, key=jax.random.key(3))[0].durations
    logs = np.log1p(drawn)
    assert abs(logs.mean() - np.log(201)) < 0.01 and abs(logs.std() - 0.1) < 0.006
    cooler = np.log1p(predict(one, units, temperature=0.5, key=jax.random.key(3))[0].durations)
    assert abs(cooler.std() - 0.05) < 0.004
    assert abs(predict(one, units)[0].durations.mean() - (201 * np.exp(0.1**2 / 2) - 1)) < 1e-3
    both = predict(one, [units[0], *sequences(5)], temperature=1.0, key=jax.random.key(3))
    np.testing.assert_array_equal(both[0].durations, drawn)


def test_mean_durations_last_as_long_as_drawn_ones():
    one = jax.tree.map(jnp.zeros_like, model())
    one.predictor.project.bias[...] = jnp.array([np.log(9.0), np.log(0.6)])
    units = sequences(4000)
    drawn = predict(one, units, temperature=1.0, key=jax.random.key(3))[0].durations
    made, faster = (predict(one, units, speed=speed)[0].durations for speed in (1.0, 2.0))
    assert made.sum() / drawn.sum() == pytest.approx(1, abs=0.03) and 8 / drawn.mean() < 0.85  # exp of the mean of logs
    assert set(made) == {9, 10} and abs(faster.sum() - made.sum() / 2) <= 1
    unlearnt = whole_frames(np.log([3.0, 3.0]), log_std_U=np.array([2.0, np.log(1.0)]))
    assert unlearnt.sum() == round(2 * (3 * np.exp(0.5) - 1))


@pytest.mark.parametrize("spread", [False, True])
def test_a_model_learns_how_long_each_unit_lasts(spread):
    lasts = np.arange(1, 13)
    ids = np.stack([each.ids for each in sequences(*[20] * 16)])
    learner = DurationModel(12, DurationConfig(dim=8, hidden=16, spread=spread, dropout=0.1), jax.random.key(0))
    adam = optax.adam(1e-2)

    @jax.jit
    def step(learner, state, key):
        def loss(learner):
            return duration_loss(learner.log_durations(ids, key=key), lasts[ids], np.ones(ids.shape, bool))

        value, gradient = jax.value_and_grad(loss)(learner)
        updates, state = adam.update(gradient, state)
        return optax.apply_updates(learner, updates), state, value

    state, losses = adam.init(learner), []
    for n in range(150):
        learner, state, value = step(learner, state, jax.random.key(n))
        losses.append(float(value))
    [made] = predict(learner, sequences(30, seed=9))
    assert losses[-1] < losses[0] and np.abs(made.durations - lasts[made.ids]).mean() < 0.6


def test_what_cannot_be_is_refused_with_its_cure():
    units = sequences(4)
    for speed in (0.0, -1.0, np.inf, np.nan):
        with pytest.raises(ValueError, match="speed=.*give a positive number"):
            predict(model(), units, speed=speed)
    with pytest.raises(ValueError, match="unit 12, but the duration model knows 12: use the units it was trained"):
        predict(model(), [UnitSequence([3, 12], [1, 1], RATE)])
    with pytest.raises(ValueError, match="no spread to draw from: set temperature=0"):
        predict(model(spread=False), units, temperature=0.5, key=jax.random.key(0))
    with pytest.raises(ValueError, match="give a key"):
        predict(model(), units, temperature=0.5)
    with pytest.raises(ValueError, match="temperature=-1"):
        predict(model(), units, temperature=-1)
    with pytest.raises(ValueError, match="not finite: the model is broken"):
        whole_frames(np.array([1.0, np.nan]))
    with pytest.raises(ValueError, match="kernel=4 .* is even"):
        DurationPredictor(4, 4, jax.random.key(0), kernel=4)
