"""Word times by a CTC model of characters (wav2vec 2.0, MMS and the like): the text in its labels, and the best path.

A frame t of such a model stands for the seconds from t to t + 1 hops (20 ms; the 25 ms it sees begin there). A label is
a peak: it lights up for a frame or two inside its sound, so the first of a word comes late and the last goes early, by
about one hop. Words are widened by that `spread`, up to the middle of the gap between two of them. What comes late as a
whole, as causal models do, is the model's `delay`. `calibrate` measures both.

Shape letters: N samples, T frames, V labels, S tokens.
"""

import unicodedata
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from jaxslm.audio import SAMPLE_RATE
from jaxslm.units.ctc import CtcAlignment, forced_align, with_star
from jaxslm.units.pronunciation import spoken_words
from jaxslm.units.words import AlignmentError, Word

MAX_DEFICIT = 5.0  # keeps 98 of 100 right texts of acted speech, and refuses 97 of 100 wrong ones of read speech
_BETWEEN = ("|", " ")  # labels that models put between words, where they have one


class CtcModel(Protocol):
    """An acoustic model with a CTC head.

    Attributes:
      labels: by id, as in the model's vocab.json: single characters, with "|" between words where there is such a
        label. Longer ones ("<pad>", "[UNK]") are never part of a spelling.
      blank: the id of the blank ("<pad>" of wav2vec 2.0).
      frame_rate: frames a second.
    """

    labels: Sequence[str]
    blank: int
    frame_rate: float

    def log_probs(self, clips: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Log-probabilities, float32 [T, V], of each clip (float32 samples [N] at 16 kHz)."""
        ...


class CtcAligner:
    """Aligns by a `CtcModel`, many clips at a time.

    Args:
      delay: seconds by which the model's peaks come late.
      spread: seconds by which a word goes on around its first and last peak (None: one frame).
      max_deficit: nats a label by which a text may be less probable than what the model hears; a text that falls
        shorter is taken for that of other audio.
    """

    def __init__(
        self, model: CtcModel, *, delay: float = 0.0, spread: float | None = None, max_deficit: float = MAX_DEFICIT
    ):
        if not 0 <= model.blank < len(model.labels):
            raise ValueError(f"the blank is label {model.blank} of {len(model.labels)}: give the id of '<pad>'")
        self.model, self.delay, self.max_deficit = model, delay, max_deficit
        self.spread = 1 / model.frame_rate if spread is None else spread
        labels = [(label, i) for i, label in enumerate(model.labels) if len(label) == 1 and i != model.blank]
        self._ids = dict(labels)
        self._between = next((self._ids[label] for label in _BETWEEN if label in self._ids), None)
        self._star = len(model.labels)

    def align(self, samples_N: np.ndarray, text: str, language: str = "en") -> tuple[Word, ...]:
        """Times of each item of `text.split()` in float32 samples [N] at 16 kHz.

        Raises:
          AlignmentError: text without a letter of the model's, or that the audio does not fit.
        """
        (found,) = self.align_batch([samples_N], [text], [language])
        if isinstance(found, AlignmentError):
            raise found
        return found

    def align_batch(
        self, clips: Sequence[np.ndarray], texts: Sequence[str], languages: Sequence[str] | None = None
    ) -> list[tuple[Word, ...] | AlignmentError]:
        """`align` of each clip; what cannot be aligned is an AlignmentError in its place.

        Letters outside the model's labels are aligned to any speech (a star); numbers are read out in English and are
        such letters in other languages.
        """
        languages = languages or ["en"] * len(texts)
        spelled = [self.spell(text, language) for text, language in zip(texts, languages, strict=True)]
        results: list = [self._refusal(text, tokens) for text, (tokens, _) in zip(texts, spelled, strict=True)]
        usable = [i for i, result in enumerate(results) if result is None]
        log_probs = self.model.log_probs([clips[i] for i in usable]) if usable else []
        for log_probs_TxV in log_probs:
            if log_probs_TxV.shape[1] != len(self.model.labels):
                raise ValueError(
                    f"the model gives {log_probs_TxV.shape[1]} log-probabilities a frame for {len(self.model.labels)} "
                    "labels; give it its own vocab.json"
                )
        starred = [with_star(log_probs_TxV) for log_probs_TxV in log_probs]
        aligned = forced_align(starred, [spelled[i][0] for i in usable], blank=self.model.blank)
        for i, log_probs_TxV, found in zip(usable, log_probs, aligned, strict=True):
            if not isinstance(found, AlignmentError):
                found = self._misfit(log_probs_TxV, found) or self._words(
                    texts[i].split(), spelled[i][1], found, len(clips[i]) / SAMPLE_RATE
                )
            results[i] = found
        return results

    def spell(self, text: str, language: str = "en") -> tuple[list[int], list[int]]:
        """Label ids of a text, and for each the number of its item of `text.split()` (-1 between words)."""
        tokens, owners = [], []
        for number, item in enumerate(text.split()):
            for part in _spoken(item, language):
                ids = self._letters(part)
                if ids and tokens and self._between is not None:
                    tokens.append(self._between)
                    owners.append(-1)
                tokens += ids
                owners += [number] * len(ids)
        return tokens, owners

    def _letters(self, word: str) -> list[int]:
        ids = []
        for letter in word:
            plain = unicodedata.normalize("NFD", letter)[0]
            forms = (letter, letter.upper(), plain, plain.upper())
            found = next((self._ids[form] for form in forms if form in self._ids), self._star)
            if found == self._star and (letter == "'" or unicodedata.category(letter)[0] == "M"):
                continue  # no sound of its own
            if found != self._star or ids[-1:] != [self._star]:
                ids.append(found)
        return ids

    def _refusal(self, text: str, tokens: list[int]) -> AlignmentError | None:
        if not tokens:
            return AlignmentError(f"there is no word to align in {text!r}")
        if all(token in (self._star, self._between) for token in tokens):
            return AlignmentError(f"no letter of {text!r} is a label of the model; use a model of this language")
        return None

    def _misfit(self, log_probs_TxV: np.ndarray, found: CtcAlignment) -> AlignmentError | None:
        deficit = (float(log_probs_TxV.max(axis=1).sum(dtype=np.float64)) - found.score) / len(found.scores_S)
        if deficit <= self.max_deficit:
            return None
        return AlignmentError(
            f"the text is {deficit:.1f} nats a letter less probable than what the model hears (limit "
            f"{self.max_deficit:g}); check that audio and text belong together"
        )

    def _words(self, items: list[str], owners: list[int], found: CtcAlignment, duration: float) -> tuple[Word, ...]:
        times_Sx2 = np.clip(found.spans_Sx2 / self.model.frame_rate - self.delay, 0.0, duration)
        owner_S = np.array(owners)
        spoken = np.unique(owner_S[owner_S >= 0])
        starts = times_Sx2[[np.flatnonzero(owner_S == number)[0] for number in spoken], 0]
        ends = times_Sx2[[np.flatnonzero(owner_S == number)[-1] for number in spoken], 1]
        gaps = (starts[1:] - ends[:-1]) / 2
        starts_wide = starts - np.minimum(self.spread, np.append(starts[:1], gaps))
        ends_wide = ends + np.minimum(self.spread, np.append(gaps, duration - ends[-1:]))
        at = {int(number): (float(s), float(e)) for number, s, e in zip(spoken, starts_wide, ends_wide, strict=True)}
        words, end = [], 0.0
        for number, item in enumerate(items):  # a mark has no length, behind the item before it
            start, end = at.get(number, (end, end))
            words.append(Word(item, start, end))
        return tuple(words)


def calibrate(
    aligner: CtcAligner, clips: Sequence[np.ndarray], texts: Sequence[str], truth: Sequence[Sequence[Word]]
) -> tuple[float, float]:
    """(delay, spread) that suit a model, from speech with known word times: half the sum and half the difference of the
    median errors of starts and ends.
    """
    bare = CtcAligner(aligner.model, spread=0.0)
    pairs = [
        pair
        for found, known in zip(bare.align_batch(clips, texts), truth, strict=True)
        if not isinstance(found, AlignmentError)
        for pair in zip(found, known, strict=True)
    ]
    if not pairs:
        raise ValueError("no clip could be aligned; give clips of the model's language")
    start = float(np.median([found.start - known.start for found, known in pairs]))
    end = float(np.median([found.end - known.end for found, known in pairs]))
    return (start + end) / 2, max(0.0, (start - end) / 2)


def _spoken(item: str, language: str) -> list[str]:
    """What is said for one item, in lower case and composed letters: words of letters, marks and apostrophes."""
    if language.split("-")[0].split("_")[0].lower() == "en":
        return spoken_words(item)
    plain = unicodedata.normalize("NFKC", item).lower().replace("\u2019", "'")
    parts = "".join(c if c == "'" or unicodedata.category(c)[0] in "LMN" else " " for c in plain).split()
    return [part.strip("'") for part in parts if part.strip("'")]
