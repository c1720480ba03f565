import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxslm.codec.conv import Conv, ConvTranspose, fold_weight_norm
from tests.codec.chunks import in_chunks
from tests.codec.dilations import dilates_inputs

KEY = jax.random.key(0)
# kernel, stride: kernels of one, two and three strides, an odd stride, and kernels that are no multiple of theirs
UPSAMPLERS = [(4, 4), (10, 5), (9, 3), (5, 2), (7, 1)]
TRIMS = [(True, 1.0), (False, 1.0), (True, 0.0), (True, 0.4), (False, 1.0)]


def noise(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def dilated(kernel_KxOxI, x_BxTxI, stride, groups=1):
    """The whole transposed convolution, by XLA's convolution of an input with zeros between its frames."""
    taps, d_out = kernel_KxOxI.shape[:2]
    kernel = kernel_KxOxI[::-1].reshape(taps, d_out, groups, -1)  # [K, O / G, G, I / G]
    return jax.lax.conv_general_dilated(
        x_BxTxI,
        kernel.transpose(0, 3, 2, 1).reshape(taps, -1, d_out * groups),
        (1,),
        [(taps - 1, taps - 1)],
        lhs_dilation=(stride,),
        dimension_numbers=("NWC", "WIO", "NWC"),
        feature_group_count=groups,
    )


@pytest.mark.parametrize("size, trim", list(zip(UPSAMPLERS, TRIMS, strict=True)))
def test_transposed_convolution_and_its_gradients_are_those_of_lax(size, trim):
    (kernel, stride), (causal, ratio) = size, trim
    conv = ConvTranspose(6, 5, kernel, stride, KEY, causal=causal, trim_right_ratio=ratio, bias=False)
    x, weight, wanted = noise(2, 9, 6), conv.weight[...], noise(2, 9 * stride, 5, seed=1)
    surplus = kernel - stride
    left = surplus - (int(np.ceil(surplus * ratio)) if causal else surplus // 2)

    def ours(x, conv):
        return jnp.sum(conv(x) * wanted)

    def reference(x, weight):
        return jnp.sum(dilated(weight, x, stride)[:, left : left + 9 * stride] * wanted)

    got = jax.tree.leaves(jax.value_and_grad(ours, argnums=(0, 1))(x, conv))
    expected = jax.tree.leaves(jax.value_and_grad(reference, argnums=(0, 1))(x, weight))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), got, expected)


@pytest.mark.parametrize("groups", [2, 6])
def test_grouped_transposed_convolution_is_that_of_lax(groups):
    conv = ConvTranspose(6, 6, 4, 2, KEY, causal=True, groups=groups, bias=False)
    x = noise(2, 9, 6)
    np.testing.assert_allclose(conv(x), dilated(conv.weight[...], x, 2, groups)[:, :18], atol=1e-5)


@pytest.mark.parametrize("kernel, stride", [(4, 2), (10, 5), (5, 2), (3, 3), (7, 1)])
def test_strided_convolution_and_its_gradients_are_those_of_lax(kernel, stride):
    conv = Conv(6, 5, kernel, KEY, stride=stride, causal=True, bias=False)
    x, weight, wanted = noise(2, 4 * stride, 6), conv.weight[...], noise(2, 4, 5, seed=1)

    def ours(x, conv):
        return jnp.sum(conv(x) * wanted)

    def reference(x, weight):
        y = jax.lax.conv_general_dilated(
            x, weight, (stride,), [(kernel - stride, 0)], dimension_numbers=("NWC", "WIO", "NWC")
        )
        return jnp.sum(y * wanted)

    got = jax.tree.leaves(jax.value_and_grad(ours, argnums=(0, 1))(x, conv))
    expected = jax.tree.leaves(jax.value_and_grad(reference, argnums=(0, 1))(x, weight))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), got, expected)


