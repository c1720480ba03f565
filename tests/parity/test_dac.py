"""DAC against transformers, with the same seeded random weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxslm.codec.dac import DACConfig, dac_decoder, dac_encoder
from jaxslm.codec.quantizer_config import QuantizerConfig
from jaxslm.codec.quantizers import make_quantizer
from jaxslm.hf.dac_architecture import codec_config, theirs

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
HOP, N_ODD = 30, 2


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
def ours(peer):
    """(encoder, quantizer, decoder)"""
    tensors = {name: value.numpy() for name, value in peer.state_dict().items()}
    fields = codec_config(peer.config.to_dict(), "config.json")
    dim, key = fields["dim"], jax.random.key(0)

    def parameter(path, leaf):
        name = jax.tree_util.keystr(path, simple=True, separator="/").removesuffix("/value")
        if "codebooks" in name:
            return jnp.zeros(leaf.shape, leaf.dtype)
        spelt = theirs(name)
        one = [spelt] if "{}" not in spelt else [spelt.format(q) for q in range(SIZES["n_codebooks"])]
        values = [tensors[n].T if n.endswith("weight") and "codebook" not in n else tensors[n] for n in one]
        return jnp.asarray(np.stack(values)).reshape(leaf.shape)

    def make(key):
        encoder, decoder = (
            DACConfig(**{k: v for k, v in fields[n].items() if k != "kind"}, norm="none")
            for n in ("encoder", "decoder")
        )
        quantizer = make_quantizer(QuantizerConfig(dim=dim, **fields["quantizer"]), key)
        return dict(encoder=dac_encoder(encoder, dim, key), quantizer=quantizer, decoder=dac_decoder(decoder, dim, key))

    networks = jax.tree_util.tree_map_with_path(parameter, jax.eval_shape(make, key))
    return networks["encoder"], networks["quantizer"], networks["decoder"]


def test_codes_and_samples_are_those_of_transformers(peer, ours):
    encoder, quantizer, decoder = ours
    samples = np.random.default_rng(0).normal(size=(2, 40 * HOP)).astype(np.float32)
    with torch.inference_mode():
        latents = peer.encoder(torch.tensor(samples)[:, None]).mT.numpy()
        codes_BxQxT = peer.encode(torch.tensor(samples)[:, None]).audio_codes
        expected = peer.decode(audio_codes=codes_BxQxT).audio_values.numpy()
    mine = jax.jit(encoder)(jnp.asarray(samples)[..., None])
    np.testing.assert_allclose(mine, latents, rtol=1e-4, atol=1e-4)
    codes = quantizer.encode(mine)
    assert len(np.unique(codes)) > SIZES["codebook_size"] // 2
    np.testing.assert_array_equal(codes, codes_BxQxT.numpy().transpose(0, 2, 1))
    decoded = jax.jit(decoder)(quantizer.decode(codes))[..., 0]
    # Without the samples that transformers loses at odd strides, later stages see another end, 3 * (1 + 3 + 9)
    # frames deep at each rate.
    assert decoded.shape == (2, 40 * HOP) and expected.shape[1] < 40 * HOP
    away = 20 * HOP
    assert expected[:, :away].std() > 0.1
    np.testing.assert_allclose(decoded[:, :away], expected[:, :away], atol=1e-4)
