"""Word times by an aligner that works on many clips at a time, in the main process, behind the reading."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from jaxslm.audio.io import decode_clip, decode_flac
from jaxslm.data.reading import Reading, Result, cut, no_cut, no_word_times
from jaxslm.data.records import Utterance
from jaxslm.data.report import Report
from jaxslm.units.alignment import AlignmentError, check_words
from jaxslm.units.ctc_aligner import CtcAligner

BATCH_SECONDS = 600.0  # of audio aligned at a time
BATCH_RECORDS = 1024  # held back at most, text included, so that the order stays


def align_in_batches(
    read: Iterable[list[Result]], aligner: CtcAligner, name: str, reading: Reading
) -> Iterator[list[Result]]:
    """What the reading made of each raw utterance, in its order, with word times where speech has a text and none were
    given. What is longer than `reading.max_seconds` is cut between the words.

    name: what `Utterance.words_from` calls the aligner.
    """
    held, seconds = [], 0.0
    for results in read:
        held.append(results)
        seconds += sum(utterance.duration for _, utterance, entries in results if _wants_times(utterance, entries))
        if seconds >= BATCH_SECONDS or len(held) >= BATCH_RECORDS:
            yield from _aligned(held, aligner, name, reading)
            held, seconds = [], 0.0
    yield from _aligned(held, aligner, name, reading)


def _wants_times(utterance: Utterance | None, entries: list[dict]) -> bool:
    """Bad times that came with the record are not replaced: what is wrong there is for the user to say."""
    return (
        utterance is not None
        and bool(utterance.text and utterance.audio and not utterance.words)
        and not any(entry["what"] == "word times" for entry in entries)
    )


def _aligned(held: list[list[Result]], aligner: CtcAligner, name: str, reading: Reading) -> Iterator[list[Result]]:
    wanting = [utterance for results in held for _, utterance, entries in results if _wants_times(utterance, entries)]
    clips = [decode_flac(utterance.audio) for utterance in wanting]
    texts, languages = [u.text for u in wanting], [u.language or "en" for u in wanting]
    found = iter(aligner.align_batch(clips, texts, languages))
    for results in held:
        aligned = []
        for result in results:
            aligned += _with_words(result, next(found), name, reading) if _wants_times(*result[1:]) else [result]
        yield aligned


def _with_words(result: Result, words, name: str, reading: Reading) -> list[Result]:
    raw, utterance, entries = result
    report, too_long = Report(entries, log=False), utterance.duration > reading.max_seconds
    try:
        if isinstance(words, AlignmentError):
            raise words
        if too_long:
            return cut(raw, decode_clip(utterance.audio), words, name, reading, report)
        words = check_words(words, utterance.text, utterance.duration, raw.where)
        utterance = replace(utterance, words=words, words_from=name)
    except ValueError as error:
        if too_long:
            cause = f"{utterance.duration:.1f} s is longer than the limit of {reading.max_seconds:g} s"
            report.left_out(raw.where, *no_cut(cause, error, raw.where))
            utterance = None
        else:
            no_word_times(report, raw.where, error)
    return [(raw, utterance, report.entries)]
