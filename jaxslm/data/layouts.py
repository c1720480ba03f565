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

The formats of AudioLM's acoustic stages are in acoustic_layouts.py.
"""

import numpy as np

from jaxslm.data.acoustic_layouts import ACOUSTIC_LAYOUTS
from jaxslm.data.segments import Layout, LayoutSettings, Segment
from jaxslm.data.spans import draw_spans
from jaxslm.data.token_index import EncodedUtterance, TokenIndex
from jaxslm.vocabulary import Vocabulary


def _wrapped(utterance: EncodedUtterance, vocabulary: Vocabulary, segments: list[Segment]) -> list[Segment]:
    end = [Segment("marker", [vocabulary.eos_id])] if utterance.complete else []
    return [Segment("marker", [vocabulary.bos_id]), *segments, *end]


def _marker(vocabulary: Vocabulary, token: str) -> Segment:
    return Segment("marker", [vocabulary.id(token)])


def _speech(unit_ids: np.ndarray, vocabulary: Vocabulary) -> Segment:
    return Segment("speech", unit_ids + vocabulary.block("units").first)


def text_only(utterance, vocabulary, key, settings) -> list[Segment]:
    body = [_marker(vocabulary, "[Text]"), Segment("text", utterance.text_ids)]
    return _wrapped(utterance, vocabulary, body)


def speech_only(utterance, vocabulary, key, settings) -> list[Segment]:
    start = [Segment("marker", vocabulary.speech_start)] if vocabulary.speech_start else []
    return _wrapped(utterance, vocabulary, [*start, _speech(utterance.unit_ids, vocabulary)])


def asr(utterance, vocabulary, key, settings) -> list[Segment]:
    speech = [_marker(vocabulary, "[Speech]"), _speech(utterance.unit_ids, vocabulary)]
    text = [_marker(vocabulary, "[ASR]"), Segment("text", utterance.text_ids)]
    return _wrapped(utterance, vocabulary, speech + text)


def tts(utterance, vocabulary, key, settings) -> list[Segment]:
    text = [_marker(vocabulary, "[Text]"), Segment("text", utterance.text_ids)]
    speech = [_marker(vocabulary, "[TTS]"), _speech(utterance.unit_ids, vocabulary)]
    return _wrapped(utterance, vocabulary, text + speech)


def interleaved(utterance, vocabulary, key, settings: LayoutSettings) -> list[Segment]:
    (speech_first,), (edges,) = draw_spans(len(utterance.text_edges) - 1, key, settings.spans)
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


def _interleaved_lengths(index: TokenIndex, vocabulary, items_N, keys_N, settings: LayoutSettings) -> np.ndarray:
    speech_first_N, edges_NxE = draw_spans(index.n_words[items_N], keys_N, settings.spans)
    at_NxE = index.edge_start[items_N][:, None] + edges_NxE
    text_NxS = np.diff(index.text_edges[at_NxE].astype(np.int64), axis=1)
    units_NxS = np.diff(index.unit_edges[at_NxE].astype(np.int64), axis=1)
    is_speech_NxS = (np.arange(text_NxS.shape[1]) % 2 == 0) == speech_first_N[:, None]
    used_NxS = np.diff(edges_NxE, axis=1) > 0
    return 2 + np.sum(used_NxS * (1 + np.where(is_speech_NxS, units_NxS, text_NxS)), axis=1)


def _spoken(index: TokenIndex) -> np.ndarray:
    return (index.n_units > 0) & (index.n_text > 0)


def _both_lengths(index: TokenIndex, vocabulary, items_N, keys_N, settings) -> np.ndarray:
    return 4 + index.n_text[items_N] + index.n_units[items_N]


LAYOUTS: dict[str, Layout] = {
    # Text-only documents; to train on transcripts as text, name their manifest as a text source too.
    "text": Layout(
        text_only,
        lambda index, vocabulary, items, keys, settings: 3 + index.n_text[items],
        lambda index: (index.n_text > 0) & (index.n_units == 0),
        splits="text",
    ),
    "speech": Layout(
        speech_only,
        lambda index, vocabulary, items, keys, settings: 2 + len(vocabulary.speech_start) + index.n_units[items],
        lambda index: index.n_units > 0,
        needs_text=False,
        splits="unit",
    ),
    "asr": Layout(asr, _both_lengths, _spoken),
    "tts": Layout(tts, _both_lengths, _spoken),
    "interleaved": Layout(interleaved, _interleaved_lengths, lambda index: np.asarray(index.aligned)),
    **ACOUSTIC_LAYOUTS,
}
