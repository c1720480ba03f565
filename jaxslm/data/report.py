"""What a preparation left out or repaired, and why, and how far word times reach: nothing is dropped silently."""

from __future__ import annotations

import json
import logging
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jaxslm.data.records import Utterance

logger = logging.getLogger(__name__)

SHOWN = 3  # examples logged and summarised a cause; all of them are in the saved file
_ALIGN = "for interleaving set data.alignment to 'pocketsphinx' (English; pip install 'jaxslm[demo]') or 'ctc:FOLDER'"


class Coverage:
    """Word times of the transcribed speech of one source: how many utterances have them, from where, and how much of
    the audio lies in words.
    """

    def __init__(self):
        self.utterances, self.seconds, self.in_words, self.origins = 0, 0.0, 0.0, Counter()

    def add(self, utterance: Utterance) -> None:
        if utterance.text and utterance.duration:
            self.utterances += 1
            self.seconds += utterance.duration
            self.in_words += sum(word.end - word.start for word in utterance.words)
            self.origins[utterance.words_from] += bool(utterance.words)

    def merge(self, other: Coverage) -> None:
        self.utterances += other.utterances
        self.seconds += other.seconds
        self.in_words += other.in_words
        self.origins.update(other.origins)

    def to_json(self) -> dict:
        return dict(vars(self), origins=dict(self.origins))

    @classmethod
    def from_json(cls, fields: Mapping) -> Coverage:
        coverage = cls()
        vars(coverage).update(fields, origins=Counter(fields["origins"]))
        return coverage

    def __str__(self) -> str:
        origins = ", ".join(f"{count} {origin}" for origin, count in sorted((+self.origins).items()))
        origins = f" ({origins})" if origins else ""
        share = self.in_words / self.seconds
        head = f"{self.origins.total()} of {self.utterances} utterances have word times{origins}"
        return f"{head}, over {share:.0%} of {self.seconds / 3600:.2f} h"


class Report:
    """A list of entries, each a dict of `kind` ("left out", "note" or "coverage"), `what`, `where`, `cause` and
    `cure`."""

    def __init__(self, entries: Iterable[dict] = (), *, log: bool = True):
        self.entries: list[dict] = []
        self._groups: dict[tuple[str, str, str], list[dict]] = defaultdict(list)
        self._log = False
        self.extend(entries)
        self._log = log

    def left_out(self, where: str, cause: str, cure: str = "", *, what: str = "utterance") -> None:
        """`what` (an utterance, a document, or one part of it such as its word times) at `where` is not used."""
        self.extend([dict(kind="left out", what=what, where=where, cause=cause, cure=cure)])

    def note(self, where: str, what: str) -> None:
        """Something was repaired and used ("2 channels mixed down")."""
        self.extend([dict(kind="note", what="note", where=where, cause=what, cure="")])

    def coverage(self, source: str, coverage: Coverage) -> None:
        """How many utterances of a source have word times; nothing is said of a source without transcribed speech."""
        if coverage.utterances:
            cure = "" if coverage.origins.total() or self.count(what="word times") else _ALIGN
            entry = dict(kind="coverage", what="word times", where=source, cause=str(coverage), cure=cure)
            self.extend([entry])

    def extend(self, entries: Iterable[dict]) -> None:
        """Takes over entries of another report; the first few of each cause are logged."""
        for entry in entries:
            self.entries.append(entry)
            group = self._groups[_group(entry)]
            group.append(entry)
            if self._log and len(group) <= SHOWN:
                _log(entry, last=len(group) == SHOWN)

    def count(self, kind: str = "left out", what: str | None = None) -> int:
        return sum(entry["kind"] == kind and what in (None, entry["what"]) for entry in self.entries)

    def left_out_by_kind(self) -> dict[str, int]:
        """How many utterances, documents, ... are not used."""
        return dict(Counter(entry["what"] for entry in self.entries if entry["kind"] == "left out"))

    def summary(self) -> str:
        """Counts by cause, most frequent first, with the first places and the cure of each; word times by source."""
        covered = [entry for entry in self.entries if entry["kind"] == "coverage"]
        lines = [f"{entry['where']}: {entry['cause']}" for entry in covered]
        lines += [f"    {cure}" for cure in {entry["cure"]: None for entry in covered} if cure]
        if len(covered) == len(self.entries):
            return "\n".join(["nothing was left out", *lines])
        for (kind, what, cause), entries in sorted(
            self._groups.items(), key=lambda item: (item[0][0], -len(item[1]), item[0])
        ):
            if kind == "coverage":
                continue
            cause = entries[0]["cause"] if len({entry["cause"] for entry in entries}) == 1 else cause
            head = f"{len(entries)} x {cause}" if kind == "note" else f"{len(entries)} x {what} left out: {cause}"
            more = ", ..." if len(entries) > SHOWN else ""
            lines.append(f"{head} ({', '.join(entry['where'] for entry in entries[:SHOWN])}{more})")
            if entries[0]["cure"]:
                lines.append(f"    {entries[0]['cure']}")
        return "\n".join(lines)

    def save(self, path: str | Path) -> None:
        """Writes one JSON object a line, in the order of the places, whatever the order in which they were found."""
        entries = sorted(self.entries, key=lambda entry: _natural(entry["where"]))
        lines = (json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries)
        Path(path).write_text("".join(lines), encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Report:
        """Reads what `save` wrote; an absent file is an empty report."""
        path = Path(path)
        lines = path.read_text(encoding="utf-8").split("\n") if path.exists() else []
        return cls((json.loads(line) for line in lines if line), log=False)


def _natural(where: str) -> list[str | int]:
    """Sorts "m:9" before "m:10"."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", where)]


def _log(entry: dict, *, last: bool) -> None:
    left_out = entry["kind"] == "left out"
    level = logging.WARNING if left_out else logging.INFO
    what = f"{entry['what']} left out: " if left_out else ""
    cure = f"; {entry['cure']}" if entry["cure"] else ""
    more = " (more of this kind are only counted)" if last else ""
    logger.log(level, "%s: %s%s%s%s", entry["where"], what, entry["cause"], cure, more)


def _group(entry: dict) -> tuple[str, str, str]:
    """Entries whose causes differ only in numbers and quoted names count as one cause."""
    return entry["kind"], entry["what"], re.sub(r"'[^']*'|\"[^\"]*\"|-?\d+(\.\d+)?", "…", entry["cause"])
