"""The voice that is learnt within a minute: units of tones become those tones."""

import jax
import numpy as np
import pytest

from jaxslm.acoustic.mel_voice import MelVoice, learn
from jaxslm.audio import SAMPLE_RATE
from jaxslm.units.units import UnitSequence

TONES = (300.0, 700.0, 1500.0, 3200.0)
FACTS = dict(inventory=dict(name="tones", sha256="a" * 64))


def tones(ids, durations) -> np.ndarray:
    seconds = np.concatenate([np.arange(d * 320) / SAMPLE_RATE for d in durations])
    pitch = np.repeat([TONES[i] for i in ids], np.array(durations) * 320)
    return (0.3 * np.sin(2 * np.pi * pitch * seconds)).astype(np.float32)


@pytest.fixture(scope="module")
def voice():
    rng, pairs = np.random.default_rng(0), []
    for _ in range(12):
        ids = rng.permutation(4)
        durations = 6 + 4 * ids  # each unit has a length of its own
        pairs.append((UnitSequence(ids, durations, 50.0), tones(ids, durations)))
    return MelVoice(learn(pairs, 4, steps=60, seed=0, progress=False), FACTS)


def test_units_become_the_sounds_they_were_learnt_with(voice):
    ids, durations = [2, 0, 3, 1], [20, 20, 20, 20]
    (made,) = voice.speak([UnitSequence(ids, durations, 50.0)], [None], jax.random.key(0))
    assert made.shape == (80 * 320,) and made.dtype == np.float32
    for part, unit in zip(np.split(made, 4), ids, strict=True):
        spectrum = np.abs(np.fft.rfft(part * np.hanning(len(part))))
        loudest = np.fft.rfftfreq(len(part), 1 / SAMPLE_RATE)[spectrum.argmax()]
        assert abs(loudest / TONES[unit] - 1) < 0.1, (unit, loudest)


def test_units_last_as_long_as_in_the_data_and_speed_changes_that(voice):
    units = [UnitSequence([1, 3, 0], [1, 1, 1], 50.0)]
    how = dict(temperature=0.0, key=jax.random.key(0))
    (timed,) = voice.timed(units, speed=1.0, **how)
    np.testing.assert_allclose(timed.durations, [10, 18, 6], atol=2)
    (fast,) = voice.timed(units, speed=2.0, **how)
    assert abs(2 * fast.durations.sum() - timed.durations.sum()) <= 3


def test_units_that_are_one_a_frame_keep_their_frames(voice):
    facts = dict(inventory=FACTS["inventory"] | dict(deduplicated=False))
    how = dict(temperature=0.0, key=jax.random.key(0))
    (timed,) = MelVoice(voice.model, facts).timed([UnitSequence([1, 1, 3, 0], [1] * 4, 50.0)], speed=1.0, **how)
    assert timed.expand().tolist() == [1, 1, 3, 0]


def test_it_takes_on_no_voice_streams_nothing_and_knows_its_units(voice):
    with pytest.raises(ValueError, match="the voice: this run has one voice.*soundstorm"):
        voice.prompt("anna", "the voice")
    with pytest.raises(ValueError, match="--acoustic"):
        voice.check_stream()
    voice.check_units("a" * 64)
    with pytest.raises(ValueError, match=r"tones \(aaaaaaaaaaaa\), these are of bbbbbbbbbbbb"):
        voice.check_units("b" * 64)
