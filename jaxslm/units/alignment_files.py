"""Word times in the files aligners write: Praat TextGrid (Montreal Forced Aligner), NIST CTM (Kaldi, NeMo) and JSON.

All readers return words as the aligner wrote them, silences included; `match_words` puts them onto the text.
"""

import functools
import json
import re
from collections import defaultdict
from pathlib import Path

from jaxslm.units.words import Word

# In either TextGrid form the values are the quoted strings and the numbers; names and [indices] only help the eye.
_TEXTGRID_VALUE = re.compile(r'"((?:[^"]|"")*)"|\[[^\]"]*\]|(?<![\w.])([-+]?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?)(?![\w.])')

ALIGNMENT_FILES = (".TextGrid", ".textgrid", ".json", ".ctm")
_TIERS = {
    "words": re.compile(r"(.* - )?words?|ort-mau", re.IGNORECASE),
    "phones": re.compile(r"(.* - )?phones?|mau", re.IGNORECASE),
}
_UNTIMED = {"word", "speaker", "score", "case", "startOffset", "endOffset"}  # what an entry without times may hold
_CTM_FILES = 8  # kept as read: a file of a whole corpus is asked for once an utterance


def find_alignment(audio_path: str | Path, utterance_id: str) -> list[Word] | None:
    """Words from the file beside the audio that has its name and ends in .TextGrid, .json or .ctm; None if there is
    none.

    `audio_path` may also be such a file itself. A JSON file that holds something else than word times is passed over.
    """
    path = Path(audio_path)
    beside = [path.with_suffix(suffix) for suffix in ALIGNMENT_FILES]
    candidates = [path] if path.suffix in ALIGNMENT_FILES else beside
    for candidate in candidates:
        if not candidate.is_file():
            continue
        if candidate.suffix == ".ctm":
            return read_ctm(candidate, utterance_id)
        if candidate.suffix == ".json":
            if candidate != path and _entries(_load_json(candidate)) is None:
                continue
            return read_word_json(candidate)
        return read_textgrid(candidate)
    return None


def read_textgrid(path: str | Path, tier: str = "words") -> list[Word]:
    """Intervals of the tier "words", "word", "SPEAKER - words" (MFA) or "ORT-MAU" (WebMAUS), or of the only interval
    tier, in the long or the short text form.

    Args:
      tier: "words", or "phones" for the tier of that name ("phone", "SPEAKER - phones", "MAU").

    Raises:
      ValueError: not a TextGrid, cut off, or no such tier.
    """
    text = _decode(Path(path))
    values = [
        match[1].replace('""', '"') if match[1] is not None else float(match[2])
        for match in _TEXTGRID_VALUE.finditer(text)
        if match[1] is not None or match[2]
    ]
    tiers = {}
    try:
        if values[1] != "TextGrid":
            raise ValueError(f"its object class is {values[1]!r}")
        n_tiers, at = int(values[4]), 5
        for _ in range(n_tiers):
            kind, name, n_items = values[at], values[at + 1], int(values[at + 4])
            width = 3 if kind == "IntervalTier" else 2
            items = values[at + 5 : at + 5 + width * n_items]
            at += 5 + width * n_items
            if kind == "IntervalTier":
                rows = zip(items[0::3], items[1::3], items[2::3], strict=True)
                tiers[name] = [Word(_string(label), float(start), float(end)) for start, end, label in rows]
        if at > len(values):
            raise ValueError("it is cut off")
    except (IndexError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path}: not a TextGrid in text form ({error}); save it again from Praat or the aligner"
        ) from error
    wanted = [name for name in tiers if _TIERS[tier].fullmatch(name)]
    if not wanted and tier == "words":
        wanted = list(tiers)
    if len(wanted) != 1:
        raise ValueError(f"{path}: its interval tiers are {list(tiers)}; name the one with the {tier} '{tier}'")
    return tiers[wanted[0]]


