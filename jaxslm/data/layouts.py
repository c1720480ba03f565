"""Training formats: pure functions from an utterance to typed segments of token ids.

Each published format is one function and has a golden test of exact ids. Beside it stands the same format's length as
array arithmetic over the whole token index, which is what packing plans with; a test holds the two together.

SpiRit-LM (Nguyen et al. 2024, section 3 and App. A):
  text         <s>[Text]this is ..</s>
  speech       <s>[Speech][Hu262][Hu208]..</s>
  interleaved  <s>[Text]the cat[Speech][Hu3][Hu7]..[Text]the mat</s>       cut at words, spans drawn anew every epoch
  asr, tts     <s>[Speech][Hu..][ASR]text</s>   <s>[Text]text[TTS][Hu..]</s>    the +ASR+TTS variant

GSLM (Lakhotia et al. 2021), TWIST (Hassid et al. 2023) and Slam (Maimon et al. 2025), whose vocabulary has no markers:
  speech       <s>[Hu262][Hu208]..</s>
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from jaxslm.data.spans import SpanLengths, draw_spans
from jaxslm.data.token_index import EncodedUtterance, TokenIndex
from jaxslm.vocabulary import Vocabulary


class Segment(NamedTuple):
    """`ids` (int [n]) of one modality: "text", "speech" or "marker" (begin and end included), with the weight of their
    loss.
    """

    modality: str
    ids: Sequence[int]
    loss_weight: float = 1.0


@dataclasses.dataclass(frozen=True)
class Layout:
    """One format.

    Attributes:
      build: (utterance, vocabulary, key, spans) -> segments; `key` decides whatever is random.
      lengths: (index, vocabulary, items_N, keys_N, spans) -> ids that `build` gives for each item, int64 [N].
      eligible: index -> bool [N], which utterances can be laid out so.
      needs_text: whether the format has text in it.
      splits: "text" or "unit" where a document longer than the context may be cut into pieces of these ids, else "".
    """

    build: Callable[[EncodedUtterance, Vocabulary, int, SpanLengths], list[Segment]]
    lengths: Callable[[TokenIndex, Vocabulary, np.ndarray, np.ndarray, SpanLengths], np.ndarray]
    eligible: Callable[[TokenIndex], np.ndarray]
    needs_text: bool = True
    splits: str = ""


def _wrapped(utterance: EncodedUtterance, vocabulary: Vocabulary, segments: list[Segment]) -> list[Segment]:
    end = [Segment("marker", [vocabulary.eos_id])] if utterance.complete else []
    return [Segment("marker", [vocabulary.bos_id]), *segments, *end]


def _marker(vocabulary: Vocabulary, token: str) -> Segment:
    return Segment("marker", [vocabulary.id(token)])


def _speech(unit_ids: np.ndarray, vocabulary: Vocabulary) -> Segment:
    return Segment("speech", unit_ids + vocabulary.block("units").first)


def text_only(utterance, vocabulary, key, spans) -> list[Segment]:
    body = [_marker(vocabulary, "[Text]"), Segment("text", utterance.text_ids)]
    return _wrapped(utterance, vocabulary, body)


def speech_only(utterance, vocabulary, key, spans) -> list[Segment]:
    start = [Segment("marker", vocabulary.speech_start)] if vocabulary.speech_start else []
    return _wrapped(utterance, vocabulary, [*start, _speech(utterance.unit_ids, vocabulary)])


def asr(utterance, vocabulary, key, spans) -> list[Segment]:
    speech = [_marker(vocabulary, "[Speech]"), _speech(utterance.unit_ids, vocabulary)]
    text = [_marker(vocabulary, "[ASR]"), Segment("text", utterance.text_ids)]
    return _wrapped(utterance, vocabulary, speech + text)


def tts(utterance, vocabulary, key, spans) -> list[Segment]:
    text = [_marker(vocabulary, "[Text]"), Segment("text", utterance.text_ids)]
    speech = [_marker(vocabulary, "[TTS]"), _speech(utterance.unit_ids, vocabulary)]
    return _wrapped(utterance, vocabulary, text + speech)


def interleaved(utterance, vocabulary, key, spans) -> list[Segment]:
    (speech_first,), (edges,) = draw_spans(len(utterance.text_edges) - 1, key, spans)
    body, is_speech = [], bool(speech_first)
    for first, stop in zip(edges[:-1], edges[1:], strict=True):
        if first == stop:
            break
        if is_speech:
            units = utterance.unit_ids[utterance.unit_edges[first] : utterance.unit_edges[stop]]
            body += [_marker(vocabulary, "[Speech]"), _speech(units, vocabulary)]
        else:
            ids = utterance.text_ids[utterance.text_edges[first] : utterance.text_edges[stop]]
            body += [_marker(vocabulary, "[Text]"), Segment("text", ids)]
        is_speech = not is_speech
    return _wrapped(utterance, vocabulary, body)


def _interleaved_lengths(index: TokenIndex, vocabulary, items_N, keys_N, spans) -> np.ndarray:
    speech_first_N, edges_NxE = draw_spans(index.n_words[items_N], keys_N, spans)
    at_NxE = index.edge_start[items_N][:, None] + edges_NxE
    text_NxS = np.diff(index.text_edges[at_NxE].astype(np.int64), axis=1)
    units_NxS = np.diff(index.unit_edges[at_NxE].astype(np.int64), axis=1)
    is_speech_NxS = (np.arange(text_NxS.shape[1]) % 2 == 0) == speech_first_N[:, None]
    used_NxS = np.diff(edges_NxE, axis=1) > 0
    return 2 + np.sum(used_NxS * (1 + np.where(is_speech_NxS, units_NxS, text_NxS)), axis=1)


def _spoken(index: TokenIndex) -> np.ndarray:
    return (index.n_units > 0) & (index.n_text > 0)


def _both_lengths(index: TokenIndex, vocabulary, items_N, keys_N, spans) -> np.ndarray:
    return 4 + index.n_text[items_N] + index.n_units[items_N]


LAYOUTS: dict[str, Layout] = {
    # Text-only documents; to train on transcripts as text, name their manifest as a text source too.
    "text": Layout(
        text_only,
        lambda index, vocabulary, items, keys, spans: 3 + index.n_text[items],
        lambda index: (index.n_text > 0) & (index.n_units == 0),
        splits="text",
    ),
    "speech": Layout(
        speech_only,
        lambda index, vocabulary, items, keys, spans: 2 + len(vocabulary.speech_start) + index.n_units[items],
        lambda index: index.n_units > 0,
        needs_text=False,
        splits="unit",
    ),
    "asr": Layout(asr, _both_lengths, _spoken),
    "tts": Layout(tts, _both_lengths, _spoken),
    "interleaved": Layout(interleaved, _interleaved_lengths, lambda index: np.asarray(index.aligned)),
}
