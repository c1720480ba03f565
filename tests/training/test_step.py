"""The training step and AdamW against torch, accumulation against the whole batch, the guard of non-finite steps."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxslm.training import optimizer, state, step
from tests.training import tiny_task


def parts(accumulate_steps=1, **changes):
    init, train_step, schedule = compiled(accumulate_steps, tuple(changes.items()))
    return init(jax.random.key(0)), train_step, schedule


@functools.cache
def compiled(accumulate_steps, changes):
    config = tiny_task.get_config().optimizer.to_dict() | dict(changes)
    adamw, schedule = optimizer.make_optimizer(config, 30)
    one_device = tiny_task.make_partitioner({}, jax.devices()[:1])
    init, abstract = state.make_init(tiny_task.Bigram, adamw, one_device)
    train_step = step.make_train_step(
        tiny_task.loss, adamw, schedule, objectives=tiny_task.OBJECTIVES, accumulate_steps=accumulate_steps
    )
    return init, train_step, schedule


def test_five_steps_are_those_of_torch_adamw():
    torch = pytest.importorskip("torch")
    train_state, train_step, schedule = parts(clip_norm=0.5, weight_decay=0.3)
    block = train_state.model.layers
    start = [train_state.model.table, block.weight, block.bias]
    table, weight, bias = (torch.nn.Parameter(torch.tensor(np.asarray(p[...]))) for p in start)
    groups = [dict(params=[table, weight], weight_decay=0.3), dict(params=[bias], weight_decay=0.0)]
    adamw = torch.optim.AdamW(groups, betas=(0.9, 0.95), eps=1e-8)
    for n in range(5):
        batch = tiny_task.batch_of(0, n)
        x = table[torch.tensor(batch["tokens"])]
        for w, b in zip(weight, bias, strict=True):
            x = x + torch.tanh(x @ w + b)
        logits = (x @ table.T).reshape(-1, tiny_task.VOCABULARY)
        nll = torch.nn.functional.cross_entropy(logits, torch.tensor(batch["targets"]).long().ravel(), reduction="none")
        weights = torch.tensor(batch["weights"]).ravel()
        loss = (nll * weights).sum() / weights.sum()
        adamw.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_([table, weight, bias], 0.5)
        for group in adamw.param_groups:
            group["lr"] = float(schedule(n))
        adamw.step()
        train_state, metrics = train_step(train_state, batch)
        assert float(metrics["loss"]) == pytest.approx(loss.item(), rel=1e-5)
        assert float(metrics["grad_norm"]) == pytest.approx(norm.item(), rel=1e-4)
    for ours, theirs in zip(jax.tree.leaves(train_state.model), (bias, weight, table), strict=True):
        np.testing.assert_allclose(ours, theirs.detach().numpy(), atol=2e-5)


def test_metrics_by_objective():
    train_state, train_step, _ = parts()
    batch = tiny_task.batch_of(0, 0)
    logp = np.asarray(jax.nn.log_softmax(train_state.model(batch["tokens"])), np.float64)
    nll = -np.take_along_axis(logp, batch["targets"][..., None], -1)[..., 0]
    _, metrics = train_step(train_state, batch)
    for i, name in enumerate(tiny_task.OBJECTIVES):
        chosen = (batch["objective"] == i) & (batch["weights"] > 0)
        assert float(metrics[f"loss/{name}"]) == pytest.approx(nll[chosen].mean(), rel=1e-5)
        assert metrics[f"tokens/{name}"] == chosen.sum()


@pytest.mark.parametrize("accumulate_steps", [2, 4])
def test_accumulation_weighs_tokens_not_parts(accumulate_steps):
    """Parts have different numbers of weighted tokens here: a mean of means would differ."""
    whole, whole_step, _ = parts()
    cut, cut_step, _ = parts(accumulate_steps)
    batch = tiny_task.batch_of(0, 0)
    batch["weights"][::accumulate_steps] = 0
    batch["weights"][0, 0] = 1
    whole, whole_metrics = whole_step(whole, batch)
    cut, cut_metrics = cut_step(cut, batch)
    for name in whole_metrics:
        assert float(cut_metrics[name]) == pytest.approx(float(whole_metrics[name]), rel=1e-5, nan_ok=True), name
    for a, b in zip(jax.tree.leaves(whole.opt_state), jax.tree.leaves(cut.opt_state), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-7)


def test_batch_that_cannot_be_cut_is_named():
    train_state, train_step, _ = parts(3)
    with pytest.raises(ValueError, match="8 rows cannot be cut into 3"):
        train_step(train_state, tiny_task.batch_of(0, 0))


@pytest.mark.parametrize("poison", [np.inf, np.nan, 0.0])
def test_step_that_is_not_finite_changes_only_the_counters(poison):
    train_state, train_step, schedule = parts()
    train_state, _ = train_step(train_state, tiny_task.batch_of(0, 0))
    before = jax.tree.map(np.array, train_state)
    bad = tiny_task.batch_of(0, 1)
    bad["weights"] = np.full_like(bad["weights"], poison)
    train_state, metrics = train_step(train_state, bad)
    train_state, metrics = train_step(train_state, bad)
    assert (metrics["skipped"], metrics["skipped_in_a_row"]) == (2, 2)
    for old, new in zip(
        jax.tree.leaves((before.model, before.opt_state)),
        jax.tree.leaves((train_state.model, train_state.opt_state)),
        strict=True,
    ):
        np.testing.assert_array_equal(old, new)
    train_state, metrics = train_step(train_state, tiny_task.batch_of(0, 3))
    assert (metrics["skipped"], metrics["skipped_in_a_row"], train_state.step) == (2, 0, 4)
    assert metrics["learning_rate"] == schedule(1)  # of the second update made


def test_state_is_donated():
    train_state, train_step, _ = parts()
    train_step(train_state, tiny_task.batch_of(0, 0))
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(train_state.model))


@pytest.mark.parametrize("warmup", [0, 4])
def test_schedules(warmup):
    config = dict(peak_lr=0.1, final_lr=0.02, warmup_steps=warmup)
    peers = {
        "constant": optax.constant_schedule(0.1),
        "linear": optax.linear_schedule(0.1, 0.02, 20 - warmup),
        "cosine": optax.cosine_decay_schedule(0.1, 20 - warmup, alpha=0.2),
        "inverse_sqrt": lambda n: max(0.02, 0.1 * (max(warmup, 1) / (n + warmup)) ** 0.5),
    }
    for kind, peer in peers.items():
        schedule = optimizer.make_schedule(config | {"schedule": kind}, 20)
        for update in range(1, 26):
            expected = 0.1 * update / warmup if update < warmup else float(peer(update - warmup))
            assert float(schedule(update - 1)) == pytest.approx(expected, rel=1e-5), (kind, update)


def test_unknown_schedule_lists_the_known():
    with pytest.raises(ValueError, match="'step'; use one of constant, linear, cosine, exponential, inverse_sqrt"):
        optimizer.make_schedule(dict(schedule="step", peak_lr=1, final_lr=0, warmup_steps=0), 10)


def test_first_moment_may_be_bfloat16():
    train_state, train_step, _ = parts(moment_dtype="bfloat16")
    train_state, _ = train_step(train_state, tiny_task.batch_of(0, 0))
    assert {leaf.dtype for leaf in jax.tree.leaves(train_state.opt_state["mu"])} == {jnp.dtype("bfloat16")}
    assert {leaf.dtype for leaf in jax.tree.leaves(train_state.opt_state["nu"])} == {jnp.dtype("float32")}


def test_decay_leaves_norms_and_biases_alone_when_stacked():
    mask = optimizer.decay_matrices(jax.eval_shape(tiny_task.Bigram, jax.random.key(0)))
    assert jax.tree.leaves(mask) == [False, True, True]  # layers.bias, layers.weight, table
    assert optimizer.decay_matrices({"w": jnp.ones((2, 3)), "b": jnp.ones(3)}) == {"w": True, "b": False}


def test_moments_of_another_type_are_refused():
    settings = tiny_task.get_config().optimizer.to_dict() | dict(moment_dtype="bf16")
    with pytest.raises(ValueError, match="optimizer.moment_dtype is 'bf16'; use float32 or bfloat16"):
        optimizer.make_optimizer(settings, 10)
