"""DAC against transformers, with the same seeded random weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxslm.hf.codec import load_codec, save_codec

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

SIZES = dict(
    encoder_hidden_size=8,
    downsampling_ratios=[2, 5, 3],
    decoder_hidden_size=32,
    n_codebooks=3,
    codebook_size=16,
    codebook_dim=4,
)
HOP = 30


@pytest.fixture(scope="module")
def peer():
    """Weights large enough for codes and samples to tell layers apart."""
    from transformers import DacConfig, DacModel

    torch.manual_seed(0)
    model = DacModel(DacConfig(**SIZES)).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("alpha"):
                weight.copy_(1 + 0.3 * torch.randn(weight.shape))
            elif weight.ndim > 1:
                weight.copy_(0.8 * torch.randn(weight.shape) / weight[0].numel() ** 0.5)
            else:
                weight.copy_(0.1 * torch.randn(weight.shape))
    return model


@pytest.fixture(scope="module")
def folder(peer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("dac") / "model"
    peer.save_pretrained(folder)
    return folder


def test_codes_and_samples_are_those_of_transformers(peer, folder):
    codec = load_codec(folder)
    samples = np.random.default_rng(0).normal(size=(2, 40 * HOP)).astype(np.float32)
    with torch.inference_mode():
        latents = peer.encoder(torch.tensor(samples)[:, None]).mT.numpy()
        codes_BxQxT = peer.encode(torch.tensor(samples)[:, None]).audio_codes
        expected = peer.decode(audio_codes=codes_BxQxT).audio_values.numpy()
    mine = jax.jit(codec.encoder)(jnp.asarray(samples)[..., None])
    np.testing.assert_allclose(mine, latents, rtol=1e-4, atol=1e-4)
    codes = codec.quantizer.encode(mine)
    assert len(np.unique(codes)) > SIZES["codebook_size"] // 2
    np.testing.assert_array_equal(codes, codes_BxQxT.numpy().transpose(0, 2, 1))
    decoded = jax.jit(lambda codec, codes: codec.decode(codes))(codec, codes)
    # Without the samples that transformers loses at odd strides, later stages see another end, 3 * (1 + 3 + 9)
    # frames deep at each rate.
    assert decoded.shape == (2, 40 * HOP) and expected.shape[1] < 40 * HOP
    away = 20 * HOP
    assert expected[:, :away].std() > 0.1
    np.testing.assert_allclose(decoded[:, :away], expected[:, :away], atol=1e-4)


def test_transformers_loads_what_is_written_and_computes_the_same(peer, folder, tmp_path):
    codec = load_codec(folder)
    save_codec(codec, tmp_path / "ours")
    again, info = type(peer).from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(info.values())
    samples = torch.tensor(np.random.default_rng(1).normal(size=(1, 1, 8 * HOP)).astype(np.float32))
    with torch.inference_mode():
        codes, expected = (model.eval().encode(samples).audio_codes for model in (again, peer))
        np.testing.assert_array_equal(codes, expected)
        decoded, expected = (model.decode(audio_codes=codes).audio_values for model in (again, peer))
    np.testing.assert_allclose(decoded, expected, atol=1e-6)
    jax.tree.map(np.testing.assert_array_equal, load_codec(tmp_path / "ours"), codec)
