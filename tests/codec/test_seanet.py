import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxslm.codec.chain import Activation
from jaxslm.codec.conv import fold_weight_norm
from jaxslm.codec.seanet import SEANetConfig, seanet_decoder, seanet_encoder
from tests.codec.chunks import in_chunks

KEY = jax.random.key(0)
DIM = 6
SMALL = dict(n_filters=4, ratios=(2, 3), kernel=3, last_kernel=3, residual_kernel=3)
ENCODEC = dict(SMALL, n_residual=1, compress=2, true_skip=False, pad="reflect", lstm=1)
TRANSFORMER = dict(n_layers=2, n_heads=1, d_ff=8, window=3, layer_scale=0.5)
CAUSAL = {
    "soundstream": dict(SMALL, n_residual=1),
    "encodec": ENCODEC,
    "mimi": dict(SMALL, n_residual=1, compress=2, norm="none", transformer=TRANSFORMER, downsample=2),
}
CONFIGS = CAUSAL | {
    "wavtokenizer": ENCODEC | dict(causal=False),
    "snake": dict(SMALL, n_residual=1, causal=False, activation="snake"),
}
run = jax.jit(lambda layer, x, lengths: layer(x, lengths))


def noise(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def both(kind):
    config = SEANetConfig(**CONFIGS[kind])
    return config, seanet_encoder(config, DIM, KEY), seanet_decoder(config, DIM, KEY)


@pytest.mark.parametrize("kind", CONFIGS)
def test_each_row_of_a_batch_is_the_row_alone(kind):
    config, encoder, decoder = both(kind)
    n_samples, n = 3 * config.hop - 1, 1 if CONFIGS[kind].get("pad") == "reflect" else config.hop + 1
    lengths, x = np.array([n_samples, n]), noise(2, n_samples, 1)
    frames = -(-lengths // config.hop)
    z = run(encoder, x, jnp.asarray(lengths))
    assert z.shape == (2, 3, DIM) and encoder.length(n_samples) == 3 and decoder.length(3) == 3 * config.hop
    np.testing.assert_array_equal(encoder.length(lengths), frames)
    y = run(decoder, z, jnp.asarray(frames))
    assert y.shape == (2, 3 * config.hop, 1)
    z_alone = run(encoder, x[1:, :n], None)
    assert z_alone.shape[1] == frames[1]
    np.testing.assert_allclose(z[1:, : frames[1]], z_alone, atol=1e-5)
    np.testing.assert_allclose(y[1:, : frames[1] * config.hop], run(decoder, z_alone, None), atol=1e-5)


@pytest.mark.parametrize("kind", CAUSAL)
def test_chunks_are_the_whole(kind):
    config, encoder, decoder = both(kind)
    # Reflection needs a first chunk longer than what it puts before it, at the rate of the frames.
    sizes = np.array([4, 1, 1] if kind == "encodec" else [1, 1, 1])
    x = noise(2, sizes.sum() * config.hop, 1)
    z = run(encoder, x, None)
    np.testing.assert_allclose(in_chunks(encoder, x, sizes * config.hop), z, atol=1e-5)
    np.testing.assert_allclose(in_chunks(decoder, z, sizes), run(decoder, z, None), atol=1e-5)


def test_what_is_not_causal_does_not_stream():
    _, encoder, decoder = both("wavtokenizer")
    for part in (encoder, decoder):
        with pytest.raises(ValueError, match="not causal"):
            part.start(1)


def test_a_causal_codec_does_not_look_ahead():
    config, encoder, decoder = both("mimi")
    x = noise(1, 6 * config.hop, 1)
    later = x.at[:, 4 * config.hop :].add(1.0)
    z, z_later = (run(encoder, samples, None) for samples in (x, later))
    np.testing.assert_array_equal(z[:, :4], z_later[:, :4])
    assert np.abs(z[:, 4] - z_later[:, 4]).max() > 1e-3
    y, y_later = (run(decoder, latents, None) for latents in (z, z_later))
    np.testing.assert_array_equal(y[:, : 4 * config.hop], y_later[:, : 4 * config.hop])


def test_layers_are_counted_as_published_and_bidirectional_frames_are_twice_as_wide():
    config = SEANetConfig(lstm=2, bidirectional=True, n_residual=1, n_filters=2)
    encoder = jax.eval_shape(lambda key: seanet_encoder(config, DIM, key), KEY)
    # encoder.layers of facebook/encodec_24khz: 13 is the LSTM, 15 the last convolution.
    kinds = [type(layer).__name__ for layer in encoder.layers]
    assert kinds == ["Conv", *["Residual", "Activation", "Conv"] * 4, "LSTM", "Activation", "Conv"]
    assert encoder.layers[15].direction.shape == (7, 2 * 2 * 2**4, DIM)
    config = SEANetConfig(lstm=2, n_residual=1, n_filters=2)
    decoder = jax.eval_shape(lambda key: seanet_decoder(config, DIM, key), KEY)
    kinds = [type(layer).__name__ for layer in decoder.layers]
    assert kinds == ["Conv", "LSTM", *["Activation", "ConvTranspose", "Residual"] * 4, "Activation", "Conv"]
    assert [layer.stride for layer in decoder.layers[3:14:3]] == [8, 5, 4, 2]


def test_folded_weight_norm_gives_the_same_samples():
    _, encoder, _ = both("encodec")
    x = noise(1, 20, 1)
    folded = fold_weight_norm(encoder)
    assert folded.layers[0].direction is None and folded.layers[1].shortcut.weight is not None
    np.testing.assert_allclose(run(folded, x, None), run(encoder, x, None), atol=1e-6)


def test_wrong_settings_are_refused():
    with pytest.raises(ValueError, match="compress=3 does not divide n_filters=32"):
        SEANetConfig(compress=3)
    with pytest.raises(ValueError, match="give at least one stride"):
        SEANetConfig(ratios=())
    with pytest.raises(ValueError, match="lstm=-1, downsample=0"):
        SEANetConfig(lstm=-1)
    with pytest.raises(ValueError, match="transformer has no field 'windows'.* window"):
        SEANetConfig(transformer=dict(windows=3))
    with pytest.raises(ValueError, match="bidirectional=True is for encoders"):
        seanet_decoder(SEANetConfig(lstm=1, bidirectional=True), DIM, KEY)
    with pytest.raises(ValueError, match="activation='relu' is not one of elu, leaky, "):
        Activation("relu", 3)
