"""What the acoustic stages are told, as vocabulary ids; see data/acoustic_layouts.py for the formats.

T frames, Q codes of a frame.
"""

import numpy as np

from jaxslm.vocabulary import Vocabulary


def coarse_prefix(unit_ids_T: np.ndarray, vocabulary: Vocabulary) -> list[int]:
    """`<s>[Frames]` units `[Coarse]`, for one unit, from 0 on, for each frame of the encoder."""
    units = np.asarray(unit_ids_T) + vocabulary.block("units").first
    return [vocabulary.bos_id, vocabulary.id("[Frames]"), *units.tolist(), vocabulary.id("[Coarse]")]


def fine_prefix(coarse_TxQ: np.ndarray, vocabulary: Vocabulary) -> list[int]:
    """`<s>[Coarse]` codes `[Fine]`, for the first codes of each frame."""
    codes = vocabulary.code_ids(coarse_TxQ).tolist()
    return [vocabulary.bos_id, vocabulary.id("[Coarse]"), *codes, vocabulary.id("[Fine]")]
