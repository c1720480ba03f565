"""Every implementation of `attend` against a float64 loop, and none of them leaks between segments."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxslm.nn import attention
from jaxslm.nn.attention import attend
from tests.models.llama import packed_rows

LENGTH, HEADS, KV_HEADS, HEAD_DIM = 128, 4, 2, 16
SEGMENTS = [[40, 1, 60], [100, 28]]


def impl_or_skip(impl):
    if impl == "cudnn" and jax.default_backend() != "gpu":
        pytest.skip("cudnn attention needs a GPU")
    return impl


every_implementation = pytest.mark.parametrize("impl", [i for i in attention.IMPLEMENTATIONS if i != "auto"])


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(attention, "QUERY_BLOCK", 32)


def inputs(seed=0):
    rng = np.random.default_rng(seed)
    q = rng.standard_normal((2, LENGTH, HEADS, HEAD_DIM), np.float32)
    k, v = (rng.standard_normal((2, LENGTH, KV_HEADS, HEAD_DIM), np.float32) for _ in "kv")
    batch = packed_rows(SEGMENTS, LENGTH)
    return q, k, v, batch["segment_ids_BxT"], batch["positions_BxT"]


def run(q, k, v, segment_ids, positions, impl):
    if impl == "cudnn":
        q, k, v = (x.astype(jnp.bfloat16) for x in (q, k, v))
    kwargs = dict(q_segment_ids=segment_ids, kv_segment_ids=segment_ids, q_positions=positions, kv_positions=positions)
    return attend(q, k, v, impl=impl, **kwargs)


def by_loop(q, k, v, q_segments, kv_segments, q_positions, kv_positions):
    """The definition, one query at a time, in float64."""
    out = np.zeros(q.shape)
    group = q.shape[2] // k.shape[2]
    for b, t, h in np.ndindex(*q.shape[:3]):
        seen = [
            s
            for s in range(k.shape[1])
            if 0 < q_segments[b, t] == kv_segments[b, s] and kv_positions[b, s] <= q_positions[b, t]
        ]
        if seen:
            keys, values = (x[b, seen, h // group].astype(np.float64) for x in (k, v))
            scores = keys @ q[b, t, h].astype(np.float64) / np.sqrt(q.shape[-1])
            weights = np.exp(scores - scores.max())
            out[b, t, h] = weights @ values / weights.sum()
    return out


@every_implementation
def test_against_float64_loop(impl):
    q, k, v, segment_ids, positions = inputs()
    ours = np.asarray(run(q, k, v, segment_ids, positions, impl_or_skip(impl)), np.float64)
    tolerance = 2e-2 if impl == "cudnn" else 2e-5
    np.testing.assert_allclose(ours, by_loop(q, k, v, *[segment_ids] * 2, *[positions] * 2), atol=tolerance)
    assert np.all(ours[segment_ids == 0] == 0)


@every_implementation
def test_no_leak_between_segments(impl):
    """The gradient of one segment's outputs with respect to every other segment's inputs is exactly zero."""
    q, k, v, segment_ids, positions = inputs()
    impl_or_skip(impl)

    @jax.jit
    def gradients(row, segment):
        inside = (jnp.arange(2)[:, None] == row) & (segment_ids == segment)

        def loss(q, k, v):
            return jnp.sum(jnp.where(inside[..., None, None], run(q, k, v, segment_ids, positions, impl), 0.0) ** 2)

        return jax.grad(loss, argnums=(0, 1, 2))(q, k, v)

    for row, segments in enumerate(SEGMENTS):
        for segment in range(1, len(segments) + 1):
            inside = (np.arange(2)[:, None] == row) & (segment_ids == segment)
            for gradient in gradients(row, segment):
                gradient = np.asarray(gradient, np.float32)
                assert np.all(gradient[~inside] == 0)
                assert np.isfinite(gradient).all()
            assert np.any(np.asarray(gradient, np.float32)[inside] != 0)


@pytest.mark.parametrize("impl", ["blocked", "splash"])
def test_gradients_equal_those_of_xla(impl):
    q, k, v, segment_ids, positions = inputs()
    target = np.random.default_rng(5).standard_normal(q.shape, np.float32)

    def gradients(impl):
        def loss(q, k, v):
            return jnp.sum(run(q, k, v, segment_ids, positions, impl) * target)

        return jax.jit(jax.grad(loss, argnums=(0, 1, 2)))(q, k, v)

    for ours, expected in zip(gradients(impl), gradients("xla"), strict=True):
        np.testing.assert_allclose(ours, expected, atol=5e-5)


def test_queries_against_a_cache():
    """Fewer queries than keys, empty columns (segment 0) among the keys, and a query that sees nothing."""
    q, k, v, _, _ = inputs()
    q, k, v = q[:, :3], k[:, :8], v[:, :8]
    mask = (
        np.array([[1, 1, 1], [1, 1, 2]]),
        np.array([[0, 0, 1, 1, 1, 1, 1, 0], [1, 1, 1, 1, 1, 0, 0, 0]]),
        np.array([[2, 3, 4], [3, 4, 0]]),
        np.array([[0, 0, 0, 1, 2, 3, 4, 0], [0, 1, 2, 3, 4, 0, 0, 0]]),
    )
    names = ("q_segment_ids", "kv_segment_ids", "q_positions", "kv_positions")
    ours = attend(q, k, v, **dict(zip(names, mask, strict=True)))
    np.testing.assert_allclose(ours, by_loop(q, k, v, *mask), atol=2e-5)
    assert np.all(np.asarray(ours)[1, 2] == 0)


def test_impossible_requests_name_the_cure():
    q, k, v, segment_ids, positions = inputs()
    with pytest.raises(ValueError, match="Use attention='auto'"):
        run(q[:, :100], k[:, :100], v[:, :100], segment_ids[:, :100], positions[:, :100], "splash")
    with pytest.raises(ValueError, match="not one of auto, xla"):
        run(q, k, v, segment_ids, positions, "flash")
