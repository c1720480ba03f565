"""How alike two voices sound, by the speaker encoder of the package Resemblyzer (GE2E, Wan et al. 2018)."""

import importlib.util
from collections.abc import Callable

import numpy as np

from jaxslm.audio.io import Clip
from jaxslm.evaluation.perceptual import Scores, measure

METRIC = "speaker"
Encoder = Callable[[np.ndarray, int], np.ndarray]


def encoder() -> tuple[Encoder | None, str]:
    """(samples [N] and their rate to an embedding of norm 1, "") or (None, what to install)."""
    if importlib.util.find_spec("resemblyzer") is None:
        return None, "speaker similarity needs resemblyzer: pip install resemblyzer 'setuptools<81'"
    from resemblyzer import VoiceEncoder, preprocess_wav

    network = VoiceEncoder("cpu", verbose=False)
    return lambda samples_N, rate: network.embed_utterance(preprocess_wav(samples_N, rate)), ""


def measure_speaker(encode: Encoder, sound_N: np.ndarray, rate: int, voice: Clip) -> Scores:
    """{"speaker": cosine of the embeddings of a sound and of a recording}; a failure where one has no speech."""

    def similarity(sound_N: np.ndarray, _: np.ndarray, rate: int) -> float:
        return float(encode(sound_N, rate) @ encode(voice.samples, voice.rate))

    return measure({METRIC: similarity}, sound_N, sound_N, rate)
