"""Products in 8 bits against numpy; what of a training step is made of them, here and on a described TPU."""

import functools
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from jaxslm.models.decoder import Decoder
from jaxslm.nn.quantized import FORMATS, product_of
from jaxslm.sharding import make_partitioner
from jaxslm.tasks.lm_program import make_loss
from jaxslm.training.optimizer import make_optimizer
from jaxslm.training.state import make_init
from jaxslm.training.step import make_train_step
from tests.models.llama import packed_rows, tiny_config, tiny_decoder

HERE = importlib.util.find_spec("qwix") is not None
needs_qwix = pytest.mark.skipif(not HERE, reason="qwix (the quantize extra) is not installed")
PROJECTIONS = 7  # of a layer
NUMPY = {"int8": (np.int8, np.int8), "fp8": (ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2)}


def emulated(x: np.ndarray, dtype, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """(8-bit values as float64, float32 scales) of `x`, whose `axis` is summed over by the product."""
    top = np.float32(127 if dtype == np.int8 else float(ml_dtypes.finfo(dtype).max))
    scale = np.abs(x).max(axis, keepdims=True) / top
    scale = np.where(scale == 0, np.float32(1), scale)
    values = np.rint(x / scale) if dtype == np.int8 else (x / scale).astype(dtype)
    return values.astype(np.float64), scale


@needs_qwix
@pytest.mark.parametrize("kind", NUMPY)
def test_product_and_gradients_are_those_of_an_emulation(kind):
    rng = np.random.default_rng(0)
    shapes = ((48, 24), (24, 40), (48, 40))
    x, weight, d_y = (rng.standard_normal(s, np.float32) * np.exp(rng.standard_normal(s, np.float32)) for s in shapes)
    x[3] = d_y[3] = 0  # padding
    forward, gradient = NUMPY[kind]
    (xv, xs), (wv, ws) = emulated(x, forward, 1), emulated(weight, forward, 0)
    (gx, gxs), (gw, gws) = emulated(d_y * ws, gradient, 1), emulated(d_y * xs, gradient, 0)
    expected = (xv @ wv) * xs * ws, (gx @ wv.T) * gxs, (xv.T @ gw) * gws
    y, gradients = jax.vjp(product_of(kind), jnp.asarray(x), jnp.asarray(weight))
    exact = x @ weight, d_y @ weight.T, x.T @ d_y
    for ours, theirs, float_ in zip((y, *gradients(jnp.asarray(d_y))), expected, exact, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-6 * np.abs(theirs).max())
        distance = np.linalg.norm(theirs - float_) / np.linalg.norm(float_)
        assert distance < {"int8": 0.02, "fp8": 0.08}[kind]


@needs_qwix
def test_int8_is_what_qwix_trains_with():
    qt = pytest.importorskip("qwix._src.core.dot_general_qt")
    operands = [f"{side}{grad}" for side, grad in (("lhs", ""), ("rhs", ""), ("dlhs", "_grad"), ("drhs", "_grad"))]
    types = {f"{name}_qtype": jnp.int8 for name in operands}
    methods = {f"{name}_calibration_method": FORMATS["int8"].calibration for name in operands}
    theirs = functools.partial(
        qt.dot_general_qt,
        dimension_numbers=(((1,), (0,)), ((), ())),
        config=qt.DotGeneralQtConfig(**types, **methods, disable_gradient_clipping=True),
    )
    x, weight, d_y = (jax.random.normal(jax.random.key(i), s) for i, s in enumerate([(32, 16), (16, 8), (32, 8)]))
    for product in (ours := product_of("int8"), theirs):
        y, gradients = jax.vjp(product, x, weight)
        results = (y, *gradients(d_y))
        if product is ours:
            expected = results
    for a, b in zip(results, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)


@needs_qwix
@pytest.mark.parametrize("kind", NUMPY)
def test_dtypes_are_those_of_the_plain_product(kind):
    x, weight = jnp.ones((4, 8), jnp.bfloat16), jnp.ones((8, 2))
    y, gradients = jax.vjp(product_of(kind), x, weight)
    assert [z.dtype for z in (y, *gradients(y))] == [jnp.bfloat16, jnp.bfloat16, jnp.float32]


def test_unknown_and_missing_are_named(monkeypatch):
    with pytest.raises(ValueError, match="model.quantization='int4' is not one of , int8, fp8"):
        tiny_config(quantization="int4")
    monkeypatch.setitem(sys.modules, "qwix", None)
    with pytest.raises(ValueError, match=r"model.quantization='int8' needs qwix .*pip install 'jaxslm\[quantize\]'"):
        product_of("int8")
    product_of("")


def training(quantization: str, dtype: str = "float32", devices=None, **changes):
    """(init, step, batch) of a tiny decoder that learns packed rows by heart."""
    partitioner = make_partitioner(dict(data=1, fsdp=-1), devices or jax.devices()[:1])
    config = tiny_config(quantization=quantization, dtype=dtype, **changes)
    adam = dict(peak_lr=3e-3, final_lr=0.0, schedule="constant", warmup_steps=5, b1=0.9, b2=0.95, eps=1e-8)
    optimizer, schedule = make_optimizer(adam | dict(weight_decay=0.0, clip_norm=1.0, moment_dtype="float32"), 60)
    init, abstract = make_init(functools.partial(Decoder, config), optimizer, partitioner)
    settings = dict(loss_chunks=1, optimizer=dict(z_loss=0.0))
    loss = make_loss(settings, config.vocab_size, 1, partitioner, training=True)
    step = make_train_step(
        loss,
        optimizer,
        schedule,
        objectives=["all"],
        state_shardings=jax.tree.map(lambda leaf: leaf.sharding, abstract),
    )
    batch = {name.removesuffix("_BxT"): x for name, x in packed_rows([[40, 24], [64], [30, 30], [64]], 64).items()}
    batch["targets"] = np.roll(batch["tokens"], -1, 1)
    batch |= dict(loss_weights=(batch["segment_ids"] > 0).astype(np.float32), objective=np.zeros_like(batch["tokens"]))
    return init, step, batch, abstract


def loss_of_steps(n: int, *args, **changes) -> list[float]:
    init, step, batch, _ = training(*args, **changes)
    state, losses = init(jax.random.key(0)), []
    for _ in range(n):
        state, metrics = step(state, batch)
        losses.append(float(metrics["loss"]))
    return losses


@needs_qwix
def test_training_follows_the_curve_of_floats():
    curves = {kind: np.array(loss_of_steps(60, kind)) for kind in ("", "int8", "fp8")}
    learnt = curves[""][0] - curves[""][-1]
    assert learnt > 1.5
    for kind, most in (("int8", 0.03), ("fp8", 0.06)):
        gap = np.abs(curves[kind] - curves[""]).max()
        assert 0 < gap < most * learnt, (kind, gap, learnt)


@needs_qwix
def test_only_the_projections_of_a_training_step_are_quantized():
    """One scanned layer, forward and backward, in the program as written; nothing where quantization is ''."""

    def products(kind: str) -> int:
        _, step, batch, abstract = training(kind, "bfloat16")
        text = step.lower(abstract, batch).as_text()
        return len(re.findall(r"dot_general .*tensor<[\dx]*xi8>, tensor<[\dx]*xi8>\) -> tensor<[\dx]*xi32>", text))

    assert products("int8") == 3 * PROJECTIONS
    assert products("") == 0


def test_without_quantization_or_training_the_program_is_that_of_floats():
    rows = packed_rows([[16]], 16)
    cases = [("", False), ("", True), ("int8", False)]  # the last is evaluation, and needs no qwix
    plain, *same = (
        jax.jit(lambda model, training=training: model(**rows, training=training))
        .lower(tiny_decoder(quantization=kind))
        .as_text()
        for kind, training in cases
    )
    assert same == [plain, plain]


TPU = """
import sys, jax
from jaxslm.planning.chips import described_devices
from tests.nn.test_quantized import training
init, step, batch, abstract = training(sys.argv[1], "bfloat16", described_devices("v5e:2x2"), **eval(sys.argv[2]))
batch = {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in batch.items()}
print(step.lower(abstract, batch).compile().as_text())
"""


@needs_qwix
@pytest.mark.skipif(not importlib.util.find_spec("libtpu"), reason="libtpu (the tpu extra) is not installed")
def test_a_tpu_multiplies_int8_forward_and_backward():
    shape = dict(d_model=256, n_heads=2, n_kv_heads=2, d_ff=512, attention="xla")
    command = [sys.executable, "-c", TPU, "int8", repr(shape)]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    types = dict(re.findall(r"%?([\w.\-]+) = (\w+)\[", done.stdout))
    products = re.findall(r"= (\w+)\[[\d,]*\]\S* convolution\(%?([\w.\-]+), %?([\w.\-]+)\)", done.stdout)
    quantized = [p for p in products if p[0] == "s32" and {types[p[1]], types[p[2]]} == {"s8"}]
    assert len(quantized) == 3 * PROJECTIONS
