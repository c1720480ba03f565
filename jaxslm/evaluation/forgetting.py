"""How much of what a text model knew is left after it learnt to speak: loss on text, accuracy on questions, before and
after."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxslm.evaluation.scoring import Scorer, Tokens
from jaxslm.vocabulary import Vocabulary


@dataclass(frozen=True)
class TextLoss:
    """nats_per_token: comparable between models of one tokenizer; bits_per_byte: between any. documents,
    tokens: that are counted; not_a_number: pieces of documents whose loss is not finite, left out."""

    nats_per_token: float
    bits_per_byte: float
    documents: int
    tokens: int
    not_a_number: int


def text_loss(
    documents: Sequence[str], vocabulary: Vocabulary, tokenizer: Any, scorer: Scorer, model: Any, *, most: int
) -> TextLoss:
    """Of `<s>[Text]` (`<s>` where a vocabulary has no markers) and a document, in pieces of at most `most` tokens.

    Raises ValueError without a document.
    """
    start = [vocabulary.bos_id, *vocabulary.text_start]
    pieces, sizes = [], []
    for text in documents:
        ids = tokenizer.encode(text)
        for first in range(0, len(ids), most):
            part = ids[first : first + most]
            scored = np.arange(len(start) + len(part)) >= len(start)
            pieces.append(Tokens(np.array([*start, *part], np.int32), scored))
            sizes.append(len(text.encode()) * len(part) / len(ids))
    if not pieces:
        raise ValueError("there is no text to take a loss of")
    sums = scorer(model, scorer.batches(pieces), progress="text")
    counted = np.isfinite(sums)
    nats, tokens = -sums[counted].sum(), sum(int(p.scored.sum()) for p, c in zip(pieces, counted, strict=True) if c)
    size = np.array(sizes)[counted].sum()
    per_token, per_byte = (nats / tokens, nats / math.log(2) / size) if tokens else (math.nan, math.nan)
    return TextLoss(float(per_token), float(per_byte), len(documents), tokens, int((~counted).sum()))
