"""What a training format is made of; the formats are in layouts.py and acoustic_layouts.py."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from jaxslm.acoustic.frames import AcousticCrops
from jaxslm.data.spans import SpanLengths
from jaxslm.data.token_index import EncodedUtterance, TokenIndex
from jaxslm.vocabulary import Vocabulary


class Segment(NamedTuple):
    """`ids` (int [n]) of one modality: "text", "speech" (units), "codes" or "marker" (begin and end included), with the
    weight of their loss.
    """

    modality: str
    ids: Sequence[int]
    loss_weight: float = 1.0


@dataclasses.dataclass(frozen=True)
class LayoutSettings:
    """What formats can be told: `spans` for interleaved ones, `acoustic` for those with codes."""

    spans: SpanLengths = SpanLengths()
    acoustic: AcousticCrops = AcousticCrops()


@dataclasses.dataclass(frozen=True)
class Layout:
    """One format.

    Attributes:
      build: (utterance, vocabulary, key, settings) -> segments; `key` decides whatever is random.
      lengths: (index, vocabulary, items_N, keys_N, settings) -> ids that `build` gives for each item, int64 [N].
      eligible: index -> bool [N], which utterances can be laid out so.
      needs_text, needs_codes: whether the format has text, or codes of a codec, in it.
      splits: "text" or "unit" where a document longer than the context may be cut into pieces of these ids, else "".
    """

    build: Callable[[EncodedUtterance, Vocabulary, int, LayoutSettings], list[Segment]]
    lengths: Callable[[TokenIndex, Vocabulary, np.ndarray, np.ndarray, LayoutSettings], np.ndarray]
    eligible: Callable[[TokenIndex], np.ndarray]
    needs_text: bool = True
    needs_codes: bool = False
    splits: str = ""
