"""Packed attention by cuDNN: segments, results with cuDNN emulated and on a GPU, and the program that is given to XLA.

A machine with a GPU needs jax, flax, optax, numpy and pytest for these and those of tests/nn/test_attention.py:
`python -m pytest -o addopts= --import-mode=importlib -v -rs -k cudnn tests/nn`
"""

import json
import re
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxslm.nn import attention, cudnn_attention
from jaxslm.nn.attention import attend
from jaxslm.nn.cudnn_attention import SLOTS, find_segments, packed_attention, take
from jaxslm.nn.remat import rematerialized
from tests.models.llama import packed_rows
from tests.nn import cudnn_emulation

LENGTH, HEADS, KV_HEADS = 128, 4, 2
ROWS = {
    "usual": [[40, 1, 60], [100, 28]],
    "rows of padding": [[], [5, 6], []],
    "nothing": [[], []],
    "one segment": [[128], [128]],
    "one token each": [[1] * 128, [1] * 3],
    "more than one call takes": [[7] * 18, [128], [1] * (2 * SLOTS + 1)],
    "exactly one call": [[16] * SLOTS],
}
every_batch = pytest.mark.parametrize("rows", list(ROWS.values()), ids=list(ROWS))


def inputs(rows, head_dim=64, dtype=np.float32, seed=0):
    rng = np.random.default_rng(seed)
    heads = HEADS, KV_HEADS, KV_HEADS
    q, k, v = (rng.standard_normal((len(rows), LENGTH, n, head_dim), np.float32) for n in heads)
    batch = packed_rows(rows, LENGTH)
    return *(x.astype(jnp.bfloat16).astype(dtype) for x in (q, k, v)), batch["segment_ids_BxT"], batch["positions_BxT"]


def reference(q, k, v, segment_ids, positions):
    ids = dict(q_segment_ids=segment_ids, kv_segment_ids=segment_ids, q_positions=positions, kv_positions=positions)
    return attend(q, k, v, impl="xla", **ids)


@pytest.fixture
def emulated(monkeypatch):
    monkeypatch.setattr(cudnn_attention, "_cudnn_forward", cudnn_emulation.forward)
    monkeypatch.setattr(cudnn_attention, "_cudnn_backward", cudnn_emulation.backward)


@every_batch
def test_segments_equal_those_of_a_loop(rows):
    segment_ids = packed_rows(rows, LENGTH)["segment_ids_BxT"]
    expected = [
        (row * LENGTH + sum(r[:i]), n) for row, r in enumerate(rows) for i, n in enumerate(r)
    ]  # (begin, length)
    segments = jax.jit(find_segments)(segment_ids)
    assert segments.count == len(expected)
    number, place = np.full(segment_ids.size, -1), np.zeros(segment_ids.size, int)
    for i, (begin, n) in enumerate(expected):
        number[begin : begin + n], place[begin : begin + n] = i, range(n)
    np.testing.assert_array_equal(segments.number_N, number)
    np.testing.assert_array_equal(np.asarray(segments.place_N)[number >= 0], place[number >= 0])

    n_slots = len(rows) * SLOTS
    for first in range(0, len(expected) + 1, n_slots):
        taken = jax.jit(take, static_argnums=2)(segments, first, n_slots)
        here = expected[first : first + n_slots]
        here += [(segment_ids.size, 0)] * (n_slots - len(here))
        np.testing.assert_array_equal(np.stack([taken.begin_A, taken.length_A], 1), here)
        np.testing.assert_array_equal(taken.mine_N, (number >= first) & (number < first + n_slots))


def test_padding_may_lie_anywhere():
    segments = find_segments(jnp.array([[0, 0, 1, 1, 0, 2], [2, 2, 0, 3, 3, 3]]))
    assert segments.number_N.tolist() == [-1, -1, 0, 0, -1, 1, 2, 2, -1, 3, 3, 3]  # a row never goes on in the next
    assert take(segments, 0, 8).begin_A.tolist() == [2, 5, 6, 9, 12, 12, 12, 12]


def context_and_gradients(function, q, k, v, *last):
    target = np.random.default_rng(5).standard_normal(q.shape, np.float32)

    def loss(q, k, v):
        context = function(q, k, v, *last)
        return jnp.sum(context.astype(jnp.float32) * target), context

    with jax.default_matmul_precision("highest"):
        gradients, context = jax.jit(jax.grad(loss, argnums=(0, 1, 2), has_aux=True))(q, k, v)
    return [np.asarray(x, np.float32) for x in (context, *gradients)]


