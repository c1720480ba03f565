"""Windows over clips of any length: what each shows the model, and what is joined of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxslm.acoustic import parallel
from jaxslm.acoustic.masked import MaskedConfig, MaskedModel
from jaxslm.acoustic.parallel import ParallelStage, Prompt
from jaxslm.acoustic.unmasking import Unmasking

U, Q, K, WINDOW = 10, 2, 12, 32
CONFIG = MaskedConfig(n_units=U, n_levels=Q, codebook_size=K, d_model=16, n_layers=1, n_heads=2, d_ff=32, conv_kernel=3)
KEY = jax.random.key(0)


def stage(**options) -> ParallelStage:
    return ParallelStage(MaskedModel(CONFIG, jax.random.key(1)), WINDOW, Unmasking(passes=(2, 1)), **options)


def wanted(units_T: np.ndarray) -> np.ndarray:
    return (units_T[:, None] + 5 * np.arange(Q)) % K


@pytest.fixture
def windows(monkeypatch):
    """A model that knows the codes, but for the last two frames of a window, which it gets wrong; what it was shown."""
    shown = []

    def fill(model, units_BxT, frames_B, codes_BxTxQ, known_B, keys_B, settings):
        sizes = list(enumerate(zip(frames_B, known_B, strict=True)))
        shown.extend((units_BxT[b, :n].copy(), codes_BxTxQ[b, :k].copy()) for b, (n, k) in sizes)
        made = np.stack([wanted(units_T) for units_T in units_BxT])
        for b, (n, k) in sizes:
            made[b, max(k, n - 2) : n] = K - 1
            made[b, :k] = codes_BxTxQ[b, :k]
        return made

    monkeypatch.setattr(parallel, "_unmask", fill)
    return shown


def prompt(n: int) -> Prompt:
    return Prompt(np.full(n, 9), np.full((n, Q), 7))


def test_long_clips_are_joined_of_windows_whose_ends_are_made_again(windows):
    rng = np.random.default_rng(0)
    units = [rng.integers(0, U, n).astype(np.int32) for n in (5, 100, 32, 71)]
    prompts = [prompt(6), prompt(6), prompt(0), prompt(0)]
    made = stage(overlap=8, ahead=4)(units, prompts, KEY)
    for units_T, codes_TxQ in zip(units, made, strict=True):
        assert codes_TxQ.shape == (len(units_T), Q)
        np.testing.assert_array_equal(codes_TxQ[:-2], wanted(units_T)[:-2])  # no trace of a window's wrong end
        assert (codes_TxQ[-2:] == K - 1).all()  # the end of the clip itself is that of the last window
    assert all(len(window) <= WINDOW for window, _ in windows)
    of_second = [(w, known) for w, known in windows if len(known) >= 6 and (w[:6] == 9).all() and len(w) > 11]
    assert len(of_second) > 3
    for window, known in of_second:
        assert (known[:6] == 7).all()  # the voice stands in front of every window
        np.testing.assert_array_equal(known[6:], wanted(window[6 : len(known)]))
    assert sum(len(known) == 6 + 8 for _, known in of_second) == len(of_second) - 1  # and what came before


def test_a_stream_gives_what_the_whole_gives_a_chunk_at_a_time(windows):
    units_T = np.random.default_rng(1).integers(0, U, 90).astype(np.int32)
    chunks = list(stage(overlap=8, ahead=4).stream(units_T, prompt(6), KEY, chunk=10))
    assert [len(chunk) for chunk in chunks[:-1]] == [10] * (len(chunks) - 1) and len(chunks) > 7
    np.testing.assert_array_equal(np.concatenate(chunks)[:-2], wanted(units_T)[:-2])


def test_a_clip_has_the_codes_it_has_alone():
    rng = np.random.default_rng(2)
    units = [rng.integers(0, U, n).astype(np.int32) for n in (20, 70, 40)]
    own = stage()
    together = own(units, [prompt(3), prompt(0), prompt(8)], KEY)
    alone = own(units[:1], [prompt(3)], KEY)
    np.testing.assert_array_equal(together[0], alone[0])
    again = own(units, [prompt(3), prompt(0), prompt(8)], KEY)
    assert all(np.array_equal(a, b) for a, b in zip(together, again, strict=True))
    other = own(units, [prompt(3), prompt(0), prompt(8)], jax.random.key(5))
    assert not all(np.array_equal(a, b) for a, b in zip(together, other, strict=True))


@pytest.mark.parametrize(
    "units, given, said",
    (
        ([3, U], prompt(0), "units from 3 to 10, but the stage knows 0 to 9"),
        ([-1], prompt(0), "units from -1"),
        ([], prompt(0), "no units to speak"),
        ([3], Prompt(np.array([4]), np.array([[0, K]])), "codes of the prompt from 0 to 12"),
        ([3], prompt(13), "a prompt of 13 frames for a window of 32: give at most 12"),
    ),
)
def test_what_the_stage_cannot_speak_is_refused(units, given, said):
    with pytest.raises(ValueError, match=said):
        stage()([np.array(units, np.int32)], [given], KEY)


def test_passes_of_other_levels_are_refused_when_it_is_opened():
    with pytest.raises(ValueError, match="give one number for each"):
        ParallelStage(MaskedModel(CONFIG, jax.random.key(0)), 32, Unmasking(passes=(1,) * (CONFIG.n_levels + 1)))


def test_a_model_that_diverged_is_named():
    model = MaskedModel(CONFIG, jax.random.key(1))
    model.norm.scale[...] = model.norm.scale[...] * jnp.nan
    broken = ParallelStage(model, WINDOW, Unmasking(passes=(2, 1)))
    with pytest.raises(FloatingPointError, match="not finite.*earlier checkpoint"):
        broken([np.array([1, 2])], [prompt(0)], KEY)
