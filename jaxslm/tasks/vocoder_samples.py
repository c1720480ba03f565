"""What a unit vocoder makes of held-out utterances while it is trained: sound files, scores and a page to listen to."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from jaxslm.acoustic.speaking import VocoderFacts, VocoderRunner
from jaxslm.acoustic.vocoder import Vocoder
from jaxslm.data.unit_crops import UnitCrops
from jaxslm.evaluation.reconstructions import Recording
from jaxslm.tasks.codec_samples import SECONDS, whole_on_host
from jaxslm.tasks.sounds import as_media, write_sounds
from jaxslm.training.metrics import Picture, Sound
from jaxslm.units.units import UnitSequence

RESYNTHESIS, PREDICTED = "resynthesis", "predicted_durations"


class Spoken(NamedTuple):
    """A held-out utterance, samples [N] at the vocoder's rate, with its units."""

    id: str
    text: str
    speaker: str
    samples: np.ndarray
    units: UnitSequence


def pick_recordings(heldout: UnitCrops, most: int) -> list[Spoken]:
    """Held-out utterances, or beginnings of them, drawn by the seed."""
    frames = round(SECONDS * heldout.sample_rate / heldout.hop)
    return [Spoken(*each) for each in heldout.whole(most, frames)]


def speak_all(vocoder: Vocoder, facts: VocoderFacts, recordings: Sequence[Spoken]) -> dict[str, list[np.ndarray]]:
    """Sounds of the units, each by its own speaker, with their own durations and, if there is a predictor, with its."""
    runner, units = VocoderRunner(vocoder, facts), [each.units for each in recordings]
    speakers = [each.speaker if facts.speakers else "" for each in recordings]
    made = {RESYNTHESIS: runner.speak(units, speaker=speakers)}
    if vocoder.durations is not None:
        made[PREDICTED] = runner.speak(units, speaker=speakers, predicted=True)
    return made


def write_samples(vocoder: Vocoder, facts: VocoderFacts, recordings: Sequence[Spoken], folder: Path, step: int) -> str:
    """Writes sounds, scores and a page to `folder`, see `write_sounds`; every process calls it, and the first writes.

    Returns what was written, and the scores of the resynthesis, as text.
    """
    vocoder = jax.tree.map(whole_on_host, vocoder).folded()
    if jax.process_index() or not recordings:
        return ""
    made, about = speak_all(vocoder, facts, recordings), dict(units=facts.inventory, speakers=str(len(facts.speakers)))
    rate = facts.config.sample_rate
    return write_sounds(_originals(recordings), made, rate, folder, step, scored=(RESYNTHESIS,), facts=about)


def draw_media(vocoder: Vocoder, facts: VocoderFacts, recordings: Sequence[Spoken]) -> list[Sound | Picture]:
    """The utterances and what is made of their units, as sounds and spectrograms; every process of the run calls it."""
    vocoder = jax.tree.map(whole_on_host, vocoder).folded()
    if jax.process_index():
        return []
    return as_media(_originals(recordings), speak_all(vocoder, facts, recordings), facts.config.sample_rate)


def _originals(recordings: Sequence[Spoken]) -> list[Recording]:
    return [Recording(r.id, r.samples, f"{r.speaker}: {r.text}" if r.speaker else r.text) for r in recordings]
