"""Training formats of the acoustic stages (AudioLM, Borsos et al. 2022, section III): units to the first codes of each
frame, those to the others. The codes of level q, c of K, have an id of their own, q K + c of the block "codes".

  coarse  <s>[Frames][Hu3][Hu3][Hu7]..[Coarse] c(1,1) c(1,2)..c(1,Q') c(2,1)..
  fine    <s>[Coarse] c(1,1)..c(1,Q') c(2,1)..[Fine] c(1,Q'+1)..c(1,Q) c(2,Q'+1)..

Both are of a crop, drawn anew every epoch, and only what the stage makes counts for the loss. Nothing marks the end,
as the number of frames is known: the units are not deduplicated, one stands for each frame of the encoder. In AudioLM
they are, and the coarse stage finds out by itself how long each of them lasts.

N utterances, T frames of a crop, Q codes of a frame, Q' of them coarse.
"""

import numpy as np

from jaxslm.acoustic.frames import FrameRates
from jaxslm.acoustic.sequences import coarse_prefix, fine_prefix
from jaxslm.data.draws import draw_uniform
from jaxslm.data.segments import Layout, LayoutSettings, Segment
from jaxslm.data.token_index import EncodedUtterance, TokenIndex
from jaxslm.vocabulary import Vocabulary


def coarse(utterance: EncodedUtterance, vocabulary: Vocabulary, key, settings: LayoutSettings) -> list[Segment]:
    first, stop = _crop_of(utterance, key, settings)
    begin, end = utterance.rates.units_of(first, stop)
    units_T = np.repeat(utterance.unit_ids, utterance.durations)[begin:end]
    codes_TxQ = utterance.codes[first:stop, : settings.acoustic.coarse_levels]
    return _stage(coarse_prefix(units_T, vocabulary), vocabulary.code_ids(codes_TxQ), "speech")


def fine(utterance: EncodedUtterance, vocabulary: Vocabulary, key, settings: LayoutSettings) -> list[Segment]:
    (first, stop), n_coarse = _crop_of(utterance, key, settings), settings.acoustic.coarse_levels
    codes_TxQ = utterance.codes[first:stop]
    made = vocabulary.code_ids(codes_TxQ[:, n_coarse:], first_level=n_coarse)
    return _stage(fine_prefix(codes_TxQ[:, :n_coarse], vocabulary), made, "codes")


def _stage(prefix: list[int], made: np.ndarray, told: str) -> list[Segment]:
    start, content, end = prefix[:2], prefix[2:-1], prefix[-1:]
    return [
        Segment("marker", start, 0.0),
        Segment(told, content, 0.0),
        Segment("marker", end, 0.0),
        Segment("codes", made),
    ]


def _crop_of(utterance: EncodedUtterance, key, settings: LayoutSettings) -> tuple[int, int]:
    n = frames_covered(utterance.rates, int(utterance.durations.sum()), len(utterance.codes))
    first, stop = draw_crop(n, settings.acoustic.frames(utterance.rates), key)
    return int(first), int(stop)


def frames_covered(rates: FrameRates, n_unit_frames, n_code_frames):
    """Frames of codes that have units, too: encoders and codecs may end a little apart. int64, as the arguments are."""
    return np.minimum(rates.n_codes(n_unit_frames), n_code_frames)


def draw_crop(n_frames, most: int, key) -> tuple[np.ndarray, np.ndarray]:
    """(first, stop) of a crop of `most` frames, or all if there are fewer, somewhere in `n_frames`, each as likely."""
    size = np.minimum(n_frames, most)
    first = (draw_uniform(key, 0) * (n_frames - size + 1)).astype(np.int64)
    return first, first + size


def _coarse_lengths(index: TokenIndex, vocabulary, items_N, keys_N, settings: LayoutSettings) -> np.ndarray:
    n_N = frames_covered(index.rates, index.n_unit_frames[items_N], index.n_frames[items_N])
    first_N, stop_N = draw_crop(n_N, settings.acoustic.frames(index.rates), keys_N)
    begin_N, end_N = index.rates.units_of(first_N, stop_N)
    return 3 + end_N - begin_N + settings.acoustic.coarse_levels * (stop_N - first_N)


def _fine_lengths(index: TokenIndex, vocabulary: Vocabulary, items_N, keys_N, settings: LayoutSettings) -> np.ndarray:
    n_N = frames_covered(index.rates, index.n_unit_frames[items_N], index.n_frames[items_N])
    return 3 + vocabulary.code_levels * np.minimum(n_N, settings.acoustic.frames(index.rates))


def _has_codes(index: TokenIndex) -> np.ndarray:
    if index.rates is None:
        return np.zeros(len(index), bool)
    return frames_covered(index.rates, index.n_unit_frames, index.n_frames) > 0


ACOUSTIC_LAYOUTS: dict[str, Layout] = {
    "coarse": Layout(coarse, _coarse_lengths, _has_codes, needs_text=False, needs_codes=True),
    "fine": Layout(fine, _fine_lengths, _has_codes, needs_text=False, needs_codes=True),
}
