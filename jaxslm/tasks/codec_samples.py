"""What a codec makes of held-out clips while it is trained: sound files, scores and a page to listen to."""

from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxslm.audio.io import decode_clip, encode_wav, resample
from jaxslm.codec.identity import n_levels_of
from jaxslm.codec.model import Codec
from jaxslm.codec.runner import CodecRunner
from jaxslm.data.records import Records
from jaxslm.evaluation.codec import default_levels, evaluate_codec, summary
from jaxslm.evaluation.codec_metrics import choose_metrics
from jaxslm.evaluation.reconstructions import Recording
from jaxslm.evaluation.spectrogram import draw_spectrogram, mel_db
from jaxslm.training.metrics import Picture, Sound

SECONDS = 10.0  # of each clip


def pick_recordings(records: Records, most: int, rate: int) -> list[Recording]:
    """The first held-out clips, or beginnings of them; from the training data if none is held out."""
    chosen: dict[str, list[Recording]] = {"heldout": [], "train": []}
    for utterance in records:
        if utterance.audio and len(chosen[utterance.split]) < most:
            clip = decode_clip(utterance.audio)
            samples_N = resample(clip.samples[: round(SECONDS * clip.rate)], clip.rate, rate)
            chosen[utterance.split].append(Recording(utterance.id, samples_N, utterance.text))
        if len(chosen["heldout"]) == most:
            break
    return chosen["heldout"] or chosen["train"]


def write_samples(codec: Codec, recordings: Sequence[Recording], folder: Path, step: int) -> str:
    """Writes to `folder` what `evaluate_codec` does; on its page, the curves of the metrics.jsonl beside the folder.

    Every process of the run calls it, and the first writes. A codec that was trained to do with fewer levels
    (quantizer.dropout) is heard at some numbers of them too.

    Returns:
      The scores as text for the terminal.
    """
    if not recordings:
        return "no clip to show samples of: the data have no audio"
    codec = jax.tree.map(whole_on_host, codec).folded()
    if jax.process_index():
        return ""
    levels = default_levels(codec) if codec.quantizer.config.dropout else [n_levels_of(codec)]
    installed, _ = choose_metrics()
    metrics = [name for name in installed if name != "visqol"]  # takes many seconds to start
    result = evaluate_codec(
        codec,
        folder.resolve().parent.name,
        recordings,
        folder,
        levels=levels,
        metrics=metrics,
        shown=len(recordings),
        speed=False,
        title=f"{folder.resolve().parent.name} at step {step}",
        curves=folder.parent / "metrics.jsonl",
        progress=False,
    )
    return summary(result)


def draw_media(codec: Codec, recordings: Sequence[Recording]) -> list[Sound | Picture]:
    """The clips and what the codec makes of them, as sounds and spectrograms; every process of the run calls it."""
    codec = jax.tree.map(whole_on_host, codec).folded()
    if jax.process_index():
        return []
    runner, rate = CodecRunner(codec), codec.config.sample_rate
    made = runner.decode(runner.encode([recording.samples for recording in recordings]))
    media: list[Sound | Picture] = []
    for (id, original_N, _), samples_N in zip(recordings, made, strict=True):
        loudest = float(mel_db(original_N, rate).max())
        for kind, sound_N in (("original", original_N), ("reconstruction", samples_N)):
            wav = encode_wav(np.where(np.isfinite(sound_N), sound_N, 0.0), rate)
            media.append(Sound(f"{id}/{kind}", wav, rate, len(sound_N)))
            media.append(Picture(f"{id}/{kind}", draw_spectrogram(mel_db(sound_N, rate), rate, loudest)))
    return media


def whole_on_host(array: jax.Array) -> np.ndarray:
    """On this host, also of an array that several processes hold."""
    if isinstance(array, jax.Array) and not array.is_fully_addressable:
        return multihost_utils.process_allgather(array, tiled=True)
    return np.asarray(array)
