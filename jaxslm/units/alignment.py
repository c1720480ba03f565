"""Forced alignment of speech to its text; and, under one name, all there is to word times."""

import json
import re
from pathlib import Path
from typing import Protocol

import numpy as np

from jaxslm.audio import SAMPLE_RATE
from jaxslm.units.alignment_files import ALIGNMENT_FILES, find_alignment, read_ctm, read_textgrid, read_word_json
from jaxslm.units.pronunciation import pronounce, spoken_words
from jaxslm.units.words import AlignmentError, Word, check_words, match_words

__all__ = [
    "ALIGNMENT_FILES",
    "Aligner",
    "AlignmentError",
    "PocketSphinxAligner",
    "Word",
    "check_aligner",
    "calibration_file",
    "check_words",
    "find_alignment",
    "load_aligner",
    "match_words",
    "read_calibration",
    "read_ctm",
    "read_textgrid",
    "read_word_json",
]


CLIP_BY_CLIP = ("pocketsphinx",)  # aligners that need no JAX, and so run in the processes that read
_CTC = "ctc:"
_LONGEST = 600.0  # seconds: PocketSphinx's time grows with the square of a clip's length, to half a minute at this one


class Aligner(Protocol):
    """Finds word times. Aligners that want many clips at a time also have `align_batch(clips, texts, languages)`."""

    def align(self, samples_N: np.ndarray, text: str) -> tuple[Word, ...]: ...


def check_aligner(name: str) -> None:
    """ValueError unless `name` is "", "pocketsphinx", or "ctc:FOLDER" with a folder that is there."""
    if name in ("", *CLIP_BY_CLIP):
        return
    if not name.removeprefix(_CTC) or not name.startswith(_CTC):
        raise ValueError(f"data.alignment is {name!r}: use '', 'pocketsphinx' or 'ctc:FOLDER'")
    if not _ctc_folder(name)[0].is_dir():
        raise ValueError(f"data.alignment is {name!r}: no such folder; give that of a Hugging Face CTC model")


def _ctc_folder(name: str) -> tuple[Path, str]:
    """(folder, language) of "ctc:FOLDER" or, for MMS models, "ctc:FOLDER@LANGUAGE"."""
    folder, _, language = name.removeprefix(_CTC).partition("@")
    return Path(folder).expanduser(), language


def load_aligner(name: str, language: str = "en") -> Aligner:
    """The aligner of `data.alignment`: "pocketsphinx", or "ctc:FOLDER" for the CTC model in a Hugging Face folder,
    "ctc:FOLDER@LANGUAGE" ("eng") where it is of MMS. Of the latter two the folder may hold a calibration.

    language: of a "pocketsphinx" aligner; a CTC model is told that of each text.
    """
    check_aligner(name)
    if name in CLIP_BY_CLIP:
        return PocketSphinxAligner(language)
    from jaxslm.units.ctc_aligner import CtcAligner  # JAX: not in every process that reads
    from jaxslm.units.neural_ctc import NeuralCtc

    delay, spread = read_calibration(name)
    return CtcAligner(NeuralCtc(*_ctc_folder(name)), delay=delay, spread=spread)


def calibration_file(name: str) -> Path:
    """Where `jaxslm.data.calibrate` puts what it measures of "ctc:FOLDER" or "ctc:FOLDER@LANGUAGE"."""
    folder, language = _ctc_folder(name)
    return folder / ".".join(filter(None, ("calibration", language, "json")))


def read_calibration(name: str) -> tuple[float, float | None]:
    """(delay, spread) in seconds, for `CtcAligner`; (0, None) if nobody has measured them.

    Raises ValueError for a damaged file.
    """
    path = calibration_file(name)
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
        return float(read["delay"]), float(read["spread"])
    except FileNotFoundError:
        return 0.0, None
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"{path} is damaged ({error!r}): remove it, or calibrate again by python -m jaxslm.data.calibrate"
        ) from error