def test_depthwise_convolution_and_its_gradients_are_those_of_lax():
    conv = Conv(6, 6, 7, KEY, groups=6, dilation=2, causal=False, bias=False)
    x, weight, wanted = noise(2, 30, 6), conv.weight[...], noise(2, 30, 6, seed=1)

    def reference(x, weight):
        y = jax.lax.conv_general_dilated(
            x,
            weight,
            (1,),
            [(6, 6)],
            rhs_dilation=(2,),
            dimension_numbers=("NWC", "WIO", "NWC"),
            feature_group_count=6,
        )
        return jnp.sum(y * wanted)

    got = jax.tree.leaves(jax.value_and_grad(lambda x, conv: jnp.sum(conv(x) * wanted), (0, 1))(x, conv))
    expected = jax.tree.leaves(jax.value_and_grad(reference, (0, 1))(x, weight))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), got, expected)


def test_no_convolution_dilates_its_input_in_forward_and_backward_pass():
    def loss(layers, x):
        for layer in layers:
            x = layer(x)
        return jnp.sum(x * x)

    layers = [
        Conv(4, 8, 7, KEY, causal=True, dilation=3, pad="reflect"),
        Conv(8, 16, 10, KEY, stride=5, causal=True, norm="weight"),
        Conv(16, 16, 7, KEY, groups=16, causal=False),
        ConvTranspose(16, 8, 10, 5, KEY, causal=False),
        ConvTranspose(8, 8, 4, 2, KEY, causal=True, groups=8, norm="weight"),
    ]
    lowered = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(layers, noise(2, 40, 4))
    assert "convolution" in lowered.as_text()
    assert not dilates_inputs(lowered.compile().as_text()) and not dilates_inputs(lowered.as_text())

    def dilating(x):
        return jnp.sum(dilated(noise(10, 4, 4), x, 5) ** 2)

    lowered = jax.jit(dilating).lower(noise(2, 40, 4))
    assert dilates_inputs(lowered.compile().as_text()) and dilates_inputs(lowered.as_text())  # what is looked for


CONVS = {
    "reflect": dict(kernel=7, pad="reflect"),
    "reflect, strided": dict(kernel=10, stride=5, pad="reflect"),
    "edge, strided": dict(kernel=4, stride=2, pad="edge"),
    "zero, strided": dict(kernel=6, stride=3, pad="zero"),
    "zero, dilated": dict(kernel=3, dilation=4, pad="zero"),
}