def read_ctm(path: str | Path, utterance_id: str) -> list[Word]:
    """Lines `utterance channel start duration word [confidence]` of the utterance (its id, or the name of the file).

    Raises:
      ValueError: a malformed line, or no line of the utterance.
    """
    path = Path(path)
    stat = path.stat()
    lines = _ctm_lines(path, stat.st_mtime_ns, stat.st_size)
    words = []
    for number, line in sorted(line for name in {utterance_id, path.stem} for line in lines.get(name, ())):
        fields = line.split()
        try:
            start, duration = float(fields[2]), float(fields[3])
            words.append(Word(fields[4], start, start + duration))
        except (IndexError, ValueError) as error:
            raise ValueError(
                f"{path}:{number}: {line!r} is not `utterance channel start duration word`; correct the line"
            ) from error
    if not words:
        raise ValueError(
            f"{path}: no line is of utterance {utterance_id!r}; its first field must be that id or the file's name"
        )
    return words


@functools.lru_cache(maxsize=_CTM_FILES)
def _ctm_lines(path: Path, modified: int, size: int) -> dict[str, list[tuple[int, str]]]:
    """Numbered lines by utterance; the time of the last change and the size tell a file that was written again."""
    lines = defaultdict(list)
    for number, line in enumerate(_decode(path).splitlines(), start=1):
        if line.strip() and not line.startswith(";;"):
            lines[line.split(maxsplit=1)[0]].append((number, line))
    return dict(lines)


def read_word_json(path: str | Path) -> list[Word]:
    """Words from a list of [word, start, end] or of {"word", "start", "end"}, bare or under "words" (gentle),
    "aligned_text" (slamkit), in "segments" (Whisper, WhisperX) or in the tier "words" of MFA's JSON.

    A word without times (WhisperX and gentle leave some) is given the gap between its neighbours.

    Raises:
      ValueError: not JSON, not one of these forms, or words without times at either end or beside each other.
    """
    entries = _entries(_load_json(Path(path)))
    if entries is None:
        raise ValueError(f'{path}: holds no word times; give [[word, start, end], ...] or {{"words": [...]}}')
    rows = []
    for number, entry in enumerate(entries, start=1):
        try:
            word, *times = _row(entry)
            start, end = (None if time is None else float(time) for time in times)
            rows.append((_string(word), start, end))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{path}: word {number} is {entry!r}; give [word, start, end] with times in seconds"
            ) from error
    return [_timed(rows, i, path) for i in range(len(rows))]


def _row(entry: object) -> tuple | list:
    if not isinstance(entry, dict):
        return entry
    if entry.keys() <= _UNTIMED:
        return entry["word"], None, None
    return entry["word"], entry["start"], entry["end"]


def _timed(rows: list[tuple], i: int, path: str | Path) -> Word:
    word, start, end = rows[i]
    if start is None or end is None:
        start = rows[i - 1][2] if i else None
        end = rows[i + 1][1] if i + 1 < len(rows) else None
        if start is None or end is None:
            raise ValueError(
                f"{path}: the aligner found no time for word {i + 1} ({word!r}); align the utterance again"
            )
    return Word(word, start, end)


def _entries(record: object) -> list | None:
    if not isinstance(record, dict):
        return record if isinstance(record, list) else None
    if isinstance(segments := record.get("segments"), list):
        parts = [segment.get("words") if isinstance(segment, dict) else None for segment in segments]
        return [word for words in parts for word in words] if all(isinstance(words, list) for words in parts) else None
    if isinstance(tiers := record.get("tiers"), dict):
        tier = tiers.get("words")
        intervals = tier.get("entries") if isinstance(tier, dict) else None
        return [[entry[2], *entry[:2]] for entry in intervals] if _are_intervals(intervals) else None
    found = record.get("words", record.get("aligned_text"))
    return found if isinstance(found, list) else None


def _are_intervals(entries: object) -> bool:
    return isinstance(entries, list) and all(isinstance(entry, list) and len(entry) == 3 for entry in entries)


def _load_json(path: Path) -> object:
    try:
        return json.loads(_decode(path))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}:{error.lineno}: not JSON ({error.msg}); write the file again") from error


def _decode(path: Path) -> str:
    data = path.read_bytes()
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"  # Praat writes either
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path}: not UTF-8 or UTF-16 text ({error.reason} at byte {error.start}); save it as UTF-8"
        ) from error


def _string(label: object) -> str:
    if not isinstance(label, str):
        raise TypeError(f"{label!r} is not a word")
    return label