class PocketSphinxAligner:
    """Forced alignment with the acoustic model and dictionary inside the `pocketsphinx` wheel (10 ms frames).

    One decoder serves many clips; the times of a clip do not depend on the clips before it.
    """

    def __init__(self, language: str = "en"):
        if language != "en":
            raise ValueError(
                f"word alignment by PocketSphinx has a model for 'en' only, not {language!r}; "
                "give word times with the data, or a CTC model by data.alignment='ctc:FOLDER'"
            )
        try:
            from pocketsphinx import Decoder
        except ImportError as error:
            raise ValueError("word alignment needs PocketSphinx: pip install 'jaxslm[demo]'") from error
        # The wheel's own beams and its second pass over the lattice lose a fifth of acted speech; these cost no time.
        self._decoder = Decoder(loglevel="FATAL", lm=None, bestpath=False, beam=1e-100, pbeam=1e-100, wbeam=1e-80)

    def align(self, samples_N: np.ndarray, text: str) -> tuple[Word, ...]:
        """Times of each item of `text.split()` in float32 samples [N] at 16 kHz.

        Words outside the dictionary are given a pronunciation by rule, and numbers are read out.

        Raises:
          AlignmentError: text that cannot be read out, or that the audio does not fit; audio of more than 10 minutes.
        """
        if len(samples_N) > _LONGEST * SAMPLE_RATE:
            raise AlignmentError(
                f"{len(samples_N) / SAMPLE_RATE:.1f} s is longer than the {_LONGEST:g} s that PocketSphinx aligns at "
                "once; give word times, cut the audio and its text, or set data.alignment=ctc:FOLDER"
            )
        items = text.split()
        spoken = [spoken_words(item) for item in items]
        found = self._spoken(samples_N, [word for words in spoken for word in words], text)
        words, at, end = [], 0, 0.0
        limit = len(samples_N) / SAMPLE_RATE  # the last frame may reach past the last sample
        for item, parts in zip(items, spoken, strict=True):
            start = found[at].start if parts else end
            at += len(parts)
            end = min(found[at - 1].end, limit) if parts else end
            words.append(Word(item, start, end))
        return tuple(words)

    def align_phones(self, samples_N: np.ndarray, text: str) -> tuple[Word, ...]:
        """Times of each phone (ARPAbet without stress) and silence ("SIL"), without gaps: a second pass, inside the
        words that `align` finds.

        Raises:
          AlignmentError: as `align`.
        """
        self._spoken(samples_N, [word for item in text.split() for word in spoken_words(item)], text)
        self._decoder.set_alignment()
        self._decode(samples_N)
        return tuple(
            Word(phone.name, phone.start / 100, (phone.start + phone.duration) / 100)
            for phone in self._decoder.get_alignment().phones()
        )

    def _spoken(self, samples_N: np.ndarray, expected: list[str], text: str) -> list[Word]:
        """Times of the words that are said, which must be those expected."""
        if not expected:
            raise AlignmentError(f"there is no word to align in {text!r}")
        for word in expected:
            if self._decoder.lookup_word(word) is None:
                self._add(word)
        found = self._segments(samples_N, " ".join(expected))
        if [word.text for word in found] != expected:
            raise AlignmentError(f"the audio does not fit the text {text!r}: check that they belong together")
        return found

    def _add(self, word: str) -> None:
        phones = pronounce(word)
        if not phones:
            raise AlignmentError(f"{word!r} cannot be read out: spell it in letters a to z")
        self._decoder.add_word(word, phones, True)

    def _segments(self, samples_N: np.ndarray, text: str) -> list[Word]:
        self._decoder.set_align_text(text)
        self._decode(samples_N)
        if self._decoder.hyp() is None:
            return []
        parts = [part for part in self._decoder.seg() if part.word[0] not in "<["]  # <sil>, [NOISE]
        names = [re.sub(r"\(\d+\)$", "", part.word) for part in parts]  # "your(2)" is a variant of "your"
        return [
            Word(name, part.start_frame / 100, (part.end_frame + 1) / 100)
            for name, part in zip(names, parts, strict=True)
        ]

    def _decode(self, samples_N: np.ndarray) -> None:
        steps = np.clip(np.rint(samples_N * 32768.0), -32768, 32767).astype(np.int16)
        self._decoder.reinit_feat()  # else cepstral means linger from the clip before
        self._decoder.start_utt()
        self._decoder.process_raw(steps.tobytes(), full_utt=True)
        self._decoder.end_utt()
