"""Audio longer than a clip may be, cut into pieces: at quiet places, or between words where it has a text.

Pieces neither overlap nor leave anything out. They are called ID/0001, ID/0002, ...
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

from jaxslm.audio.io import MIN_SECONDS, Clip, read_audio
from jaxslm.audio.pauses import cuts_at_quiet, cuts_between_words
from jaxslm.data.sources import RawUtterance
from jaxslm.units.alignment import Word

LONGEST_SECONDS = 2 * 3600.0  # decoded as a whole, which takes 64 kB a second and more


def read_long(raw: RawUtterance, max_seconds: float, sample_rate: int) -> Clip:
    """The whole audio of an utterance that is to be cut. Raises AudioError."""
    return read_audio(
        raw.audio, where=raw.where, max_seconds=max(LONGEST_SECONDS, max_seconds), sample_rate=sample_rate
    )


def split(raw: RawUtterance, clip: Clip, words: Sequence[Word], max_seconds: float) -> list[RawUtterance]:
    """The pieces, each an utterance of its own with the words that lie in it, if there are any.

    Raises:
      ValueError: a word as long as a piece may be.
    """
    if words:
        spans = [(word.start, word.end) for word in words]
        seconds = cuts_between_words(spans, clip.duration, max_seconds, MIN_SECONDS)
        cuts = [round(cut * clip.rate) for cut in seconds]
    else:
        cuts = cuts_at_quiet(clip.samples, int(max_seconds * clip.rate), int(MIN_SECONDS * clip.rate))
    pieces = []
    for number, (first, last) in enumerate(itertools.pairwise([0, *cuts, len(clip.samples)]), 1):
        start, stop = first / clip.rate, last / clip.rate
        inside = [word for word in words if start <= (word.start + word.end) / 2 < stop]
        if words and number == len(cuts) + 1:  # a word without length may lie on the very end
            inside = [word for word in words if start <= (word.start + word.end) / 2]
        pieces.append(
            replace(
                raw,
                id=f"{raw.id}/{number:04d}",
                where=f"{raw.where} [{start:.2f}-{stop:.2f} s]",
                text=" ".join(word.text for word in inside),
                audio=(clip.samples[first:last], clip.rate),
                words=tuple(Word(word.text, word.start - start, word.end - start) for word in inside) or None,
                alignment=None,
                units=None,
            )
        )
    return pieces
