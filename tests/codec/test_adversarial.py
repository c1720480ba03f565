"""The training step against the same algorithm written out plainly, and what it does where something goes wrong."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxslm.codec import losses as codec_losses
from jaxslm.codec.distillation import Distillation, LogMel
from tests.codec import tiny_codec
from tests.codec.dilations import dilates_inputs

WEIGHTS = {"mel": 2.0, "waveform": 0.5, "adversarial": 4.0, "feature": 3.0}


@functools.cache
def parts(**changes):
    training = tiny_codec.training(**changes)
    return training, tiny_codec.start(training, tiny_codec.config()), jax.jit(training.step, static_argnums=3)


def plain_step(training, state, batch, scales):
    """(codec's parameters, discriminators) after a step, by one gradient of each weighted sum of losses."""
    samples, n_B = batch["samples"], batch["length"][:, 0]
    model = state.model
    codec, books = model["codec"].with_codebooks(None), model["codec"].quantizer.codebooks
    key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
    forward = lambda c: c.with_codebooks(books)(samples, n_B, key=key, train=True)  # noqa: E731
    fake = forward(codec).samples_BxN

    def of_discriminators(d):
        return codec_losses.discriminator_loss(d(fake, n_B), d(samples, n_B))

    gradient = jax.grad(of_discriminators)(model["discriminators"])
    updates, _ = training.optimizers["discriminators"].update(
        gradient, state.opt_state["discriminators"], model["discriminators"]
    )
    moved = optax.apply_updates(model["discriminators"], updates)

    def of_codec(c):
        made = forward(c)
        fakes, reals = moved(made.samples_BxN, n_B), moved(samples, n_B)
        values = training.objective.distance(made.samples_BxN, samples, n_B)
        values |= {
            "adversarial": codec_losses.generator_loss(fakes),
            "feature": codec_losses.feature_matching(fakes, reals),
        }
        return sum(scales[name] * values[name] for name in scales) + 0.7 * made.quantized.commitment

    updates, _ = training.optimizers["codec"].update(
        jax.grad(of_codec)(codec), {n: v["codec"] for n, v in _moments(state).items()}, codec
    )
    return optax.apply_updates(codec, updates), moved


def _moments(state):
    moments = state.opt_state["codec"]
    pick = lambda v: v if not isinstance(v, dict) else v["codec"]  # noqa: E731
    return {name: {"codec": pick(value)} for name, value in moments.items()}


def same(a, b, **tolerance):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, **tolerance)


def test_a_step_with_fixed_weights_is_one_gradient_of_each_side():
    training, state, step = parts(balance=False)
    batch = tiny_codec.batch()
    after, metrics = step(state, batch, None, True)
    codec, discriminators = jax.jit(lambda s, b: plain_step(training, s, b, WEIGHTS))(state, batch)
    same(after.model["codec"].with_codebooks(None), codec, atol=1e-5)
    same(after.model["discriminators"], discriminators, atol=1e-5)
    before = state.model["codec"].with_codebooks(None)
    same(after.model["average"], codec, atol=1e-5)
    second, _ = step(after, batch, None, True)
    mean = jax.tree.map(lambda old, new: (0.9 * old + new) / 1.9, codec, second.model["codec"].with_codebooks(None))
    same(second.model["average"], mean, atol=1e-5)
    np.testing.assert_allclose(metrics["loss"], 2 * metrics["loss/mel"] + 0.5 * metrics["loss/waveform"], rtol=1e-5)
    moved = [not np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, (before, codec)), strict=True)]
    assert all(moved)


def test_the_balancer_gives_each_loss_its_share_of_the_gradient():
    training, state, step = parts(balance=True)
    batch = tiny_codec.batch()
    after, _ = step(state, batch, None, True)
    norms = after.opt_state["balancer"]["norms"]  # after one step, the norms themselves
    scales = {name: WEIGHTS[name] / sum(WEIGHTS.values()) / norms[name] for name in WEIGHTS}
    codec, _ = jax.jit(lambda s, b: plain_step(training, s, b, scales))(state, batch)
    same(after.model["codec"].with_codebooks(None), codec, atol=1e-4)