@every_batch
def test_results_and_gradients_by_an_emulated_cudnn(rows, emulated):
    """It leaves NaN where it writes nothing: padding and the segments of other calls must come out clean."""
    q, k, v, segment_ids, positions = inputs(rows)
    ours = context_and_gradients(packed_attention, q, k, v, segment_ids)
    for x, expected in zip(ours, context_and_gradients(reference, q, k, v, segment_ids, positions), strict=True):
        np.testing.assert_allclose(x, expected, atol=5e-5)
        assert np.all(x[segment_ids == 0] == 0)


@pytest.mark.skipif(not cudnn_attention.has_packed_layout(), reason="needs a GPU, Hopper or newer")
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("head_dim", cudnn_attention.HEAD_DIMS)
@every_batch
def test_results_and_gradients_on_a_gpu(rows, head_dim, dtype):
    q, k, v, segment_ids, positions = inputs(rows, head_dim, dtype)
    ours = context_and_gradients(packed_attention, q, k, v, segment_ids)
    q, k, v = (x.astype(np.float32) for x in (q, k, v))
    expected = context_and_gradients(reference, q, k, v, segment_ids, positions)
    for x, y in zip(ours, expected, strict=True):
        np.testing.assert_allclose(x, y, atol=5e-2, rtol=2e-2)
        assert np.all(x[segment_ids == 0] == 0)


def test_attend_takes_packed_rows_to_it(emulated, monkeypatch):
    monkeypatch.setattr(attention, "_packed_layout", lambda: True)
    q, k, v, segment_ids, positions = inputs(ROWS["usual"], dtype=jnp.bfloat16)
    ids = dict(q_segment_ids=segment_ids, kv_segment_ids=segment_ids, q_positions=positions, kv_positions=positions)
    ours = np.asarray(attend(q, k, v, impl="cudnn", **ids), np.float32)
    expected = reference(*(x.astype(np.float32) for x in (q, k, v)), segment_ids, positions)
    np.testing.assert_allclose(ours, expected, atol=2e-2)
    assert np.any(ours != 0)


def test_choice(monkeypatch):
    def chosen(dtype=jnp.bfloat16, length=4096, n_keys=4096, head_dim=128, platform="gpu", shards=1, whole=True):
        q_BxTxHxC = jax.ShapeDtypeStruct((2, length, 32, head_dim), dtype)
        k_BxSxKxC = jax.ShapeDtypeStruct((2, n_keys, 8, head_dim), dtype)
        here = SimpleNamespace(platform=platform, n_shards=lambda axis: shards, divides=lambda axes, shape: whole)
        return attention._choose(q_BxTxHxC, k_BxSxKxC, 128, here)

    monkeypatch.setattr(attention, "_packed_layout", lambda: True)
    assert chosen() == chosen(dtype=jnp.float16) == chosen(head_dim=64) == "cudnn"
    assert chosen(dtype=jnp.float32) == chosen(head_dim=96) == chosen(platform="cpu") == "blocked"
    assert chosen(shards=2) == "blocked"  # rows are not whole
    assert chosen(whole=False) == chosen(whole=False, platform="tpu") == "blocked"
    assert chosen(length=1) == chosen(length=100, n_keys=100) == "xla"
    assert chosen(platform="tpu") == "splash"
    monkeypatch.setattr(attention, "_packed_layout", lambda: False)  # before Hopper
    assert chosen() == "blocked"


def test_devices_with_the_packed_layout(monkeypatch):
    for capability, has in {"8.0": False, "9.0": True, "10.3": True, "12.0": True, "gfx942": False}.items():
        device = type("Device", (), dict(compute_capability=capability))
        monkeypatch.setattr(jax, "local_devices", lambda device=device: [device])
        assert cudnn_attention.has_packed_layout() == has
    monkeypatch.setattr(jax, "local_devices", lambda: [object()])
    assert not cudnn_attention.has_packed_layout()


@pytest.mark.parametrize("dtype, head_dim", [(jnp.float32, 64), (jnp.bfloat16, 80)])
def test_what_cudnn_cannot_names_the_cure(dtype, head_dim):
    q, k, v, segment_ids, positions = inputs(ROWS["usual"], head_dim, dtype)
    ids = dict(q_segment_ids=segment_ids, kv_segment_ids=segment_ids, q_positions=positions, kv_positions=positions)
    with pytest.raises(ValueError, match="bfloat16 or float16 and a head dimension of 64 or 128, got .*'auto'"):
        attend(q, k, v, impl="cudnn", **ids)


