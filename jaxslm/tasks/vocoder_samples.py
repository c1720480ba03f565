"""What a unit vocoder makes of held-out utterances while it is trained: sound files, scores and a page to listen to."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from jaxslm.acoustic.speaking import VocoderFacts, VocoderRunner
from jaxslm.acoustic.vocoder import Vocoder
from jaxslm.audio.io import encode_wav, write_wav
from jaxslm.data.code_files import check_inside
from jaxslm.data.unit_crops import UnitCrops
from jaxslm.evaluation.codec_metrics import TITLES, choose_metrics, measure_clip
from jaxslm.evaluation.listening_page import Clip, write_page
from jaxslm.evaluation.spectrogram import draw_spectrogram, mel_db
from jaxslm.tasks.codec_samples import SECONDS, whole_on_host
from jaxslm.training.metrics import Picture, Sound
from jaxslm.units.units import UnitSequence

ORIGINAL, RESYNTHESIS, PREDICTED = "original", "resynthesis", "predicted_durations"


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
    """Writes to `folder` the sounds as 16-bit WAV (original/, resynthesis/, predicted_durations/) and index.html, a
    page to compare them on, with the curves of the metrics.jsonl beside the folder.

    Every process of the run calls it, and the first writes. Returns the scores of the resynthesis as text.
    """
    vocoder = jax.tree.map(whole_on_host, vocoder).folded()
    if jax.process_index() or not recordings:
        return ""
    rate, made = facts.config.sample_rate, speak_all(vocoder, facts, recordings)
    names = [name for name in choose_metrics()[0] if name in ("mel", "stft", "pesq", "stoi")]
    clips, lines = [], []
    for i, each in enumerate(recordings):
        sounds = {name: all_of[i] for name, all_of in made.items()}
        for kind, samples_N in {ORIGINAL: each.samples, **sounds}.items():
            check_inside(folder / kind, each.id)
            write_wav(folder / kind / f"{each.id}.wav", np.where(np.isfinite(samples_N), samples_N, 0.0), rate)
        scores = measure_clip(each.samples, sounds[RESYNTHESIS], rate, names)
        text = f"{each.speaker}: {each.text}" if each.speaker else each.text
        clips.append(Clip(each.id, each.samples, sounds, rate, {RESYNTHESIS: scores}, text))
        told = (f"{TITLES[name]} {value:.3f}" for name, value in scores.values.items() if name not in scores.failures)
        lines.append(f"{each.id}: {', '.join(told)}")
    run = folder.resolve().parent
    page = dict(vocoder=f"units {facts.inventory}, {len(facts.speakers)} speakers", scores="\n".join(lines))
    title = f"{run.name} at step {step}: original and resynthesis"
    write_page(folder / "index.html", title, clips, facts=page, metrics=run / "metrics.jsonl")
    return "\n".join(lines)


def draw_media(vocoder: Vocoder, facts: VocoderFacts, recordings: Sequence[Spoken]) -> list[Sound | Picture]:
    """The utterances and what is made of their units, as sounds and spectrograms; every process of the run calls it."""
    vocoder = jax.tree.map(whole_on_host, vocoder).folded()
    if jax.process_index():
        return []
    rate, made = facts.config.sample_rate, speak_all(vocoder, facts, recordings)
    media: list[Sound | Picture] = []
    for i, each in enumerate(recordings):
        loudest = float(mel_db(each.samples, rate).max())
        for kind, sound_N in {ORIGINAL: each.samples, **{name: all_of[i] for name, all_of in made.items()}}.items():
            wav = encode_wav(np.where(np.isfinite(sound_N), sound_N, 0.0), rate)
            media.append(Sound(f"{each.id}/{kind}", wav, rate, len(sound_N)))
            media.append(Picture(f"{each.id}/{kind}", draw_spectrogram(mel_db(sound_N, rate), rate, loudest)))
    return media
