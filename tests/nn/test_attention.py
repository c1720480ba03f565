"""Every implementation of `attend` against a float64 loop, and none of them leaks between segments."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxslm.nn import attention, cudnn_attention
from jaxslm.nn.attention import attend
from tests.models.llama import packed_rows

LENGTH, HEADS, KV_HEADS, HEAD_DIM = 128, 4, 2, 16
SEGMENTS = [[40, 1, 60], [100, 28]]
IMPLEMENTATIONS = ["xla", "blocked", "splash", "cudnn-64", "cudnn-128", "cudnn-masked"]  # cudnn by head dimension
every_implementation = pytest.mark.parametrize("impl", IMPLEMENTATIONS)


@pytest.fixture(autouse=True)
def on_this_machine(request, monkeypatch):
    monkeypatch.setattr(attention, "QUERY_BLOCK", 32)
    impl = request.node.callspec.params.get("impl", "") if hasattr(request.node, "callspec") else ""
    if impl.startswith("cudnn"):
        if jax.default_backend() != "gpu":
            pytest.skip("cudnn attention needs a GPU")
        if impl == "cudnn-masked":  # as queries of a cache, or on a GPU before Hopper
            monkeypatch.setattr(attention, "_packed_layout", lambda: False)
        elif not cudnn_attention.has_packed_layout():
            pytest.skip("packed rows by cudnn need a GPU of compute capability 9.0")


def inputs(impl, seed=0):
    rng = np.random.default_rng(seed)
    head_dim = {"cudnn-64": 64, "cudnn-128": 128, "cudnn-masked": 64}.get(impl, HEAD_DIM)
    shapes = [(2, LENGTH, n, head_dim) for n in (HEADS, KV_HEADS, KV_HEADS)]
    q, k, v = (np.asarray(rng.standard_normal(s).astype(jnp.bfloat16), np.float32) for s in shapes)
    batch = packed_rows(SEGMENTS, LENGTH)
    return q, k, v, batch["segment_ids_BxT"], batch["positions_BxT"]


def run(q, k, v, segment_ids, positions, impl):
    if impl.startswith("cudnn"):
        q, k, v = (x.astype(jnp.bfloat16) for x in (q, k, v))
    kwargs = dict(q_segment_ids=segment_ids, kv_segment_ids=segment_ids, q_positions=positions, kv_positions=positions)
    return attend(q, k, v, impl=impl.partition("-")[0], **kwargs)


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
    q, k, v, segment_ids, positions = inputs(impl)
    with jax.default_matmul_precision("highest"):
        ours = np.asarray(run(q, k, v, segment_ids, positions, impl), np.float64)
    tolerance = 2e-2 if impl.startswith("cudnn") else 2e-5
    np.testing.assert_allclose(ours, by_loop(q, k, v, *[segment_ids] * 2, *[positions] * 2), atol=tolerance)
    assert np.all(ours[segment_ids == 0] == 0)


@every_implementation
def test_no_leak_between_segments(impl):
    """The gradient of one segment's outputs with respect to every other segment's inputs is exactly zero."""
    q, k, v, segment_ids, positions = inputs(impl)

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


@pytest.mark.parametrize("impl", [impl for impl in IMPLEMENTATIONS if impl != "xla"])
def test_gradients_equal_those_of_xla(impl):
    q, k, v, segment_ids, positions = inputs(impl)
    target = np.random.default_rng(5).standard_normal(q.shape, np.float32)

    def gradients(impl):
        def loss(q, k, v):
            return jnp.sum(run(q, k, v, segment_ids, positions, impl) * target)

        with jax.default_matmul_precision("highest"):
            return jax.jit(jax.grad(loss, argnums=(0, 1, 2)))(q, k, v)

    tolerance = dict(atol=5e-2, rtol=2e-2) if impl.startswith("cudnn") else dict(atol=5e-5)
    for ours, expected in zip(gradients(impl), gradients("xla"), strict=True):
        np.testing.assert_allclose(np.asarray(ours, np.float32), expected, **tolerance)
        assert np.all(np.asarray(ours, np.float32)[segment_ids == 0] == 0)


@pytest.mark.parametrize("impl", ["auto", "cudnn-64", "cudnn-128"])
def test_queries_against_a_cache(impl):
    """Fewer queries than keys, empty columns (segment 0) among the keys, and a query that sees nothing."""
    q, k, v, _, _ = inputs(impl)
    q, k, v = q[:, :3], k[:, :8], v[:, :8]
    mask = (
        np.array([[1, 1, 1], [1, 1, 2]]),
        np.array([[0, 0, 1, 1, 1, 1, 1, 0], [1, 1, 1, 1, 1, 0, 0, 0]]),
        np.array([[2, 3, 4], [3, 4, 0]]),
        np.array([[0, 0, 0, 1, 2, 3, 4, 0], [0, 1, 2, 3, 4, 0, 0, 0]]),
    )
    names = ("q_segment_ids", "kv_segment_ids", "q_positions", "kv_positions")
    dtype = jnp.bfloat16 if impl.startswith("cudnn") else np.float32
    with jax.default_matmul_precision("highest"):
        context = attend(
            *(x.astype(dtype) for x in (q, k, v)),
            impl=impl.partition("-")[0],
            **dict(zip(names, mask, strict=True)),
        )
    ours = np.asarray(context, np.float32)
    np.testing.assert_allclose(ours, by_loop(q, k, v, *mask), atol=2e-2 if impl.startswith("cudnn") else 2e-5)
    assert np.all(ours[1, 2] == 0)


def test_impossible_requests_name_the_cure():
    q, k, v, segment_ids, positions = inputs("xla")
    with pytest.raises(ValueError, match="Use attention='auto'"):
        run(q[:, :100], k[:, :100], v[:, :100], segment_ids[:, :100], positions[:, :100], "splash")
    with pytest.raises(ValueError, match="not one of auto, xla"):
        run(q, k, v, segment_ids, positions, "flash")
