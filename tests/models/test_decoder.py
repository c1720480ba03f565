"""The decoder against itself where sameness is the claim: packed and separate rows, cache and no cache, remat."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxslm.models.decoder import Decoder, DecoderConfig, flops_per_token, init_cache, parameter_count
from tests.models.llama import packed_rows, tiny_config, tiny_decoder


@jax.jit
def hidden_of(model, batch, **kwargs):
    rest = {name: batch[name] for name in ("positions_BxT", "segment_ids_BxT")}
    return model(batch["tokens_BxT"], **rest, **kwargs)


def single_row(tokens):
    n = len(tokens)
    return dict(tokens_BxT=tokens[None], segment_ids_BxT=np.ones((1, n), np.int32), positions_BxT=np.arange(n)[None])


def test_packed_segments_equal_separate_rows():
    model = tiny_decoder(qk_norm=True)
    batch = packed_rows([[7, 12, 5], [24]], 24)
    packed = np.asarray(hidden_of(model, batch))
    for row in range(2):
        for segment in range(1, batch["segment_ids_BxT"][row].max() + 1):
            at = batch["segment_ids_BxT"][row] == segment
            alone = hidden_of(model, single_row(batch["tokens_BxT"][row][at]))[0]
            np.testing.assert_allclose(packed[row][at], alone, atol=2e-5)


@pytest.mark.parametrize("pieces", [[16], [9, 1, 1, 1, 4]])
def test_cache_gives_the_hidden_states_of_the_whole_row(pieces):
    model = tiny_decoder()
    batch = packed_rows([[16], [5, 11]], 16)
    whole = hidden_of(model, batch)
    cache = init_cache(model.config, 2, 20)  # longer than the row: the empty columns must not be seen
    step = jax.jit(lambda model, cache, piece: hidden_of(model, piece, cache=cache))
    start, parts = 0, []
    for n in pieces:
        part, cache = step(model, cache, {name: x[:, start : start + n] for name, x in batch.items()})
        parts.append(part)
        start += n
    assert int(cache.index) == 16
    np.testing.assert_allclose(jnp.concatenate(parts, axis=1), whole, atol=2e-5)


@pytest.mark.parametrize(
    "changes",
    [
        dict(remat="full"),
        dict(remat="dots"),
        dict(remat="context,attended"),
        dict(remat="query,host:context,host:gate"),
        dict(scan_unroll=3),
        dict(attention="blocked"),
    ],
)
def test_execution_options_do_not_change_the_gradient(changes):
    batch = packed_rows([[7, 12], [20]], 24)
    target = np.random.default_rng(1).standard_normal((2, 24, 32), np.float32)

    def gradient(model):
        return jax.jit(jax.grad(lambda m: jnp.sum(hidden_of(m, batch) * target)))(model)

    plain, changed = gradient(tiny_decoder()), gradient(tiny_decoder(**changes))
    for ours, expected in zip(jax.tree.leaves(changed), jax.tree.leaves(plain), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-4)


def test_bfloat16_computes_in_bfloat16_from_float32_parameters():
    model = tiny_decoder(dtype="bfloat16", initializer_range=0.05)
    batch = packed_rows([[20]], 20)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(model))
    hidden = hidden_of(model, batch)
    assert hidden.dtype == jnp.bfloat16 and model.logits(hidden).dtype == jnp.float32
    exact = hidden_of(tiny_decoder(initializer_range=0.05), batch)
    error = np.abs(np.asarray(hidden, np.float32) - exact).mean() / np.abs(exact).mean()
    assert 1e-4 < error < 2e-2


def test_counts_by_hand():
    config = tiny_config(n_layers=2, qkv_bias=True, qk_norm=True)
    attention = 32 * 32 + 2 * 32 * 16 + 32 * 32 + (32 + 16 + 16) + 2 * 8
    layer = attention + 3 * 32 * 64 + 2 * 32
    assert parameter_count(config) == 2 * 128 * 32 + 2 * layer + 32
    assert parameter_count(tiny_config(n_layers=2, qkv_bias=True, qk_norm=True, tied_embeddings=True)) == (
        128 * 32 + 2 * layer + 32
    )
    # Llama-2-7B: the count its authors publish, and the FLOPs a token of reference/jax_trainers.md section 2.
    llama = DecoderConfig(vocab_size=32000, d_model=4096, n_layers=32, n_heads=32, n_kv_heads=32, d_ff=11008)
    assert parameter_count(llama) == 6_738_415_616
    assert flops_per_token(llama, 4096) == pytest.approx(42.9e9, rel=0.01)


def test_initial_scale_and_independence_of_layers():
    model = jax.jit(Decoder, static_argnums=0)(tiny_config(d_model=64), jax.random.key(3))
    gate = np.asarray(model.layers.feed_forward.gate.weight[...])
    assert gate.std() == pytest.approx(0.02, rel=0.05)
    assert not np.allclose(gate[0], gate[1]) and not np.allclose(gate, model.layers.feed_forward.up.weight[...])


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(n_kv_heads=3), "n_heads=4 is not a multiple"),
        (dict(remat="some"), "model.remat='some' is not one of full"),
        (dict(remat="context,gates"), "'gates' is no tensor to keep .query"),
        (dict(remat="context,host:context"), "has 'context' twice"),
        (dict(attention="flash"), "model.attention='flash'"),
        (dict(dtype="float16"), "model.dtype"),
        (dict(head_dim=7), "must be even"),
    ],
)
def test_bad_config(changes, message):
    with pytest.raises(ValueError, match=message):
        tiny_config(**changes)
