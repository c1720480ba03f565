"""Whole generations: against transformers.generate, and against themselves where only the batch differs."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxslm.generation.sampler import Sampling, generate
from jaxslm.generation.steps import in_computation_dtype, step, take_apart
from jaxslm.models.decoder import Decoder, init_cache
from tests.generation import models

LENGTHS = [3, 40, 11, 1]
REAL = np.arange(models.CONFIG.vocab_size) < models.VOCABULARY
KEY = jax.random.key(7)
GREEDY = Sampling(max_new_tokens=24, temperature=0)
DRAWN = Sampling(max_new_tokens=24, temperature=0.9, top_k=60, top_p=0.9, repetition_penalty=1.1)


def prompts(side: str, padding_id: int = 0):
    """(ids, mask) of prompts of LENGTHS, padded on one side."""
    rng = np.random.default_rng(0)
    ids_BxP = np.full((len(LENGTHS), max(LENGTHS)), padding_id)
    mask_BxP = np.zeros(ids_BxP.shape, bool)
    for row, length in enumerate(LENGTHS):
        where = slice(length) if side == "right" else slice(max(LENGTHS) - length, None)
        ids_BxP[row, where], mask_BxP[row, where] = rng.integers(0, models.VOCABULARY, length), True
    return ids_BxP, mask_BxP


def decode(ids_BxP, mask_BxP, sampling, *, key=KEY, allowed=REAL, stop=(), model=None):
    return generate(model or models.ours(), ids_BxP, mask_BxP, key, sampling, allowed_V=allowed, stop_ids=stop)


@pytest.mark.parametrize("penalty", [1.0, 1.3])
def test_greedy_equals_transformers(penalty):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    ids_BxP, mask_BxP = prompts("left")
    ours_BxN, lengths_B = decode(
        ids_BxP, mask_BxP, Sampling(max_new_tokens=24, temperature=0, repetition_penalty=penalty)
    )
    for row, length in enumerate(LENGTHS):  # one by one: transformers would penalise padding ids, too
        how = transformers.GenerationConfig(
            max_new_tokens=24,
            do_sample=False,
            repetition_penalty=penalty,
            suppress_tokens=np.flatnonzero(~REAL).tolist(),
            pad_token_id=0,
        )
        prompt = torch.tensor(ids_BxP[row : row + 1, -length:])
        expected = models.theirs().generate(prompt, attention_mask=torch.ones_like(prompt), generation_config=how)
        np.testing.assert_array_equal(ours_BxN[row], expected[0, length:].numpy())
    assert lengths_B.tolist() == [24] * len(LENGTHS)
    assert len({tuple(row) for row in ours_BxN.tolist()}) == len(LENGTHS)


def test_generate_takes_either_padding_side_and_any_padding_id():
    """It moves all padding to the right before it decodes: the same numbers, not only the same tokens."""
    right, _ = decode(*prompts("right"), DRAWN)
    left, _ = decode(*prompts("left", padding_id=-100), DRAWN)
    np.testing.assert_array_equal(left, right)


def test_a_cache_padded_on_the_left_answers_alike():
    """Prefill and one decoding step on rows that really are padded on the left, against those padded on the right."""
    model, rows, n_columns = models.ours(), np.arange(len(LENGTHS)), max(LENGTHS)
    answers = {}
    for side in ("left", "right"):
        ids_BxP, mask_BxP = prompts(side, padding_id=17)
        hidden, cache = model(
            jnp.asarray(ids_BxP),
            positions_BxT=jnp.asarray(np.maximum(mask_BxP.cumsum(axis=1) - 1, 0)),
            segment_ids_BxT=jnp.asarray(mask_BxP, jnp.int32),
            cache=init_cache(model.config, len(LENGTHS), n_columns + 1),
        )
        last = n_columns - 1 if side == "left" else np.array(LENGTHS) - 1
        blocks, caches = take_apart(model, cache)
        stepped, _ = step(model, blocks, caches, jnp.array([3, 5, 8, 13]), jnp.array(LENGTHS))
        answers[side] = model.logits(jnp.stack([hidden[rows, last], stepped]))
    np.testing.assert_allclose(answers["left"], answers["right"], rtol=1e-4, atol=1e-4)
    assert np.ptp(answers["left"], axis=1).max() > 1  # the rows do differ


def test_a_row_alone_equals_the_row_in_a_batch():
    ids_BxP, mask_BxP = prompts("right")
    batch_BxN, _ = decode(ids_BxP, mask_BxP, DRAWN)
    keys_B = jax.vmap(jax.random.fold_in, (None, 0))(KEY, jnp.arange(len(LENGTHS)))
    for row, length in list(enumerate(LENGTHS))[2:]:
        one, rows = slice(row, row + 1), slice(length)
        alone_1xN, _ = decode(ids_BxP[one, rows], mask_BxP[one, rows], DRAWN, key=keys_B[one])
        np.testing.assert_array_equal(alone_1xN[0], batch_BxN[row])


def test_draws_depend_on_the_key_alone():
    ids_BxP, mask_BxP = prompts("right")
    first, again = (decode(ids_BxP, mask_BxP, DRAWN)[0] for _ in range(2))
    other, _ = decode(ids_BxP, mask_BxP, DRAWN, key=jax.random.key(8))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any(axis=1).all()


def test_constrained_decoding_stays_in_the_mask():
    hot = Sampling(max_new_tokens=24, temperature=5.0, top_p=1.0)
    allowed = np.zeros_like(REAL)
    allowed[[5, 17, 130, 131, 299]] = True
    tokens_BxN, lengths_B = decode(*prompts("right"), hot, allowed=allowed)
    assert set(tokens_BxN.ravel().tolist()) == {5, 17, 130, 131, 299}
    assert lengths_B.tolist() == [24] * len(LENGTHS)


@pytest.mark.parametrize("sampling", [GREEDY, DRAWN, Sampling(max_new_tokens=24, temperature=5.0, top_p=1.0)])
def test_what_is_allowed_may_depend_on_the_step(sampling):
    """Three masks in turn, one of a single id; the same mask three times is the mask."""
    masks = np.zeros((3, len(REAL)), bool)
    masks[0, 5:9], masks[1, 140:200], masks[2, 299] = True, True, True
    tokens_BxN, lengths_B = decode(*prompts("right"), sampling, allowed=masks)
    assert all(masks[n % 3, token] for tokens_N in tokens_BxN.tolist() for n, token in enumerate(tokens_N))
    assert lengths_B.tolist() == [24] * len(LENGTHS) and len(set(tokens_BxN[:, 1::3].ravel().tolist())) > 3
    once, thrice = (
        decode(*prompts("right"), sampling, allowed=allowed)[0] for allowed in (REAL, np.tile(REAL, (3, 1)))
    )
    np.testing.assert_array_equal(once, thrice)


def test_a_masked_step_is_drawn_from_the_softmax_of_its_ids():
    """Second tokens, whose ids differ from the first's, in the shares that the logits give them."""
    prompt, n = prompts("right")[0][0, :3], 3_000
    masks = np.zeros((2, len(REAL)), bool)
    masks[0, 17], masks[1, [3, 130, 299]] = True, True
    how = Sampling(max_new_tokens=2, temperature=2.0, top_p=1.0)
    tokens_BxN, _ = decode(np.tile(prompt, (n, 1)), np.ones((n, 3)), how, allowed=masks)
    ids_1xT = jnp.asarray([[*prompt, 17]], jnp.int32)
    hidden = models.ours()(ids_1xT, positions_BxT=jnp.arange(4)[None], segment_ids_BxT=jnp.ones_like(ids_1xT))
    logits = np.asarray(models.ours().logits(hidden[0, -1]), np.float64)[[3, 130, 299]] / 2.0
    expected = n * np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    observed = [(tokens_BxN[:, 1] == token).sum() for token in (3, 130, 299)]
    assert sum(observed) == n and (tokens_BxN[:, 0] == 17).all()
    assert np.abs(observed - expected).max() < 5 * np.sqrt(n) / 2


