"""Sounds that a run makes of held-out utterances, beside the original: WAV files, scores, a page, TensorBoard."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from jaxslm.audio.io import encode_wav, write_wav
from jaxslm.data.code_files import check_inside
from jaxslm.evaluation.codec_metrics import TITLES, choose_metrics, measure_clip
from jaxslm.evaluation.listening_page import Clip, write_page
from jaxslm.evaluation.reconstructions import Recording
from jaxslm.evaluation.spectrogram import draw_spectrogram, mel_db
from jaxslm.training.metrics import Picture, Sound

ORIGINAL = "original"
_QUICK = ("mel", "stft", "pesq", "stoi")  # metrics that do not take long


def write_sounds(
    originals: Sequence[Recording],
    made: Mapping[str, Sequence[np.ndarray]],
    rate: int,
    folder: Path,
    step: int,
    *,
    scored: Sequence[str],
    facts: Mapping[str, str],
) -> str:
    """Writes FOLDER/NAME/ID.wav, 16-bit, of the originals and of what was made, and index.html to compare them on, with
    the curves of the metrics.jsonl beside the folder.

    Args:
      made: by name, a sound of each original.
      scored: names whose sounds are as long as the originals.
      facts: lines for the head of the page.
    Returns:
      What was written and the mean scores, as text for the terminal.
    """
    names, clips, lines = [name for name in choose_metrics()[0] if name in _QUICK], [], []
    for i, (id, original_N, text) in enumerate(originals):
        sounds = {name: sounds[i] for name, sounds in made.items()}
        for kind, samples_N in {ORIGINAL: original_N, **sounds}.items():
            check_inside(folder / kind, id)
            write_wav(folder / kind / f"{id}.wav", np.where(np.isfinite(samples_N), samples_N, 0.0), rate)
        scores = {name: measure_clip(original_N, sounds[name], rate, names) for name in scored}
        clips.append(Clip(id, original_N, sounds, rate, scores, text))
    for name in scored:
        told = []
        for metric in names:
            found = [c.scores[name].values[metric] for c in clips if metric not in c.scores[name].failures]
            told += [f"{TITLES[metric]} {np.mean(found):.3f}"] if found else []
        lines.append(f"{name:<{max(map(len, scored))}}  {', '.join(told)}")
    run = folder.resolve().parent
    title = f"{run.name} at step {step}"
    write_page(
        folder / "index.html", title, clips, facts={**facts, "scores": "\n".join(lines)}, metrics=run / "metrics.jsonl"
    )
    kinds = ", ".join((ORIGINAL, *made))
    heard = [f"to hear ({kinds}): {folder / ORIGINAL / f'{id}.wav'}" for id, *_ in originals]
    return "\n".join([*lines, *heard, f"page: {folder / 'index.html'}"])


def as_media(
    originals: Sequence[Recording], made: Mapping[str, Sequence[np.ndarray]], rate: int
) -> list[Sound | Picture]:
    """The same as sounds and spectrograms, each clip's of one scale, for TensorBoard."""
    media: list[Sound | Picture] = []
    for i, (id, original_N, _) in enumerate(originals):
        loudest = float(mel_db(original_N, rate).max())
        for kind, sound_N in {ORIGINAL: original_N, **{name: sounds[i] for name, sounds in made.items()}}.items():
            wav = encode_wav(np.where(np.isfinite(sound_N), sound_N, 0.0), rate)
            media.append(Sound(f"{id}/{kind}", wav, rate, len(sound_N)))
            media.append(Picture(f"{id}/{kind}", draw_spectrogram(mel_db(sound_N, rate), rate, loudest)))
    return media
