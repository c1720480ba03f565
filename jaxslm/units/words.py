"""Word times: what is asked of them, and how those of an aligner are put onto the written text.

`text.split()` says what the words of an utterance are. Aligners write them otherwise (case, punctuation, clitics,
silences), so their words pass through `match_words`; whatever the source, `check_words` has the last say.
"""

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

_TOLERANCE = 0.05  # seconds a word may lie outside the audio: aligners round to frames
_ROUNDING = 0.002  # seconds two words may overlap: times are often written to the millisecond
_SILENCES = frozenset("sp sil spn pau <sil> <eps> <s> </s> (null) [noise] [silence] ++noise++".split())


class AlignmentError(ValueError):
    """Words that could not be aligned to their audio."""


@dataclass(frozen=True)
class Word:
    """One item of `text.split()`, as written, with its start and end in seconds."""

    text: str
    start: float
    end: float


def check_words(words: Sequence[Word], text: str, duration: float, where: str) -> tuple[Word, ...]:
    """The words in the spelling of `text`, with times inside the audio, in order and not overlapping.

    Times up to 0.05 s outside the audio and overlaps of up to 2 ms are rounding, and are trimmed.

    Args:
      words: one for each item of `text.split()`.
      duration: of the audio, in seconds.
      where: names the utterance in messages, such as "train.jsonl:12".
    Raises:
      ValueError: a missing, foreign or additional word, or impossible times; the message names the word and the cure.
    """
    items = text.split()
    if len(words) != len(items):
        raise ValueError(
            f"{where}: {len(words)} word times for {len(items)} words of text; give one for each item of text.split()"
        )
    checked, before = [], Word("", 0.0, 0.0)
    for number, (item, word) in enumerate(zip(items, words, strict=True), start=1):
        label, times = f"{where}: word {number} ({item!r})", f"{word.start:g} to {word.end:g} s"
        if _plain(word.text) != _plain(item):
            raise ValueError(f"{label} has the times of {word.text!r}; give the words in the order of the text")
        if not (math.isfinite(word.start) and math.isfinite(word.end)):
            raise ValueError(f"{label} goes from {times}; give finite seconds")
        if word.end < word.start:
            raise ValueError(f"{label} runs backwards, from {times}; give [word, start, end] in seconds")
        if word.start < -_TOLERANCE or word.end > duration + _TOLERANCE:
            raise ValueError(
                f"{label} lies outside the audio, {times} of {duration:.3f} s; "
                "give seconds from the start of this clip (not samples, frames, or times in a longer recording)"
            )
        start, end = (min(max(float(time), 0.0), duration) for time in (word.start, word.end))
        if start < before.start - _ROUNDING:
            raise ValueError(
                f"{label} starts before the word ahead of it ({before.start:g} s), at {times}; sort the words by time"
            )
        if start < before.end - _ROUNDING:
            raise ValueError(
                f"{label} overlaps the word ahead of it (until {before.end:g} s), at {times}; align the utterance again"
            )
        start = max(start, before.end)
        before = Word(item, start, max(start, end))
        checked.append(before)
    return tuple(checked)


def match_words(words: Sequence[Word], text: str) -> tuple[Word, ...]:
    """Puts an aligner's words onto the items of `text.split()`, keeping the written form.

    Case, punctuation, accents' encoding and silences do not count, several words may make up one item ("well", "known"
    for "well-known"), and MFA's <unk> stands for any one item. An item without letters or digits gets no length, at the
    end of the item before it.

    Raises:
      ValueError: the words are not those of the text.
    """
    spoken = [word for word in words if _plain(word.text) and word.text.strip().lower() not in _SILENCES]
    matched, at, end = [], 0, 0.0
    for item in text.split():
        wanted, got, first = _plain(item), "", at
        if wanted and at < len(spoken) and spoken[at].text == "<unk>":
            got, at = wanted, at + 1
        while got != wanted and at < len(spoken) and wanted.startswith(got + _plain(spoken[at].text)):
            got += _plain(spoken[at].text)
            at += 1
        if got != wanted:
            found = f"{spoken[at].text!r} at {spoken[at].start:g} s" if at < len(spoken) else "nothing more"
            raise ValueError(
                f"the alignment is not of this text: where the text has {item!r} it has {found}; align the text again"
            )
        start = spoken[first].start if at > first else end
        end = spoken[at - 1].end if at > first else end
        matched.append(Word(item, start, end))
    if at < len(spoken):
        raise ValueError(
            f"the alignment is not of this text: after its last word comes {spoken[at].text!r} at "
            f"{spoken[at].start:g} s; align the text again"
        )
    return tuple(matched)


def _plain(word: str) -> str:
    """Letters and digits only, without case: what two spellings of one word share."""
    return "".join(letter for letter in unicodedata.normalize("NFKC", word).casefold() if letter.isalnum())