@pytest.mark.parametrize("sampling", [GREEDY, DRAWN])
def test_nothing_is_drawn_from_logits_that_are_not_finite(sampling):
    broken = jax.tree.map(lambda leaf: leaf.at[...].set(jnp.nan), models.ours())
    with pytest.raises(ValueError, match="logits that are not finite"):
        decode(*prompts("right"), sampling, model=broken)


def test_rows_end_at_stop_ids():
    ids_BxP, mask_BxP = prompts("right")
    free_BxN, _ = decode(ids_BxP, mask_BxP, GREEDY)
    stop = {int(free_BxN[0, 0]), int(free_BxN[1, 9])}
    tokens_BxN, lengths_B = decode(ids_BxP, mask_BxP, GREEDY, stop=tuple(stop))
    for free_N, tokens_N, length in zip(free_BxN.tolist(), tokens_BxN.tolist(), lengths_B.tolist(), strict=True):
        expected = next((n for n, token in enumerate(free_N) if token in stop), 24)
        assert length == expected
        assert tokens_N == free_N[: expected + 1] + [-1] * (23 - expected)
    assert lengths_B[0] == 0 and min(lengths_B) < max(lengths_B)


def test_a_stop_id_outside_the_mask_is_never_drawn():
    ids_BxP, mask_BxP = prompts("right")
    free_BxN, _ = decode(ids_BxP, mask_BxP, GREEDY)
    stop = int(free_BxN[0, 0])
    allowed = REAL & (np.arange(len(REAL)) != stop)
    tokens_BxN, lengths_B = decode(ids_BxP, mask_BxP, GREEDY, allowed=allowed, stop=(stop,))
    assert (tokens_BxN != stop).all() and lengths_B.tolist() == [24] * len(LENGTHS)


