"""Whole clips by the coarse and the fine stage: a mapping that was learnt comes back, over any number of windows."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxslm.acoustic import autoregressive
from jaxslm.acoustic.autoregressive import OVERLAP, Prompt, coarse_to_fine, make_codes, next_window
from jaxslm.acoustic.frames import AcousticCrops, FrameRates
from tests.acoustic import toy_stages as toy


def clips(lengths, seed=5):
    """(clips of so many units, prompts of 2 units in the same voices)."""
    rng = np.random.default_rng(seed)
    voices = [i % toy.VOICES for i in range(len(lengths))]
    whole = [toy.clip(rng, n, voice) for n, voice in zip(lengths, voices, strict=True)]
    return whole, [toy.clip(rng, 2, voice) for voice in voices]


@pytest.mark.slow  # to train
def test_what_was_learnt_is_reproduced_over_several_windows():
    """Crops of 8 frames: clips of 8 to 66 frames behind prompts of 4, in the voice of the prompt to the end."""
    whole, prompts = clips([20, 7, 33, 4])
    stages = toy.trained("coarse"), toy.trained("fine")
    made = coarse_to_fine(*stages, [clip.units for clip in whole], prompts)
    for codes_TxQ, clip in zip(made, whole, strict=True):
        assert codes_TxQ.dtype == np.int32 and codes_TxQ.shape == clip.codes.shape
        assert (codes_TxQ == clip.codes).mean() > 0.97
    again = coarse_to_fine(*stages, [whole[0].units], prompts[:1])  # alone as among others
    np.testing.assert_array_equal(again[0], made[0])
    two_rows = coarse_to_fine(*stages, [clip.units for clip in whole], prompts, rows=2)
    for here, there in zip(two_rows, made, strict=True):
        np.testing.assert_array_equal(here, there)


@pytest.mark.slow
def test_a_voice_that_chance_chose_stays():
    whole, _ = clips([24] * 8)
    made = coarse_to_fine(
        toy.trained("coarse"), toy.trained("fine"), [clip.units for clip in whole], key=jax.random.key(3)
    )
    chosen = []
    for codes_TxQ, clip in zip(made, whole, strict=True):
        shares = [(codes_TxQ == toy.codes_of(clip.units, voice)).mean() for voice in range(toy.VOICES)]
        chosen.append(int(np.argmax(shares)))
        assert max(shares) > 0.95
    assert set(chosen) == set(range(toy.VOICES))


def test_every_code_is_of_its_level_whatever_the_model_says():
    """Random weights: `codes_of` asserts that each id lies in the block of its level."""
    whole, prompts = clips([9, 1])
    made = coarse_to_fine(toy.untrained("coarse"), toy.untrained("fine"), [c.units for c in whole], [prompts[0], None])
    assert [codes.shape for codes in made] == [(18, 3), (2, 3)]
    assert all(0 <= codes.min() and codes.max() < toy.K for codes in made)
    other = coarse_to_fine(
        toy.untrained("coarse"),
        toy.untrained("fine"),
        [c.units for c in whole],
        [prompts[0], None],
        key=jax.random.key(1),
    )
    assert not np.array_equal(made[0], other[0])


def test_windows_overlap_and_cover_everything():
    for window in (1, 2, 8, 150, 500):
        for n_frames in (1, 7, 8, 9, 400, 1234):
            for prompt in (0, 1, window // 2, window - 1):
                known, count = prompt, 0
                while known < n_frames:
                    first, stop = next_window(known, n_frames, window)
                    assert 0 <= first <= known < stop <= n_frames and stop - first <= window
                    if count and window > 1:  # begins with what the one before made
                        assert known - first == max(1, round(OVERLAP * window))
                    known, count = stop, count + 1
                assert known == max(prompt, n_frames)
    assert next_window(150, 2000, 500) == (0, 500)  # AudioLM's 3 s prompt is heard whole
    assert next_window(500, 2000, 500) == (350, 850)


def test_each_window_is_told_its_units_and_what_came_before(monkeypatch):
    """Golden prompts of two windows: `<s>[Frames]` 4 units `[Coarse]` and the codes of the frames that overlap."""
    stage, seen = toy.untrained("coarse"), []
    vocabulary = stage.vocabulary

    def fake(_, ids, mask, keys, sampling, *, allowed_V, stop_ids):
        seen.append([row[m].tolist() for row, m in zip(ids, mask, strict=True)])
        assert stop_ids == () and [np.flatnonzero(row).tolist() for row in allowed_V] == [
            [*range(7, 15)],
            [*range(15, 23)],
        ]
        tokens = [7, 15] * (sampling.max_new_tokens // 2)
        return np.array([tokens] * len(ids)), None

    monkeypatch.setattr(autoregressive, "generate", fake)
    units = np.array([0, 1, 2, 3, 3, 2])
    (made,) = make_codes(stage, [units], [np.array([[5, 6]])], n_frames=[12])
    frames, coarse = vocabulary.id("[Frames]"), vocabulary.id("[Coarse]")
    assert seen == [[[1, frames, 3, 4, 5, 6, coarse, 12, 21]], [[1, frames, 6, 6, 5, coarse, 7, 15, 7, 15]]]
    assert made.tolist() == [[5, 6]] + [[0, 0]] * 11


def test_prompt_ends_where_a_unit_ends():
    """25 units a second, 50 codes: a prompt of 3 codes and 2 units gives 2 codes, or all that follows would be late."""
    stage = toy.untrained("coarse")
    told, given = autoregressive._joined(
        stage, np.array([1, 2]), Prompt(np.array([0, 3]), toy.codes_of([0, 3], 0)[:3]), ""
    )
    assert told.tolist() == [0, 1, 2] and len(given) == 2


@pytest.mark.parametrize(
    ("units", "codes", "n_codes", "expected"),
    [
        (25.0, 50.0, 151, (75, 150)),
        (50.0, 50.0, 151, (151, 151)),
        (50.0, 12.5, 37, (148, 37)),
        (50.0, 75.0, 225, (150, 225)),
        (50.0, 75.0, 224, (148, 222)),
        (24.99, 50.0, 151, (75, 150)),
        (50.0, 2000.0, 20, (0, 0)),
    ],
)
def test_where_units_and_codes_end_together(units, codes, n_codes, expected):
    assert tuple(autoregressive._whole_frames(FrameRates(units, codes), n_codes)) == expected


def bad(change: str):
    whole, prompts = clips([5])
    units, prompt = whole[0].units, prompts[0]
    coarse, fine = toy.untrained("coarse"), toy.untrained("fine")
    if change == "prompt below a frame":
        prompt = Prompt(prompt.units, prompt.codes[:0])
    elif change == "prompt as long as a window":
        prompt = clips([4])[0][0]
    elif change == "deduplicated prompt":
        prompt = Prompt(np.zeros(2, int), np.zeros((20, toy.Q), int))
    elif change == "prompt of fewer levels":
        prompt = Prompt(prompt.units, prompt.codes[:, :2])
    elif change == "prompt code out of range":
        prompt = Prompt(prompt.units, prompt.codes + toy.K)
    elif change == "unit out of range":
        units = units + toy.N_UNITS
    elif change == "no units":
        units = units[:0]
    elif change == "stages swapped":
        coarse, fine = fine, coarse
    elif change == "another codec":
        fine = toy.untrained("fine", codec=toy.CODEC | dict(name="other", sha256="d" * 64))
    elif change == "other coarse levels":
        fine = toy.untrained("fine", crops=dataclasses.replace(toy.CROPS, coarse_levels=1))
    return coarse, fine, [units], [prompt]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("prompt below a frame", "clip 0: the prompt is shorter than a frame"),
        ("prompt as long as a window", "prompt of 0.16 s leaves nothing of the 0.16 s"),
        ("deduplicated prompt", "units last 0.08 s and its codes 0.40 s.*UnitSequence.expand"),
        ("prompt of fewer levels", r"\(4, 2\): give \[T, 3\]"),
        ("prompt code out of range", "run from 0 to 7"),
        ("unit out of range", "indices from 0 to 3 of the inventory toy units"),
        ("no units", "clip 0: 0 units are shorter than a frame"),
        ("stages swapped", "the coarse stage that was given is a 'fine' stage"),
        ("another codec", r"codec toy \(cccccccccccc..\), the fine one of other \(dddddddddddd"),
        ("other coarse levels", "coarse_levels is 2 in the coarse stage and 1 in the fine one"),
    ],
)
def test_bad_input_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        coarse_to_fine(*bad(change))


def test_as_many_prompts_as_clips_and_an_empty_one_is_none():
    whole, prompts = clips([3])
    stages = toy.untrained("coarse"), toy.untrained("fine")
    with pytest.raises(ValueError, match="2 prompts for 1 clips"):
        coarse_to_fine(*stages, [whole[0].units], prompts * 2)
    empty = Prompt(np.zeros(0, int), np.zeros((0, toy.Q), int))
    with_empty, without = (coarse_to_fine(*stages, [whole[0].units], [p]) for p in (empty, None))
    np.testing.assert_array_equal(with_empty[0], without[0])


def test_logits_that_are_not_numbers_are_refused():
    stage = toy.untrained("coarse")
    broken = jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.nan), stage.model)
    with pytest.raises(ValueError, match="logits that are not finite.*earlier checkpoint"):
        make_codes(stage._replace(model=broken), [np.array([1, 2])], [np.zeros((0, 2), np.int32)], n_frames=[4])


def test_crops_are_at_least_a_frame():
    assert AcousticCrops(seconds=1e-3).frames(toy.RATES) == 1 and AcousticCrops(seconds=10.0).frames(toy.RATES) == 500
