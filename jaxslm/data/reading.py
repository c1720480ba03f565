"""From a `RawUtterance` to an `Utterance`: audio, word times and given units, decoded and checked.

Runs in worker processes, which do without JAX.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from pathlib import Path

from jaxslm.audio import SAMPLE_RATE
from jaxslm.audio.io import AudioError, AudioTooLong, Clip, encode_flac, read_audio
from jaxslm.data.records import Utterance
from jaxslm.data.report import Report
from jaxslm.data.sources import RawUtterance, has_words
from jaxslm.data.splitting import read_long, split
from jaxslm.units import alignment
from jaxslm.units.units import UnitSequence

Result = tuple[RawUtterance, Utterance | None, list[dict]]  # what was read, None if left out, and what to report


@dataclass(frozen=True)
class Reading:
    """What the preparation asks of the reading: `aligner` is "" or one that works clip by clip, without JAX, where no
    word times are given; `aligned_later` says that another gives them after the reading.

    sample_rate: of the audio in the records, in Hz.
    units_sha256, units_size, frame_rate: the inventory of precomputed units; "" if units are computed from the audio.
    """

    max_seconds: float = 60.0
    sample_rate: int = SAMPLE_RATE
    aligner: str = ""
    aligned_later: bool = False
    units_sha256: str = ""
    units_size: int = 0
    frame_rate: float = 0.0


def read_pieces(raw: RawUtterance, reading: Reading) -> list[Result]:
    """The utterance, or the pieces of one that is too long; where that cannot be cut it is left out by name.

    With `reading.aligned_later` one that is too long, and has a text without word times, comes as a whole.
    """
    try:
        return [(raw, *read_utterance(raw, reading))]
    except AudioTooLong as error:
        cause, cure = cause_and_cure(error, raw.where)
    report, text, words, words_from = Report(log=False), " ".join(raw.text.split()), (), ""
    try:
        if raw.units is not None and reading.units_sha256:
            raise AudioError(f"{cause}; {cure}")
        clip = read_long(raw, reading.max_seconds, reading.sample_rate)
        if has_words(text):
            words, words_from = _given_words(raw, text)
            if words is None and reading.aligned_later:
                for note in clip.notes:
                    report.note(raw.where, note)
                return [(raw, _utterance(raw, text, clip), report.entries)]
            if words is None and reading.aligner:
                words, words_from = _aligner(reading.aligner, raw.language).align(clip.heard, text), reading.aligner
            if words is None:
                cure = "align it (data.alignment, or a file with word times), cut it at pauses, or raise max_seconds"
                raise AudioError(f"{cause}, and no word times say where its text may be cut; {cure}")
        return cut(raw, clip, words, words_from, reading, report)
    except AudioError as error:
        report.left_out(raw.where, *cause_and_cure(error, raw.where))
    except (ValueError, OSError) as error:
        report.left_out(raw.where, *no_cut(cause, error, raw.where))
    return [(raw, None, report.entries)]


def no_cut(cause: str, error: Exception, where: str) -> tuple[str, str]:
    """Cause and cure of audio that is left out since it is too long (`cause`) and cannot be cut."""
    why, cure = cause_and_cure(error, where)
    return f"{cause}, and cannot be cut between words: {why}", cure or "cut it, or raise max_seconds"


def cut(
    raw: RawUtterance,
    clip: Clip,
    words: tuple[alignment.Word, ...],
    words_from: str,
    reading: Reading,
    report: Report,
) -> list[Result]:
    """The pieces of audio that is too long, read; what `report` says of the whole goes with the first.

    Raises:
      ValueError: word times that are bad, or leave no place to cut.
    """
    if words:
        words = alignment.check_words(words, " ".join(raw.text.split()), clip.duration, raw.where)
    pieces = split(raw, clip, words, reading.max_seconds)
    for note in (*clip.notes, f"{clip.duration:.1f} s cut into {len(pieces)} pieces"):
        report.note(raw.where, note)
    results = []
    for piece in pieces:
        utterance, entries = read_utterance(piece, reading)
        if utterance is not None and utterance.words:
            utterance = replace(utterance, words_from=words_from)
        report.extend(entry for entry in entries if entry["kind"] != "note")  # it was said of the whole
        results.append((piece, utterance, report.entries))
        report = Report(log=False)
    return results


def read_utterance(raw: RawUtterance, reading: Reading) -> tuple[Utterance | None, list[dict]]:
    """The utterance, None if it is left out, and what is to be reported.

    A part that is bad is left out alone where the rest is of use. Raises AudioTooLong.
    """
    report = Report(log=False)
    text, clip = " ".join(raw.text.split()), None
    if text and not has_words(text):
        cure = "correct the transcript; the speech alone is used"
        report.left_out(raw.where, "no words in the text", cure, what="text")
        text = ""
    if raw.audio is not None:
        try:
            clip = read_audio(
                raw.audio, where=raw.where, max_seconds=reading.max_seconds, sample_rate=reading.sample_rate
            )
        except AudioTooLong:
            raise
        except AudioError as error:
            report.left_out(raw.where, *cause_and_cure(error, raw.where))
            return None, report.entries
        for note in clip.notes:
            report.note(raw.where, note)
    units = _given_units(raw, reading, report)
    if clip is None and units is None and not text:
        report.left_out(raw.where, "neither speech nor words are left of it", "see what was reported of it before")
        return None, report.entries
    utterance = _utterance(raw, text, clip)
    if units is not None:
        duration = utterance.duration if clip else units.seconds
        utterance = replace(utterance, duration=duration, units={reading.units_sha256: units})
    if text and utterance.duration:
        words, words_from = _word_times(raw, utterance, clip, reading, report)
        utterance = replace(utterance, words=words, words_from=words_from)
    return utterance, report.entries


def _utterance(raw: RawUtterance, text: str, clip: Clip | None) -> Utterance:
    return Utterance(
        id=raw.id,
        text=text,
        audio=None if clip is None else encode_flac(clip.samples, clip.rate),
        duration=clip.duration if clip else 0.0,
        speaker=raw.speaker,
        language=raw.language,
        split=raw.split,
    )


def _given_units(raw: RawUtterance, reading: Reading, report: Report) -> UnitSequence | None:
    """The units that come with the record, if they are those of the inventory."""
    units = raw.units
    if not reading.units_sha256 or units is None:
        if reading.units_sha256 and raw.audio is not None:
            report.left_out(raw.where, "no units given", "add them, or choose an encoder in data.units", what="units")
        if units is not None:
            cause = "units given, but data.units computes its own"
            report.left_out(raw.where, cause, 'choose encoder="precomputed:NAME"', what="units")
        return None
    if units.frame_rate != reading.frame_rate:
        cause = f"units at {units.frame_rate:g} Hz where data.units says {reading.frame_rate:g} Hz"
        report.left_out(raw.where, cause, "correct the frame rate of either", what="units")
        return None
    if int(units.ids.max(initial=0)) >= reading.units_size:
        cause = f"unit {int(units.ids.max())} of an inventory of {reading.units_size}"
        report.left_out(
            raw.where, cause, "correct data.units.clusters, or use the units of that inventory", what="units"
        )
        return None
    return units


def _word_times(
    raw: RawUtterance, utterance: Utterance, clip: Clip | None, reading: Reading, report: Report
) -> tuple[tuple[alignment.Word, ...], str]:
    """Checked word times and where they are from: given ones, those in a file, or an alignment; (), "" where there are
    none or they are bad.
    """
    where, text = raw.where, utterance.text
    try:
        words, words_from = _given_words(raw, text)
        if words is None and reading.aligner and clip is not None:
            words, words_from = _aligner(reading.aligner, raw.language).align(clip.heard, text), reading.aligner
        if words is None:
            return (), ""
        for units in utterance.units.values():
            # A list that was deduplicated, its durations lost, would be cut at the wrong words.
            if clip is not None and abs(units.seconds - utterance.duration) > 0.2 + 0.02 * utterance.duration:
                cause = f"units last {units.seconds:.2f} s where the audio lasts {utterance.duration:.2f} s"
                raise ValueError(f"{where}: {cause}; give the units' durations in frames")
        return alignment.check_words(words, text, utterance.duration, where), words_from
    except (ValueError, OSError) as error:
        no_word_times(report, where, error)
        return (), ""


def _given_words(raw: RawUtterance, text: str) -> tuple[tuple[alignment.Word, ...] | None, str]:
    """Unchecked word times of the record or of a file, put onto the text, and which of them; None if there are none."""
    words, words_from = raw.words, "record"
    beside = raw.alignment or (raw.audio if isinstance(raw.audio, Path) else None)
    if words is None and beside is not None:
        words, words_from = alignment.find_alignment(beside, raw.id), "file"
    if words is not None and [word.text for word in words] != text.split():
        words = alignment.match_words(words, text)
    return words, words_from


def no_word_times(report: Report, where: str, error: Exception) -> None:
    """Reports word times that could not be had or used."""
    cause, cure = cause_and_cure(error, where)
    report.left_out(where, cause, cure or "correct the text or the times; the rest is used", what="word times")


@functools.cache
def _aligner(name: str, language: str) -> alignment.Aligner:
    return alignment.load_aligner(name, language.split("-")[0].split("_")[0].lower() or "en")


def cause_and_cure(error: Exception, where: str) -> tuple[str, str]:
    """Messages read "where: cause; cure"."""
    cause, _, cure = str(error).removeprefix(f"{where}: ").rpartition("; ")
    return (cause, cure) if cause else (cure, "")
