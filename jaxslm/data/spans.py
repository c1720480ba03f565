"""Word-level interleaving: which runs of words are spoken and which are written (SpiRit-LM, App. A).

N utterances, S spans at most, E = S + 1 edges.
"""

import dataclasses

import numpy as np

from jaxslm.data.draws import draw_bits, draw_integers


@dataclasses.dataclass(frozen=True)
class SpanLengths:
    """Words a span has, fewest and most; text and speech spans alternate."""

    text_words: tuple[int, int] = (10, 30)
    speech_words: tuple[int, int] = (5, 15)

    def __post_init__(self):
        for name, (low, high) in (("text_words", self.text_words), ("speech_words", self.speech_words)):
            if not 1 <= low <= high:
                raise ValueError(f"data.spans.{name} is (fewest, most) with 1 <= fewest <= most, not {(low, high)}")


def draw_spans(n_words_N: np.ndarray, key_N: np.ndarray, lengths: SpanLengths) -> tuple[np.ndarray, np.ndarray]:
    """Cuts each utterance's words into alternating spans of random length; the last span takes what is left.

    Args:
      n_words_N: words of each utterance.
      key_N: what the draw depends on, one integer for each utterance.

    Returns:
      speech_first_N: bool, whether the first span is speech.
      edges_NxE: span s is the words edges[s]..edges[s + 1]; past an utterance's last span the edges stay at its word
        count.
    """
    n_words_N, key_N = np.atleast_1d(n_words_N), np.atleast_1d(key_N)
    shortest_pair = lengths.text_words[0] + lengths.speech_words[0]
    n_spans = 2 * (int(n_words_N.max(initial=1)) // shortest_pair + 1)
    speech_first_N = (draw_bits(key_N, 0) & np.uint64(1)).astype(bool)
    key_NxS, span_S = key_N[:, None], 1 + np.arange(n_spans)
    text_NxS = draw_integers(*lengths.text_words, key_NxS, span_S)
    speech_NxS = draw_integers(*lengths.speech_words, key_NxS, span_S)
    is_speech_NxS = (np.arange(n_spans) % 2 == 0) == speech_first_N[:, None]
    edges_NxS = np.minimum(np.cumsum(np.where(is_speech_NxS, speech_NxS, text_NxS), axis=1), n_words_N[:, None])
    return speech_first_N, np.concatenate([np.zeros_like(edges_NxS[:, :1]), edges_NxS], axis=1)