def test_tokens_follow_the_exact_softmax():
    """First tokens of 4,000 equal prompts against transformers' probabilities in float64."""
    torch = pytest.importorskip("torch")
    prompt = prompts("right")[0][0, :3]
    with torch.inference_mode():
        logits_V = models.theirs()(torch.tensor(prompt[None])).logits[0, -1].double().numpy()
    expected_V = np.where(REAL, np.exp((logits_V - logits_V.max()) / 2.0), 0)
    tokens_BxN, _ = decode(
        np.tile(prompt, (4_000, 1)), np.ones((4_000, 3)), Sampling(max_new_tokens=1, temperature=2.0, top_p=1.0)
    )
    counts_V = np.bincount(tokens_BxN.ravel(), minlength=len(REAL))
    expected_V *= counts_V.sum() / expected_V.sum()
    common = expected_V >= 5  # the rarer ids together make one class
    observed = np.append(counts_V[common], counts_V[~common].sum())
    expected = np.append(expected_V[common], expected_V[~common].sum())
    assert common.sum() > 20
    assert stats.chisquare(observed, expected).pvalue > 0.01


@pytest.mark.parametrize(
    "change, message",
    [
        ({"mask_BxP": np.zeros((1, 3))}, "no tokens"),
        ({"mask_BxP": np.ones((1, 4))}, "one \\[B, P\\] shape"),
        ({"ids_BxP": np.full((1, 3), 384)}, "the model has 384"),
        ({"allowed": np.zeros_like(REAL)}, "must mark some"),
        ({"allowed": REAL[:300]}, "must mark some"),
        ({"allowed": np.stack([REAL, np.zeros_like(REAL)])}, "must mark some"),
    ],
)
def test_wrong_arguments_are_named(change, message):
    arguments = {"ids_BxP": np.ones((1, 3)), "mask_BxP": np.ones((1, 3)), "allowed": REAL} | change
    with pytest.raises(ValueError, match=message):
        decode(sampling=GREEDY, **arguments)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_weights_cast_beforehand_give_the_same_tokens(dtype):
    shape = dataclasses.replace(models.CONFIG, dtype=dtype, qkv_bias=True, qk_norm=True)
    model = Decoder(dataclasses.replace(shape, initializer_range=0.2), jax.random.key(3))
    cast = in_computation_dtype(model)
    assert {leaf.dtype for leaf in jax.tree.leaves(cast)} == {jnp.dtype(dtype)}
    for sampling in (GREEDY, DRAWN):
        expected, _ = decode(*prompts("right"), sampling, model=model)
        np.testing.assert_array_equal(decode(*prompts("right"), sampling, model=cast)[0], expected)
    assert len(np.unique(expected)) > 10
