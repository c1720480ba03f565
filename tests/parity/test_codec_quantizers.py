"""Quantizers against those of transformers, with the same seeded random codebooks and projections."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxslm.codec.codebooks import Codebooks
from jaxslm.codec.quantizer_config import QuantizerConfig
from jaxslm.codec.quantizers import make_quantizer

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

B, T, D, Q, K = 2, 50, 24, 5, 64


def frames(seed: int) -> torch.Tensor:
    return torch.randn(B, D, T, generator=torch.Generator().manual_seed(seed)) * 2 + 0.5


def ours(x_BxDxT: torch.Tensor) -> jax.Array:
    return jnp.asarray(x_BxDxT.detach().numpy().transpose(0, 2, 1))


def randomize(module: torch.nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for tensor in module.state_dict().values():
        if tensor.ndim > 1:
            tensor.copy_(torch.randn(tensor.shape, generator=generator) / tensor.shape[1] ** 0.5)


def set_linear(linear, weight: np.ndarray, bias: np.ndarray | None = None) -> None:
    """From the weights of one or, stacked, of several convolutions [O, I, 1]."""
    assert linear.weight[...].shape == np.swapaxes(weight[..., 0], -1, -2).shape
    linear.weight[...] = jnp.asarray(np.swapaxes(weight[..., 0], -1, -2))
    assert (linear.bias is None) == (bias is None)
    if bias is not None:
        linear.bias[...] = jnp.asarray(bias)


def codebooks_of(rvq) -> np.ndarray:
    return np.stack([layer.codebook.embed.numpy() for layer in rvq.layers])


def test_residual_codes_and_values_are_those_of_encodec():
    from transformers import EncodecConfig
    from transformers.models.encodec.modeling_encodec import EncodecResidualVectorQuantizer

    settings = EncodecConfig(codebook_size=K, codebook_dim=D, hidden_size=D, target_bandwidths=[24.0])
    peer = EncodecResidualVectorQuantizer(settings).eval()
    randomize(peer, 0)
    n = len(peer.layers)
    config = QuantizerConfig(dim=D, n_levels=n, codebook_size=K)
    quantizer = make_quantizer(config, jax.random.key(0)).with_codebooks(Codebooks.of(codebooks_of(peer)))
    z = frames(1)
    with torch.inference_mode():
        codes_QxBxT = peer.encode(z)
        values = peer.decode(codes_QxBxT)
    codes = quantizer.encode(ours(z))
    np.testing.assert_array_equal(codes, codes_QxBxT.permute(1, 2, 0))
    np.testing.assert_allclose(quantizer.decode(codes), ours(values), atol=1e-5)
    np.testing.assert_allclose(quantizer(ours(z), jnp.ones((B, T), bool)).values_BxTxD, ours(values), atol=1e-5)


def test_split_codes_and_values_are_those_of_mimi():
    from transformers import MimiConfig
    from transformers.models.mimi.modeling_mimi import MimiSplitResidualVectorQuantizer

    settings = MimiConfig(
        codebook_size=K, codebook_dim=D // 2, vector_quantization_hidden_dimension=D // 2, hidden_size=D,
        num_quantizers=Q, num_semantic_quantizers=1,
    )  # fmt: skip
    peer = MimiSplitResidualVectorQuantizer(settings).eval()
    randomize(peer, 0)
    halves = peer.semantic_residual_vector_quantizer, peer.acoustic_residual_vector_quantizer
    generator = torch.Generator().manual_seed(5)
    for layer in [layer for half in halves for layer in half.layers]:  # codes are sums over usages
        layer.codebook.cluster_usage.copy_(torch.rand(K, generator=generator) * 3)
        layer.codebook.cluster_usage[:2] = 0
    config = QuantizerConfig(
        dim=D, kind="split_rvq", n_levels=Q, codebook_size=K, projection="shared", codebook_dim=D // 2
    )
    quantizer, states = make_quantizer(config, jax.random.key(0)), []
    for half, part in zip(halves, quantizer.parts, strict=True):
        set_linear(part.project_in, half.input_proj.weight.detach().numpy())
        set_linear(part.project_out, half.output_proj.weight.detach().numpy())
        books = [layer.codebook for layer in half.layers]
        usage_QxK, sums_QxKxC = (np.stack([getattr(b, n) for b in books]) for n in ("cluster_usage", "embed_sum"))
        states.append(Codebooks(usage_QxK, sums_QxKxC, np.ones(len(books), np.int32)))
    quantizer = quantizer.with_codebooks(tuple(jax.tree.map(jnp.asarray, states)))
    z = frames(2)
    for n in (Q, 3):
        with torch.inference_mode():
            codes_QxBxT = peer.encode(z, n)
            values = peer.decode(codes_QxBxT.transpose(0, 1))
        codes = quantizer.encode(ours(z), n)
        np.testing.assert_array_equal(codes, codes_QxBxT.permute(1, 2, 0))
        np.testing.assert_allclose(quantizer.decode(codes), ours(values), rtol=1e-5, atol=1e-5)


@pytest.fixture
def dac():
    """The peer with 4-d codes, and ours with its weights."""
    from transformers import DacConfig
    from transformers.models.dac.modeling_dac import DacResidualVectorQuantizer

    settings = DacConfig(hidden_size=D, codebook_dim=4, codebook_size=K, n_codebooks=Q, quantizer_dropout=0.5)
    peer = DacResidualVectorQuantizer(settings).eval()
    randomize(peer, 3)
    config = QuantizerConfig(
        dim=D,
        n_levels=Q,
        codebook_size=K,
        codebook_dim=4,
        projection="level",
        l2=True,
        learning="gradient",
        dropout=0.5,
    )
    quantizer = make_quantizer(config, jax.random.key(0))
    for name, linear in (("in_proj", quantizer.level_in), ("out_proj", quantizer.level_out)):
        convs = [getattr(level, name) for level in peer.quantizers]
        set_linear(linear, *(np.stack([getattr(c, n).detach().numpy() for c in convs]) for n in ("weight", "bias")))
    quantizer.codes[...] = jnp.stack([jnp.asarray(level.codebook.weight.detach().numpy()) for level in peer.quantizers])
    return peer, quantizer


def test_factorised_codes_values_and_losses_are_those_of_dac(dac):
    peer, quantizer = dac
    z, real = frames(4), jnp.ones((B, T), bool)
    with torch.inference_mode():
        values, codes_BxQxT, _, commitment, codebook_loss = peer(z)
        decoded = peer.from_codes(codes_BxQxT)[0]
    found = quantizer(ours(z), real)
    np.testing.assert_array_equal(found.codes_BxTxQ, codes_BxQxT.permute(0, 2, 1))
    np.testing.assert_allclose(found.values_BxTxD, ours(values), atol=1e-5)
    np.testing.assert_allclose(quantizer.decode(found.codes_BxTxQ), ours(decoded), atol=1e-5)
    np.testing.assert_allclose(found.commitment * Q, commitment.mean(), rtol=1e-5)  # DAC sums over levels
    np.testing.assert_allclose(found.codebook_loss * Q, codebook_loss.mean(), rtol=1e-5)
    with torch.inference_mode():
        fewer = peer(z, 2)[0]
    np.testing.assert_allclose(quantizer(ours(z), real, n_levels=2).values_BxTxD, ours(fewer), atol=1e-5)


def close(mine, peer) -> None:
    np.testing.assert_allclose(mine, peer, atol=1e-5 * float(abs(peer).max()))


def test_gradients_are_those_of_dac(dac):
    peer, quantizer = dac
    z, target = frames(4), frames(5)
    z.requires_grad_()
    values, _, _, commitment, codebook_loss = peer(z)
    ((values * target).mean() + 0.25 * commitment.mean() + codebook_loss.mean()).backward()

    def loss(quantizer, z):
        found = quantizer.with_codebooks(state)(z, jnp.ones((B, T), bool))
        losses = Q * (0.25 * found.commitment + found.codebook_loss)
        return jnp.mean(found.values_BxTxD * ours(target)) + losses

    state = quantizer.codebooks
    of_model, of_z = jax.grad(loss, (0, 1))(quantizer.with_codebooks(None), ours(z))
    close(of_z, ours(z.grad))
    for q, level in enumerate(peer.quantizers):
        close(of_model.codes[...][q], level.codebook.weight.grad)
        for mine, conv in ((of_model.level_in, level.in_proj), (of_model.level_out, level.out_proj)):
            close(mine.weight[...][q], conv.weight.grad[..., 0].T)
            close(mine.bias[...][q], conv.bias.grad)
