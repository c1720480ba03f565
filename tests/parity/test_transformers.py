"""Logits of the decoder against stock `transformers` models with the same weights."""

import jax
import numpy as np
import pytest

from jaxslm.benchmarks.llama_weights import load_llama, random_llama_state
from jaxslm.models.decoder import Decoder
from tests.models.llama import packed_rows, tiny_config

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

LLAMA3_SCALING = dict(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=64)


def peer(kind: str, **changes):
    torch.manual_seed(0)
    shape = dict(
        vocab_size=128, hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, rms_norm_eps=1e-5, initializer_range=0.2,
        tie_word_embeddings=False, attn_implementation="eager",
    )  # fmt: skip
    config = getattr(transformers, f"{kind}Config")(**(shape | changes))
    model = getattr(transformers, f"{kind}ForCausalLM")(config).eval()
    with torch.no_grad():  # norms and biases start at 1 and 0, where a wrong name would not show
        for name, parameter in model.named_parameters():
            if "norm" in name or "bias" in name:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return model


@jax.jit
def logits_of(model, batch):
    hidden = model(batch["tokens_BxT"], positions_BxT=batch["positions_BxT"], segment_ids_BxT=batch["segment_ids_BxT"])
    return model.logits(hidden)


def rope(**scaling):
    return dict(rope_parameters=dict(rope_theta=10_000.0, **scaling))


CASES = {
    "llama": ("Llama", {}, {}),
    "llama3": ("Llama", rope(rope_type="llama3", **LLAMA3_SCALING), dict(rope_scaling=LLAMA3_SCALING)),
    "llama tied": ("Llama", dict(tie_word_embeddings=True), dict(tied_embeddings=True)),
    "llama theta": ("Llama", dict(rope_parameters=dict(rope_theta=5e5, rope_type="default")), dict(rope_theta=5e5)),
    "llama mha": ("Llama", dict(num_key_value_heads=4), dict(n_kv_heads=4)),
    "qwen2": ("Qwen2", {}, dict(qkv_bias=True)),
    "qwen3": ("Qwen3", dict(head_dim=16), dict(qk_norm=True, head_dim=16)),
}


@pytest.mark.parametrize("case", CASES)
def test_logits(case):
    kind, theirs, ours = CASES[case]
    reference = peer(kind, **theirs)
    state = {name: value.detach().numpy() for name, value in reference.state_dict().items()}
    abstract = jax.eval_shape(lambda key: Decoder(tiny_config(**ours), key), jax.random.key(0))
    model = load_llama(abstract, state)
    batch = packed_rows([[200], [200]], 200)
    with torch.no_grad():
        expected = reference(torch.tensor(batch["tokens_BxT"]).long()).logits.numpy()
    assert np.abs(expected).max() > 1
    np.testing.assert_allclose(logits_of(model, batch), expected, rtol=1e-4, atol=1e-4)


def test_packed_logits():
    """Several documents in a row, as `transformers` itself separates them by restarting position ids."""
    reference = peer("Llama", attn_implementation="sdpa")
    state = {name: value.detach().numpy() for name, value in reference.state_dict().items()}
    model = load_llama(jax.eval_shape(lambda key: Decoder(tiny_config(), key), jax.random.key(0)), state)
    batch = packed_rows([[30, 50, 20], [64, 36]], 100)
    tokens, positions = (torch.tensor(batch[name]).long() for name in ("tokens_BxT", "positions_BxT"))
    with torch.no_grad():
        expected = reference(tokens, position_ids=positions, use_cache=False).logits.numpy()
    np.testing.assert_allclose(logits_of(model, batch), expected, rtol=1e-4, atol=1e-4)


def test_random_state_has_the_names_of_transformers():
    expected = {name: tuple(value.shape) for name, value in peer("Llama").state_dict().items()}
    assert {name: value.shape for name, value in random_llama_state(tiny_config(), 0).items()} == expected