def test_discriminators_stand_still_until_they_start_and_are_heard_later():
    start = dict(weight=4.0, form="hinge", average=True, start=2, delay=1)
    training = tiny_codec.training(adversarial=start)
    state = tiny_codec.start(training, tiny_codec.config())
    step, batch = jax.jit(training.step, static_argnums=3), tiny_codec.batch()
    first = state.model["discriminators"]
    for n in range(4):
        contest = training.has_started(state)
        state, metrics = step(state, batch, None, contest)
        moved = any(
            not np.array_equal(*p)
            for p in zip(*map(jax.tree.leaves, (first, state.model["discriminators"])), strict=True)
        )
        assert moved == (n >= 2) == contest == ("loss/discriminators" in metrics)
        assert (metrics["share/adversarial"] > 0) == (n == 3)
        assert np.isfinite(metrics["grad_norm"])


@pytest.mark.parametrize("what", ["samples", "discriminators"])
def test_a_step_that_goes_wrong_changes_nothing_and_says_whose_fault_it_is(what):
    _, state, step = parts(balance=True)
    batch = tiny_codec.batch()
    if what == "samples":
        batch["samples"] = batch["samples"].at[1, 7].set(jnp.nan)
    else:
        large = jax.tree.map(lambda x: 50 * x, state.model["discriminators"])
        state = dataclasses.replace(state, model={**state.model, "discriminators": large})
    after, metrics = step(state, batch, None, True)
    same((after.model, after.opt_state), (state.model, state.opt_state), rtol=0)
    assert (after.step, after.skipped, after.skipped_in_a_row) == (1, 1, 1)
    assert metrics["bad/discriminators"] == 1 and metrics["bad/codec"] == (what == "samples")


@pytest.mark.parametrize("what", ["silence", "constant", "square wave", "five samples", "nothing"])
def test_sound_that_is_none_does_no_harm(what):
    _, state, step = parts(balance=True)
    batch = tiny_codec.batch()
    one, (rows, n) = jnp.ones_like(batch["samples"]), batch["samples"].shape
    fill = {"silence": 0 * one, "constant": 0.7 * one, "square wave": jnp.sign(jnp.sin(jnp.arange(n) / 9.0)) * one}
    batch["samples"] = fill.get(what, batch["samples"])
    batch["length"] = jnp.full((rows, 1), {"five samples": 5, "nothing": 0}.get(what, n), jnp.int32)
    batch["samples"] = jnp.where(jnp.arange(n) < batch["length"], batch["samples"], 0)
    for _ in range(3):
        state, metrics = step(state, batch, None, True)
        assert metrics["bad/codec"] == metrics["bad/discriminators"] == 0
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((state.model, state.opt_state)))


def test_no_convolution_of_the_compiled_step_has_a_dilated_input():
    _, state, step = parts(balance=True)
    text = step.lower(state, tiny_codec.batch(), None, True).compile().as_text()
    assert "convolution" in text and not dilates_inputs(text)


def test_adversarial_and_feature_losses_alone_train_a_codec():
    training = tiny_codec.training(
        spectral=dict(mel=dict(weight=0.0, form="log_mel", window=64, hop=16, n_mels=8)),
        waveform=dict(weight=0.0, form="l1"),
    )
    state = tiny_codec.start(training, tiny_codec.config())
    _, metrics = jax.jit(training.step, static_argnums=3)(state, tiny_codec.batch(), None, True)
    assert metrics["loss"] == metrics["loss/mel"] > 0 and metrics["grad_norm"] > 0
    assert set(training.balancer.weights) == {"adversarial", "feature"}


def test_the_first_level_learns_from_a_teacher():
    distillation = Distillation("frame", 1, tiny_codec.RATE, 1, 80)
    distil = dict(weight=50.0, form="frame", teacher="log_mel", layer=-1, all_layers=False)
    training = tiny_codec.training(distillation, distil=distil)
    codec_config = tiny_codec.config(codebook_size=32)
    state = tiny_codec.start(training, codec_config)
    step, batch, teacher = jax.jit(training.step, static_argnums=3), tiny_codec.batch(n=6400), LogMel()
    losses = []
    for _ in range(12):
        state, metrics = step(state, batch, teacher, True)
        losses.append(float(metrics["loss/distil"]))
    assert losses[-1] < 0.8 * losses[0]
