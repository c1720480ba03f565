"""Word times by an aligner that works on many clips at a time, in the main process, behind the reading."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from jaxslm.audio.io import decode_flac
from jaxslm.data.reading import Result, no_word_times
from jaxslm.data.records import Utterance
from jaxslm.data.report import Report
from jaxslm.units.alignment import AlignmentError, check_words
from jaxslm.units.ctc_aligner import CtcAligner

BATCH_SECONDS = 600.0  # of audio aligned at a time
BATCH_RECORDS = 1024  # held back at most, text included, so that the order stays


def align_in_batches(results: Iterable[Result], aligner: CtcAligner, name: str) -> Iterator[Result]:
    """The results of the reading in their order, with word times where speech has a text and none were given.

    name: what `Utterance.words_from` calls the aligner.
    """
    held, seconds = [], 0.0
    for result in results:
        held.append(result)
        seconds += result[1].duration if _wants_times(result[1], result[2]) else 0.0
        if seconds >= BATCH_SECONDS or len(held) >= BATCH_RECORDS:
            yield from _aligned(held, aligner, name)
            held, seconds = [], 0.0
    yield from _aligned(held, aligner, name)


def _wants_times(utterance: Utterance | None, entries: list[dict]) -> bool:
    """Bad times that came with the record are not replaced: what is wrong there is for the user to say."""
    return (
        utterance is not None
        and bool(utterance.text and utterance.audio and not utterance.words)
        and not any(entry["what"] == "word times" for entry in entries)
    )


def _aligned(held: list, aligner: CtcAligner, name: str) -> Iterator[Result]:
    wanting = [utterance for _, utterance, entries in held if _wants_times(utterance, entries)]
    clips = [decode_flac(utterance.audio) for utterance in wanting]
    texts, languages = [u.text for u in wanting], [u.language or "en" for u in wanting]
    found = iter(aligner.align_batch(clips, texts, languages))
    for raw, utterance, entries in held:
        if not _wants_times(utterance, entries):
            yield raw, utterance, entries
            continue
        report, words = Report(entries, log=False), next(found)
        try:
            if isinstance(words, AlignmentError):
                raise words
            words = check_words(words, utterance.text, utterance.duration, raw.where)
            utterance = replace(utterance, words=words, words_from=name)
        except ValueError as error:
            no_word_times(report, raw.where, error)
        yield raw, utterance, report.entries
