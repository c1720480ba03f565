import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxslm.codec.activations import SnakeBeta
from jaxslm.codec.alias_free import AliasFree, kaiser_sinc
from jaxslm.codec.dac import DACConfig, DACDecoderConfig, dac_decoder, dac_encoder
from tests.codec.chunks import in_chunks
from tests.codec.dilations import dilates_inputs

KEY = jax.random.key(0)
SMALL = dict(ratios=(3, 2), dilations=(3,))  # one odd stride
HOP, DIM = 6, 5


def noise(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


@functools.cache
def networks(**fields):
    fields = SMALL | fields
    encoder, decoder = DACConfig(channels=2, **fields), DACDecoderConfig(channels=8, **fields)
    return dac_encoder(encoder, DIM, KEY), dac_decoder(decoder, DIM, KEY)


@pytest.mark.parametrize("fields", [{}, dict(causal=True), dict(activation="snakebeta", alias_free=True)])
def test_each_row_of_a_batch_is_the_row_alone(fields):
    encoder, decoder = networks(**fields)
    encode, decode = jax.jit(encoder), jax.jit(decoder)
    samples, latents = noise(2, 4 * HOP, 1), noise(2, 4, DIM)
    lengths = np.array([4 * HOP, 2 * HOP - 1])
    frames = encoder.length(lengths)
    assert frames.tolist() == [4, 2]
    encoded, decoded = encode(samples, jnp.asarray(lengths)), decode(latents, jnp.asarray(frames))
    assert encoded.shape == (2, 4, DIM) and decoded.shape == (2, 4 * HOP, 1)
    np.testing.assert_allclose(encoded[1, :2], encode(samples[1:, : 2 * HOP - 1])[0], atol=1e-5)
    np.testing.assert_allclose(decoded[1, : 2 * HOP], decode(latents[1:, :2])[0], atol=1e-5)


@pytest.mark.parametrize("n", [1, HOP - 1, HOP, HOP + 1, 3 * HOP + 7])
def test_frames_are_whole_hops_even_for_odd_strides(n):
    encoder, decoder = networks()
    latents = jax.eval_shape(encoder, jnp.zeros((1, n, 1)))
    assert latents.shape == (1, -(-n // HOP), DIM) and encoder.length(n) == latents.shape[1]
    samples = jax.eval_shape(decoder, latents)
    assert samples.shape == (1, -(-n // HOP) * HOP, 1) and decoder.length(latents.shape[1]) == samples.shape[1]


def test_causal_networks_in_chunks_are_those_of_the_whole():
    encoder, decoder = networks(causal=True, lstm=1)
    samples, latents = noise(2, 4 * HOP, 1), noise(2, 4, DIM)
    np.testing.assert_allclose(in_chunks(encoder, samples, 2 * HOP), jax.jit(encoder)(samples), atol=1e-5)
    np.testing.assert_allclose(in_chunks(decoder, latents, 1), jax.jit(decoder)(latents), atol=1e-5)
    with pytest.raises(ValueError, match="send whole hops"):
        encoder.stream(samples[:, : HOP + 1], encoder.start(2))


def test_networks_that_look_ahead_do_not_run_on_chunks():
    for fields in ({}, dict(alias_free=True)):
        for network in networks(**fields):
            with pytest.raises(ValueError, match="cannot run on chunks"):
                network.start(1)
    with pytest.raises(ValueError, match="alias_free"):
        AliasFree(SnakeBeta(4)).stream(noise(1, 4, 4), ())


def test_no_convolution_dilates_its_input_in_forward_and_backward_pass():
    def loss(networks, samples):
        encoder, decoder = networks
        return jnp.sum(decoder(encoder(samples)) ** 2)

    both = networks(activation="snakebeta", alias_free=True)
    text = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(both, noise(1, 2 * HOP, 1)).as_text()
    assert "convolution" in text and not dilates_inputs(text)


def test_alias_free_activation_is_the_formula_in_float64():
    dim, length = 3, 7
    layer, x_TxC = AliasFree(SnakeBeta(dim)), np.asarray(noise(length, dim), np.float64)
    layer.function.alpha[...] = noise(dim, seed=1)
    layer.function.beta[...] = noise(dim, seed=2)
    alpha, beta = (np.exp(np.asarray(p[...], np.float64)) for p in (layer.function.alpha, layer.function.beta))
    n = np.arange(12) - 5.5
    kernel = np.kaiser(12, 0.1102 * (2.285 * 5 * np.pi * 4 * 0.3 + 7.95 - 8.7)) * np.sinc(n / 2)
    kernel /= kernel.sum()
    np.testing.assert_allclose(kaiser_sinc(12), kernel, atol=1e-15)

    def convolved(x, left, right, stride):
        x = np.pad(x, ((left, right), (0, 0)))
        return np.stack([kernel @ x[i : i + 12] for i in range(0, len(x) - 11, stride)])

    with_zeros = np.zeros((2 * (length + 10), dim))
    with_zeros[::2] = np.pad(x_TxC, ((5, 5), (0, 0)), mode="edge")
    twice = 2 * convolved(with_zeros, 11, 11, 1)[15 : 15 + 2 * length]
    active = twice + np.sin(alpha * twice) ** 2 / beta
    expected = convolved(np.pad(active, ((5, 6), (0, 0)), mode="edge"), 0, 0, 2)
    np.testing.assert_allclose(layer(jnp.asarray(x_TxC, jnp.float32)[None])[0], expected, atol=1e-5)


def test_alias_free_activation_is_that_of_transformers():
    torch = pytest.importorskip("torch")
    peer = pytest.importorskip("transformers.models.xcodec2.modeling_xcodec2")
    theirs = peer.Xcodec2AntiAliasedActivation1d(peer.Xcodec2SnakeBeta(5))
    x, wanted = np.array(noise(2, 9, 5)), np.array(noise(2, 9, 5, seed=1))
    x_torch = torch.tensor(x, requires_grad=True)
    expected = theirs(x_torch.mT).mT
    expected.backward(torch.tensor(wanted))
    y, pullback = jax.vjp(AliasFree(SnakeBeta(5)), jnp.asarray(x))
    np.testing.assert_allclose(y, expected.detach(), atol=1e-5)
    np.testing.assert_allclose(pullback(wanted)[0], x_torch.grad, atol=1e-5)


def test_bigcodec_has_its_published_size():
    """159 million parameters without the discriminators (BigCodec, README); the quantizer has 8192 x 8 codes."""
    fields = dict(ratios=(2, 2, 2, 5, 5), activation="snakebeta", alias_free=True, lstm=2, norm="none")
    encoder, decoder = DACConfig(channels=48, **fields), DACDecoderConfig(**fields)
    both = jax.eval_shape(lambda: (dac_encoder(encoder, 1024, KEY), dac_decoder(decoder, 1024, KEY)))
    n = sum(leaf.size for leaf in jax.tree.leaves(both)) + 8192 * 8 + 2 * 8 * 1024 + 1024 + 8
    assert round(n / 1e6) == 159


def test_wrong_settings_are_refused():
    with pytest.raises(ValueError, match="make it a multiple of 16"):
        DACDecoderConfig(channels=100)
    with pytest.raises(ValueError, match="at least one stride"):
        DACConfig(ratios=())
    with pytest.raises(ValueError, match="looks ahead"):
        DACConfig(alias_free=True, causal=True)
    with pytest.raises(ValueError, match="not one of"):
        dac_encoder(DACConfig(activation="relu"), DIM, KEY)


def test_networks_compute_in_the_dtype_of_their_input():
    for fields in ({}, dict(activation="snakebeta", alias_free=True)):
        encoder, decoder = networks(**fields)
        latents = jax.eval_shape(encoder, jnp.zeros((1, HOP, 1), jnp.bfloat16))
        assert latents.dtype == jnp.bfloat16
        assert jax.eval_shape(decoder, latents).dtype == jnp.bfloat16