@pytest.mark.skipif(jax.default_backend() == "gpu", reason="it can")
def test_without_a_gpu_the_cure_is_named():
    q_BxTxHxC = jax.ShapeDtypeStruct((2, 128, 4, 64), jnp.bfloat16)
    with pytest.raises(ValueError, match="needs an NVIDIA GPU, not a cpu. Use attention='auto'"):
        attention._check_cudnn(q_BxTxHxC, attention.no_constraint)


def test_too_many_elements_name_the_cure(monkeypatch):
    monkeypatch.setattr(attention, "_packed_layout", lambda: True)
    q = jax.ShapeDtypeStruct((64, 8192, 32, 128), jnp.bfloat16)
    with pytest.raises(ValueError, match="fewer rows a device"):
        attention._check_cudnn(q, attention.no_constraint)


def lowered(function, *arguments) -> str:
    return jax.jit(function).trace(*arguments).lower(lowering_platforms=("cuda",)).as_text()


def abstract(length=1024, head_dim=128, dtype=jnp.bfloat16):
    heads = [jax.ShapeDtypeStruct((3, length, n, head_dim), dtype) for n in (8, 2, 2)]
    return *heads, jax.ShapeDtypeStruct((3, length), jnp.int32)


def summed(*arguments):
    return packed_attention(*arguments).astype(jnp.float32).sum()


def calls(text: str) -> list[str]:
    return re.findall(r"stablehlo\.custom_call @(__cudnn\$\w+)\(", text)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_program_for_cuda_has_no_mask(dtype):
    text = lowered(jax.grad(summed, argnums=(0, 1, 2)), *abstract(dtype=dtype))
    assert calls(text) == ["__cudnn$fmhaSoftmax", "__cudnn$fmhaSoftmaxBackward"]
    assert text.count("PADDING_CAUSAL") == 2
    assert not re.search(r"tensor<(\d+x)*1024x(\d+x)*1024x", text), "a tensor of T x T"


@pytest.mark.parametrize("remat, expected", [("context", 1), ("full", 2)])
def test_rematerialization_keeps_what_is_named(remat, expected):
    """With the context kept, the backward pass does not run the forward kernel again."""
    q, k, v, segment_ids = abstract()

    def loss(x, k, v, segment_ids):
        def layer(x, _):
            return x + packed_attention(jnp.sin(x), k, v, segment_ids), None

        return jax.lax.scan(rematerialized(layer, remat), x, length=3)[0].astype(jnp.float32).sum()

    assert calls(lowered(jax.grad(loss), q, k, v, segment_ids)).count("__cudnn$fmhaSoftmax") == expected


def custom_calls(text: str) -> list[tuple]:
    """(line without names and backend_config, backend_config) of each call of cuDNN."""
    found = []
    for line in text.splitlines():
        if "@__cudnn$" in line:
            config = json.loads(re.search(r'backend_config = "(.*?)"[,}]', line)[1].replace("\\22", '"'))
            found.append((re.sub(r'%\w+(:\d+)?|#\d+|backend_config = ".*?"(?=[,}])', "", line).strip(), config))
    return found


def test_custom_calls_equal_those_of_jax(monkeypatch):
    """Without shared heads jax's private function is right: the same calls, attribute by attribute."""
    stablehlo = pytest.importorskip("jax._src.cudnn.fused_attention_stablehlo")
    monkeypatch.setattr(stablehlo, "check_cudnn_version", lambda: 91000)
    monkeypatch.setattr(stablehlo, "check_compute_capability", lambda capability: True)
    monkeypatch.setattr(stablehlo, "is_cuda_compute_capability_equal", lambda capability: False)
    q, _, _, segment_ids = abstract()
    lengths, offsets = (jax.ShapeDtypeStruct((3, n), jnp.int32) for n in (SLOTS, SLOTS + 1))

    def of_jax(q, k, v, lengths, offsets):
        kwargs = dict(scale=128**-0.5, mask_type=stablehlo.MaskType.PADDING_CAUSAL)
        context = stablehlo.dot_product_attention(q, k, v, None, None, lengths, lengths, offsets, offsets, **kwargs)
        return context.astype(jnp.float32).sum()

    ours = custom_calls(lowered(jax.grad(summed, argnums=(0, 1, 2)), q, q, q, segment_ids))
    theirs = custom_calls(lowered(jax.grad(of_jax, argnums=(0, 1, 2)), q, q, q, lengths, offsets))
    assert len(ours) == 2
    assert ours == theirs
