"""What a likelihood suite asks: which of several continuations does a model find likelier? A pair is a choice of two.

A reader of jaxslm/evaluation/suites makes `Choice`s of the files of a published suite; scoring.py gives each option
a sum of log-likelihoods and a number of scored tokens; `accuracies` are what is reported.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

SUM, MEAN = "sum", "mean"  # of the log-likelihoods of an option's scored tokens: "unnormalised" and "normalised"
TIE = 0.5  # what an answer counts that is as likely as another option


@dataclass(frozen=True)
class Part:
    """A stretch of text (`text`), or of speech: sound files that are said in one breath (joined before they are
    encoded), or unit indices.
    """

    text: str = ""
    audio: tuple[Path, ...] = ()
    units: tuple[int, ...] | None = None

    @property
    def is_speech(self) -> bool:
        return bool(self.audio) or self.units is not None


@dataclass(frozen=True)
class Choice:
    """One question.

    Attributes:
      id: unique in its suite.
      options: each a row of parts; `options[answer]` is the right one. Their tokens are scored.
      context: comes before each option, and is not scored.
      item: questions of the same item are averaged first, such as the voices of one pair of words; default: the id.
      tags: what accuracies are told apart by, such as {"frequency": "6-20"}; the values of a tag are shown in the order
        in which the suite first has them.
      inventory: SHA-256 of the unit inventory that `units` of its parts belong to.
      names: of the options in the suite's own score files, () where it has none.
    """

    id: str
    options: tuple[tuple[Part, ...], ...]
    answer: int = 0
    context: tuple[Part, ...] = ()
    item: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    names: tuple[str, ...] = ()
    inventory: str = ""


@dataclass(frozen=True)
class Accuracy:
    """`value` is NaN where nothing could be counted. items: that are averaged; not_a_number: choices that are left out
    because an option's score is not finite."""

    value: float
    items: int
    not_a_number: int = 0


def correctness(scores: np.ndarray, answer: int) -> float:
    """1 where the answer's score is above all others, 0 where another is above it, `TIE` where it is as high as the
    highest of the others. NaN where a score is not finite."""
    if not np.all(np.isfinite(scores)):
        return float("nan")
    best_other = np.max(np.delete(scores, answer))
    return 1.0 if scores[answer] > best_other else TIE if scores[answer] == best_other else 0.0


def accuracies(choices: Sequence[Choice], right: Sequence[float]) -> dict[str, Accuracy]:
    """{"all": .., "<tag>=<value>": ..} of what `correctness` says of each choice: the mean over items of the mean over
    an item's choices, without those that are not a number, which are counted."""
    groups: dict[str, list[int]] = defaultdict(list)
    for i, choice in enumerate(choices):
        groups["all"].append(i)
        for tag, value in choice.tags.items():
            groups[f"{tag}={value}"].append(i)
    found = {}
    for name, members in groups.items():
        items: dict[str, list[float]] = defaultdict(list)
        for i in members:
            if np.isfinite(right[i]):
                items[choices[i].item or choices[i].id].append(right[i])
        value = float(np.mean([np.mean(each) for each in items.values()])) if items else float("nan")
        lost = sum(not np.isfinite(right[i]) for i in members)
        found[name] = Accuracy(value, len(items), lost)
    return found
