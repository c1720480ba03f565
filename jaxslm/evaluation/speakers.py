"""How alike two voices sound, by the speaker encoder of the package Resemblyzer (GE2E, Wan et al. 2018)."""

import importlib.util
from collections.abc import Callable

import numpy as np

METRIC = "speaker"
_CURE = "speaker likeness needs resemblyzer: pip install resemblyzer 'setuptools<81'"

Encoder = Callable[[np.ndarray, int], np.ndarray]


def encoder() -> tuple[Encoder | None, str]:
    """(samples [N] and their rate to an embedding of norm 1, "") or (None, what to install).

    The encoder raises ValueError where it finds no speech.
    """
    if importlib.util.find_spec("resemblyzer") is None:
        return None, _CURE
    try:
        from resemblyzer import VoiceEncoder, preprocess_wav
    except ImportError as error:  # its voice detector needs an old setuptools
        return None, f"{_CURE} ({error})"
    network = VoiceEncoder("cpu", verbose=False)

    def encode(samples_N: np.ndarray, rate: int) -> np.ndarray:
        if not len(speech_N := preprocess_wav(samples_N, rate)):
            raise ValueError("no speech was found")
        return network.embed_utterance(speech_N)

    return encode, ""


def likeness(voice_E: np.ndarray | ValueError, encode: Encoder) -> Callable[[np.ndarray, np.ndarray, int], float]:
    """A metric of a sound: the cosine of its embedding and that of a voice; it raises what the latter is no embedding
    for.
    """

    def metric(_: np.ndarray, sound_N: np.ndarray, rate: int) -> float:
        if isinstance(voice_E, ValueError):
            raise voice_E
        return float(encode(sound_N, rate) @ voice_E)

    return metric
