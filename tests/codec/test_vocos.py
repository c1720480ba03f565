import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxslm.audio.spectra import inverse_stft
from jaxslm.codec.vocos import Vocos, VocosConfig, VocosEncoderConfig, vocos_decoder, vocos_encoder
from tests.codec.dilations import dilates_inputs

torch = pytest.importorskip("torch")
DIM = 6
SMALL = dict(hop=6, width=8, hidden=12, n_layers=2, groups=4, n_conditions=3)


def noise(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@functools.cache
def decoder(**fields) -> Vocos:
    """With weights large enough to tell frames and rows apart."""
    vocos = jax.jit(lambda key: vocos_decoder(VocosConfig(**SMALL | fields), DIM, key))(jax.random.key(0))
    leaves, tree = jax.tree.flatten(vocos)
    return jax.tree.unflatten(tree, [x + 0.2 * noise(*x.shape, seed=i) for i, x in enumerate(leaves)])


@pytest.mark.parametrize("hop, overlap", [(6, 4), (8, 2), (10, 3)])
def test_inverse_transform_is_that_of_torch_and_has_samples_for_all_frames(hop, overlap):
    n_fft, n_frames = overlap * hop, 9
    spectrum = noise(2, n_frames, n_fft // 2 + 1) + 1j * noise(2, n_frames, n_fft // 2 + 1, seed=1)
    window = torch.hann_window(n_fft)
    expected = torch.istft(torch.tensor(spectrum).mT, n_fft, hop, window=window, center=True).numpy()
    samples = np.asarray(inverse_stft(jnp.asarray(spectrum), hop))
    assert samples.shape == (2, n_frames * hop)
    np.testing.assert_allclose(samples[:, hop // 2 :][:, : expected.shape[1]], expected, atol=1e-5)


def test_inverse_transform_is_that_of_float64_up_to_its_ends():
    hop, n_fft, n_frames = 6, 24, 5
    spectrum = noise(n_frames, 13) + 1j * noise(n_frames, 13, seed=1)
    total, weight = np.zeros((2, (n_frames - 1) * hop + n_fft))
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)
    for i, frame in enumerate(spectrum):
        total[i * hop :][:n_fft] += np.fft.irfft(frame, n_fft) * window
        weight[i * hop :][:n_fft] += window**2
    inside = slice((n_fft - hop) // 2, -(n_fft - hop) // 2)
    expected = total[inside] / weight[inside]
    np.testing.assert_allclose(inverse_stft(jnp.asarray(spectrum)[None], hop)[0], expected, atol=1e-5)


def test_no_scatter_and_no_convolution_that_dilates_its_input():
    loss = jax.grad(lambda vocos, x: jnp.sum(vocos(x) ** 2), argnums=(0, 1))
    text = jax.jit(loss).lower(decoder(n_conditions=1), noise(1, 9, DIM)).as_text()
    assert "convolution" in text and "fft" in text
    assert "scatter" not in text and not dilates_inputs(text)


@pytest.mark.parametrize("fields", [{}, dict(front=False)])
def test_each_row_of_a_batch_is_the_row_alone(fields):
    vocos = decoder(**fields)
    run, x, lengths = jax.jit(vocos), noise(2, 9, DIM), np.array([9, 1])
    y = run(x, jnp.asarray(lengths))
    assert y.shape == (2, 9 * 6, 1) and vocos.length(9) == 9 * 6
    for i, n in enumerate(lengths):
        alone = run(x[i : i + 1, :n])[0]
        assert alone.shape == (n * 6, 1)
        np.testing.assert_allclose(y[i, : n * 6], alone, atol=1e-4)


def test_a_row_without_frames_leaves_gradients_finite():
    def loss(vocos):
        y = vocos(noise(2, 5, DIM), jnp.array([5, 0]))
        return jnp.sum(y[0] ** 2)

    assert all(jnp.isfinite(g).all() for g in jax.tree.leaves(jax.jit(jax.grad(loss))(decoder())))


def test_conditions_are_chosen_by_row():
    vocos, x = decoder(), noise(1, 5, DIM)
    run = jax.jit(lambda condition: vocos(jnp.tile(x, (2, 1, 1)), None, condition))
    zeros, mixed = run(jnp.array([0, 0])), run(jnp.array([0, 2]))
    np.testing.assert_allclose(zeros[1], vocos(x)[0], atol=1e-4)
    np.testing.assert_allclose(mixed[0], zeros[0], atol=1e-4)
    assert np.abs(mixed[1] - zeros[1]).max() > 0.01


def wavtokenizer_name(ours: str) -> str:
    """Of the tensor for the path of a parameter; `{}` for the number of a block."""
    names = {"embed": "embed", "norm": "norm", "final_norm": "final_layer_norm", "front/layers/5": "pos_net.5"}
    attention = dict(norm="norm", query="q", key="k", value="v", output="proj_out")
    names |= {f"front/layers/2/block/{a}": f"pos_net.2.{b}" for a, b in attention.items()}
    unit = ("norm1", "conv1", "norm2", "conv2")
    names |= {f"front/layers/{i}/block/layers/{j}": f"pos_net.{i}.{unit[j]}" for i in (0, 1, 3, 4) for j in range(4)}
    block = dict(depthwise="dwconv", norm="norm", up="pwconv1", down="pwconv2")
    names |= {f"blocks/{a}": f"convnext.{{}}.{b}" for a, b in block.items()}
    if ours == "blocks/layer_scale":
        return "backbone.convnext.{}.gamma"
    layer, leaf = ours.rsplit("/", 1)
    if layer == "head":
        return f"head.linear.{leaf}"
    if layer in ("norm", "blocks/norm"):  # tables of conditions
        return f"backbone.{names[layer]}.{dict(scale='scale', bias='shift')[leaf]}.weight"
    return f"backbone.{names[layer]}.{'weight' if leaf == 'scale' else leaf}"


def test_decoder_is_that_of_wavtokenizer():
    peer = pytest.importorskip("transformers.models.wavtokenizer.modeling_wavtokenizer")
    config = peer.WavTokenizerConfig(
        num_filters=2, upsampling_ratios=[2, 3], hidden_size=DIM, codebook_dim=DIM, codebook_size=4,
        decoder_hidden_size=8, decoder_intermediate_size=12, decoder_num_layers=2, adanorm_num_embeddings=3,
        decoder_attention_num_groups=4,
    )  # fmt: skip
    torch.manual_seed(0)
    theirs = peer.WavTokenizerModel(config).eval()
    with torch.no_grad():
        for weight in theirs.parameters():
            weight.add_(0.2 * torch.randn(weight.shape))
    tensors = {name: tensor.numpy() for name, tensor in theirs.state_dict().items()}

    def parameter(path, leaf):
        ours = jax.tree_util.keystr(path, simple=True, separator="/").removesuffix("/value")
        name = wavtokenizer_name(ours)
        values = [tensors[name.format(i)] for i in range(2)] if "{}" in name else [tensors[name]]
        values = [value.T if ours.endswith("/weight") else value for value in values]
        return jnp.asarray(np.stack(values)).reshape(leaf.shape)

    vocos = jax.tree_util.tree_map_with_path(parameter, decoder())
    x = noise(2, 9, DIM)
    for condition in (0, 2):
        with torch.inference_mode():
            hidden = theirs.backbone(torch.tensor(x).mT, torch.tensor([condition]))
            expected = theirs.head(hidden)[:, 0].numpy()
        samples = jax.jit(vocos)(x, None, jnp.full(2, condition))[..., 0]
        assert samples.shape == (2, 9 * 6)
        np.testing.assert_allclose(samples, expected, atol=1e-4 * np.abs(expected).max())


def test_wrong_settings_are_refused():
    for fields, message in (
        (dict(hop=5), "make it even"),
        (dict(overlap=1), "overlap=1; set it to 2 or more"),
        (dict(groups=5), "groups=5 does not divide width=768"),
        (dict(n_conditions=0), "1 for plain layer norms"),
    ):
        with pytest.raises(ValueError, match=message):
            VocosConfig(**fields)
    with pytest.raises(ValueError, match="cannot run on chunks"):
        decoder().start(1)


def test_decoder_computes_in_the_dtype_of_its_input():
    assert jax.eval_shape(decoder(), jnp.zeros((1, 5, DIM), jnp.bfloat16)).dtype == jnp.bfloat16


def test_the_encoder_sees_the_spectrum_of_each_frame_and_no_padding():
    config = VocosEncoderConfig(**SMALL)
    encoder = jax.jit(lambda key: vocos_encoder(config, DIM, key))(jax.random.key(0))
    n_fft, samples = config.hop * config.overlap, noise(2, 53, 1)
    seen, _ = encoder.spectra(samples[..., 0], None)
    mirrored = np.pad(samples[0, :, 0], (n_fft - config.hop) // 2, mode="reflect").astype(np.float64)
    padded = np.pad(mirrored, (0, -53 % config.hop))
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)
    spectra = [np.fft.rfft(padded[t * config.hop :][:n_fft] * window) for t in range(-(-53 // config.hop))]
    magnitudes = [np.maximum(np.abs(s), 1e-3) for s in spectra]
    parts = [s * m**-0.7 for s, m in zip(spectra, magnitudes, strict=True)]
    expected = [np.concatenate([s.real, s.imag, 0.5 + 0.5 * np.log(m)]) for s, m in zip(parts, magnitudes, strict=True)]
    np.testing.assert_allclose(seen[0], expected, atol=2e-4)

    run, lengths = jax.jit(encoder), jnp.array([53, 20])
    whole = run(jnp.array(samples), lengths)
    assert whole.shape == (2, encoder.length(53), DIM)
    alone = run(jnp.array(samples[1:, :20]))
    np.testing.assert_allclose(whole[1, : encoder.length(20)], alone[0], atol=2e-5)


def test_an_encoder_without_phases_hears_what_sounds_alike_as_the_same():
    samples, hears = jnp.array(noise(1, 53, 1)), {}
    for phase in (True, False):
        encoder = vocos_encoder(VocosEncoderConfig(**SMALL, phase=phase), DIM, jax.random.key(0))
        hears[phase] = [encoder(x) for x in (samples, -samples)]
        hears[phase].append(encoder(0.5 * samples))
    np.testing.assert_array_equal(*hears[False][:2])
    assert np.abs(hears[False][0] - hears[False][2]).max() > 1e-3 < np.abs(np.subtract(*hears[True][:2])).max()