@pytest.mark.parametrize("kind", CONVS)
@pytest.mark.parametrize("causal", [True, False])
def test_each_row_of_a_batch_is_the_row_alone(kind, causal):
    conv = Conv(3, 4, key=KEY, causal=causal, **CONVS[kind])
    lengths = np.array([23, 1, 6, 7, 21])
    x = noise(len(lengths), 23, 3)
    y = conv(x, jnp.asarray(lengths))
    assert y.shape == (5, conv.length(23), 4)
    for i, n in enumerate(lengths):
        alone = conv(x[i : i + 1, :n])[0]
        assert len(alone) == -(-n // conv.stride)
        np.testing.assert_allclose(y[i, : len(alone)], alone, atol=1e-5)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("kernel, stride", UPSAMPLERS)
def test_each_row_of_an_upsampled_batch_is_the_row_alone(kernel, stride, causal):
    conv = ConvTranspose(3, 4, kernel, stride, KEY, causal=causal)
    lengths = np.array([9, 1, 4])
    x = noise(3, 9, 3)
    y = conv(x, jnp.asarray(lengths))
    for i, n in enumerate(lengths):
        alone = conv(x[i : i + 1, :n])[0]
        assert len(alone) == n * stride
        np.testing.assert_allclose(y[i, : n * stride], alone, atol=1e-5)


@pytest.mark.parametrize("kind", CONVS)
def test_a_convolution_in_chunks_is_the_convolution_of_the_whole(kind):
    conv = Conv(3, 4, key=KEY, causal=True, **CONVS[kind])
    x = noise(2, 60, 3)
    np.testing.assert_allclose(in_chunks(conv, x, [30, 0, 30]), conv(x), atol=1e-5)
    sizes = [7 * conv.stride] + [conv.stride] * (60 // conv.stride - 7)
    np.testing.assert_allclose(in_chunks(conv, x, sizes), conv(x), atol=1e-5)


@pytest.mark.parametrize("kernel, stride", UPSAMPLERS)
def test_a_transposed_convolution_in_chunks_is_that_of_the_whole(kernel, stride):
    conv = ConvTranspose(3, 4, kernel, stride, KEY, causal=True)
    x = noise(2, 9, 3)
    np.testing.assert_allclose(in_chunks(conv, x, [1, 1, 4, 3]), conv(x), atol=1e-5)


def test_a_strided_convolution_of_one_channel_strides():
    conv, x = Conv(1, 1, 4, KEY, stride=2, causal=True), noise(2, 9, 1)
    beside = Conv(1, 2, 4, KEY, stride=2, causal=True)
    beside.weight[...] = jnp.concatenate([conv.weight[...]] * 2, axis=-1)
    assert conv(x).shape == (2, 5, 1)
    np.testing.assert_allclose(conv(x), beside(x)[..., :1], atol=1e-6)


def test_chunks_that_cannot_be_exact_are_refused():
    with pytest.raises(ValueError, match="no multiple of the stride 5"):
        conv = Conv(3, 4, 10, KEY, stride=5, causal=True)
        conv.stream(noise(1, 7, 3), conv.start(1))
    with pytest.raises(ValueError, match="6 frames where 7 are reflected"):
        conv = Conv(3, 4, 7, KEY, causal=True, pad="reflect")
        conv.stream(noise(1, 6, 3), conv.start(1))
    with pytest.raises(ValueError, match="not causal"):
        Conv(3, 4, 7, KEY, causal=False).start(1)
    with pytest.raises(ValueError, match="only if causal"):
        ConvTranspose(3, 4, 4, 2, KEY, causal=False).start(1)


@pytest.mark.parametrize("kind", [Conv, ConvTranspose])
def test_folded_weight_norm_is_the_same_function_and_has_the_same_gradient_as_the_formula(kind):
    stride = (2,) if kind is ConvTranspose else ()
    conv = kind(3, 4, 4, *stride, KEY, causal=True, norm="weight")
    conv.size[...] = conv.size[...] * 1.7
    x = noise(2, 8, 3)
    (folded,) = fold_weight_norm([conv])
    assert folded.direction is None and folded.size is None and conv.weight is None
    assert len(jax.tree.leaves(folded)) == 2
    np.testing.assert_allclose(folded(x), conv(x), atol=1e-6)
    kept = folded.weight.shape[-1]
    norms = jnp.linalg.norm(folded.weight[...].reshape(-1, kept), axis=0)
    np.testing.assert_allclose(norms, conv.size[...], rtol=1e-5)
    grad = jax.grad(lambda c: jnp.sum(c(x) ** 2))(conv)
    # The length of the direction does not matter: its gradient is orthogonal to it.
    inner = jnp.sum((grad.direction[...] * conv.direction[...]).reshape(-1, kept), axis=0)
    np.testing.assert_allclose(inner, 0, atol=1e-3)


def test_wrong_settings_are_refused():
    with pytest.raises(ValueError, match="pad='mirror' is not one of zero, reflect, edge"):
        Conv(3, 4, 7, KEY, causal=True, pad="mirror")
    with pytest.raises(ValueError, match="norm='batch' is not one of none, weight"):
        Conv(3, 4, 7, KEY, causal=True, norm="batch")
    with pytest.raises(ValueError, match="kernel=2 is shorter than stride=3"):
        Conv(3, 4, 2, KEY, stride=3, causal=True)
    with pytest.raises(ValueError, match="kernel=2 is shorter than stride=3"):
        ConvTranspose(3, 4, 2, 3, KEY, causal=True)
    with pytest.raises(ValueError, match="leave it at 1"):
        ConvTranspose(3, 4, 4, 2, KEY, causal=False, trim_right_ratio=0.5)


def test_convolutions_compute_in_the_dtype_of_their_input():
    x = noise(1, 8, 4).astype(jnp.bfloat16)
    assert Conv(4, 4, 4, KEY, stride=2, causal=True, norm="weight")(x).dtype == jnp.bfloat16
    assert ConvTranspose(4, 4, 4, 2, KEY, causal=True)(x).dtype == jnp.bfloat16
