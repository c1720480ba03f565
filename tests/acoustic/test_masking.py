"""What is hidden from the masked stage while it learns."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxslm.acoustic.masking import draw_masks

B, T, Q = 4000, 20, 4
FRAMES = np.random.default_rng(0).integers(1, T + 1, B)


def masks(**options):
    return draw_masks(jax.random.split(jax.random.key(0), B), jnp.asarray(FRAMES), T, Q, **options)


def test_levels_below_are_known_levels_above_hidden_and_the_prompt_always_known():
    drawn = masks()
    level_B, prompt_B, known, learnt = map(np.asarray, drawn)
    frame_T, real_BxT = np.arange(T), np.arange(T) < FRAMES[:, None]
    prompt_BxT = frame_T < prompt_B[:, None]
    behind_BxT = real_BxT & ~prompt_BxT
    for q in range(Q):
        below, above = (level_B > q)[:, None], (level_B < q)[:, None]
        assert known[..., q][prompt_BxT | (behind_BxT & below)].all()
        assert not known[..., q][behind_BxT & above].any()
        at = behind_BxT & (level_B == q)[:, None]
        np.testing.assert_array_equal(known[..., q][at], ~learnt[at])
    assert not learnt[~behind_BxT].any() and learnt.any(axis=1).all()


def test_levels_prompts_and_shares_are_drawn_as_published():
    level_B, prompt_B, _, learnt = map(np.asarray, masks())
    np.testing.assert_allclose(np.bincount(level_B, minlength=Q) / B, 1 / Q, atol=0.03)
    assert (prompt_B < FRAMES).all()
    full = FRAMES == T
    np.testing.assert_allclose(prompt_B[full].mean(), (T - 1) / 2, rtol=0.15)  # t ~ U(0, T - 1)
    long = (T - prompt_B >= 15) & full
    shares = learnt[long].sum(axis=1) / (T - prompt_B[long])
    np.testing.assert_allclose(shares.mean(), 2 / np.pi, atol=0.06)  # the mean of cos u, u ~ U(0, pi / 2)
    assert shares.min() < 0.2 and shares.max() == 1


def test_prompts_are_dropped():
    kept, dropped = np.asarray(masks().prompt_B), np.asarray(masks(prompt_dropout=0.5).prompt_B)
    longer = FRAMES > 1
    assert 0.4 < (dropped[longer & (kept > 0)] == 0).mean() < 0.6
    assert not np.asarray(masks(prompt_dropout=1.0).prompt_B).any()


def test_a_clip_without_frames_teaches_nothing():
    drawn = draw_masks(jax.random.split(jax.random.key(0)), jnp.array([0, 3]), 5, Q)
    assert not drawn.learnt_BxT[0].any() and drawn.learnt_BxT[1].any()
