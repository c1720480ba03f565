"""Speech-text sentiment preservation (SpiRit-LM, Nguyen et al. 2024, section 5.3): is a sentiment kept when a model
goes on, in speech or in text?

Files as the authors' evaluation has them: references `{"id", "emotion" or "sentiment", ...}` and predictions `{"id",
"pred"}`, JSON lines. Emotions count as the sentiment they belong to.
"""

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SENTIMENTS = ("positive", "negative", "neutral")
OF_EMOTIONS = dict(happy="positive", amused="positive", angry="negative", sad="negative", default="neutral")


@dataclass(frozen=True)
class Preservation:
    """accuracy: over all references. by_sentiment: of those of each. confusion: {"reference->prediction": n}."""

    accuracy: float
    references: int
    by_sentiment: dict[str, float]
    confusion: dict[str, int]


def preservation(references: Path, predictions: Path) -> Preservation:
    """Compares two files by their ids. Raises ValueError naming lines that are wrong, ids without a partner, and labels
    outside of the set."""
    expected, given = _read(references, ("sentiment", "emotion")), _read(predictions, ("pred",))
    for one, other, where in ((expected, given, predictions), (given, expected, references)):
        if missing := [id for id in one if id not in other]:
            raise ValueError(f"{where} has no line for {len(missing)} ids of the other file, such as '{missing[0]}'")
    pairs = Counter((expected[id], given[id]) for id in expected)
    of = Counter(expected.values())
    right = {sentiment: pairs[sentiment, sentiment] for sentiment in of}
    return Preservation(
        accuracy=sum(right.values()) / len(expected),
        references=len(expected),
        by_sentiment={sentiment: right[sentiment] / n for sentiment, n in sorted(of.items())},
        confusion={f"{a}->{b}": n for (a, b), n in sorted(pairs.items())},
    )


def _read(path: Path, fields: tuple[str, ...]) -> dict[str, str]:
    found: dict[str, str] = {}
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no UTF-8 ({error.reason} at byte {error.start}): convert it") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            row = json.loads(line)
            id, label = str(row["id"]), next(row[field] for field in fields if field in row)
        except (ValueError, TypeError, KeyError, StopIteration) as error:
            raise ValueError(f'{where} is no {{"id": .., "{fields[0]}": ..}}') from error
        if id in found:
            raise ValueError(f"{where}: the id '{id}' is that of an earlier line")
        found[id] = _sentiment(label, where)
    if not found:
        raise ValueError(f"{path} has no lines")
    return found


def _sentiment(label: Any, where: str) -> str:
    name = OF_EMOTIONS.get(label, label) if isinstance(label, str) else label
    if name not in SENTIMENTS:
        known = ", ".join((*SENTIMENTS, *OF_EMOTIONS))
        raise ValueError(f"{where}: the label {label!r} is not one of {known}")
    return name
