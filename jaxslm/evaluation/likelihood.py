"""Likelihood suites over a model: sWUGGY, sBLIMP, StoryCloze, SALMon and whatever has the form of `Choice`s."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from jaxslm.evaluation.choices import MEAN, SUM, Accuracy, Choice, accuracies, correctness
from jaxslm.evaluation.results import write_result
from jaxslm.evaluation.scoring import Batches, Scorer, Tokens


@dataclass(frozen=True)
class Suite:
    """A suite as token ids. protocol: how its scores are made, in words; left_out: how many choices, rows, recordings,
    ... of its files are not used."""

    name: str
    choices: Sequence[Choice]
    options: Sequence[Sequence[Tokens]]  # of each choice
    protocol: str
    left_out: Mapping[str, int] = field(default_factory=dict)

    @property
    def chance(self) -> float:
        """The accuracy of guessing."""
        return float(np.mean([1 / len(choice.options) for choice in self.choices]))

    def batches(self, scorer: Scorer) -> Batches:
        return scorer.batches([tokens for options in self.options for tokens in options])


@dataclass(frozen=True)
class Scores:
    """log_likelihoods: sums, of each option of each choice; accuracies: {"sum": {group: Accuracy}, "mean": ..}; longer:
    options that are longer than the model's rows in training, `context`."""

    suite: Suite
    log_likelihoods: list[np.ndarray]
    accuracies: Mapping[str, Mapping[str, Accuracy]]
    longer: int
    context: int

    def figures(self) -> dict[str, float]:
        """{"suite/<name>/<group>/<sum or mean>": accuracy}, what guessing gets, how many choices there are, how many of
        them have no score, and how much of the suite's files is not used."""
        name = self.suite.name
        found = {
            f"suite/{name}/{group}/{kind}": accuracy.value
            for kind, groups in self.accuracies.items()
            for group, accuracy in groups.items()
        }
        lost = self.accuracies[SUM]["all"].not_a_number
        counts = dict(choices=len(self.suite.choices), not_a_number=lost, left_out=sum(self.suite.left_out.values()))
        return found | {f"suite/{name}/{key}": float(n) for key, n in dict(chance=self.suite.chance, **counts).items()}


def score_suite(suite: Suite, scorer: Scorer, model: Any, batches: Batches | None = None, progress: str = "") -> Scores:
    """What `model` makes of a suite; `batches` are those of `suite.batches`, if they are there."""
    flat = scorer(model, batches or suite.batches(scorer), progress=progress)
    log_likelihoods, at = [], 0
    for options in suite.options:
        log_likelihoods.append(flat[at : at + len(options)])
        at += len(options)
    counts = [np.array([tokens.scored.sum() for tokens in options]) for options in suite.options]
    right = {
        SUM: [correctness(s, c.answer) for s, c in zip(log_likelihoods, suite.choices, strict=True)],
        MEAN: [correctness(s / n, c.answer) for s, n, c in zip(log_likelihoods, counts, suite.choices, strict=True)],
    }
    found = {kind: accuracies(suite.choices, each) for kind, each in right.items()}
    longer = sum(len(tokens.ids) - 1 > scorer.context for options in suite.options for tokens in options)
    return Scores(suite, log_likelihoods, found, longer, scorer.context)


def as_table(scores: Scores) -> str:
    """Accuracy by group under both normalisations, and how they were made."""
    groups = scores.accuracies[SUM]
    lines = [f"{scores.suite.name:<32} {'sum':>6} {'mean':>6}   items"]
    for group, by_sum in groups.items():
        by_mean = scores.accuracies[MEAN][group]
        lines.append(f"  {group:<30} {by_sum.value:6.3f} {by_mean.value:6.3f}  {by_sum.items:6d}")
    if lost := groups["all"].not_a_number:
        lines.append(f"{lost} of {len(scores.suite.choices)} have a score that is no number, and are left out")
    if scores.longer:
        lines.append(f"{scores.longer} options are longer than the {scores.context} tokens of a row in training")
    return "\n".join([*lines, f"chance {scores.suite.chance:.3f}; {scores.suite.protocol}"])


def write_scores(scores: Scores, out: Path, model: str) -> None:
    """OUT/<name>.json with the table and its protocol, and OUT/<name>.jsonl with every choice's log-likelihoods."""
    suite, rows = scores.suite, []
    table = {kind: {group: asdict(a) for group, a in groups.items()} for kind, groups in scores.accuracies.items()}
    whole = dict(suite=suite.name, model=model, choices=len(suite.choices), protocol=suite.protocol, accuracy=table)
    whole |= dict(
        left_out=dict(suite.left_out), chance=suite.chance, longer_than_context=scores.longer, context=scores.context
    )
    for choice, options, sums in zip(suite.choices, suite.options, scores.log_likelihoods, strict=True):
        row = dict(id=choice.id, answer=choice.answer, tags=dict(choice.tags))
        row["log_likelihood"] = list(map(float, sums))
        row["tokens"] = [int(tokens.scored.sum()) for tokens in options]
        rows.append(row)
    write_result(out, suite.name, whole, rows)


def named_scores(scores: Scores) -> dict[str, float]:
    """Mean log-likelihoods by the options' names in the suite's own score files, {} where it has none."""
    suite = scores.suite
    return {
        name: float(s / tokens.scored.sum())
        for choice, options, sums in zip(suite.choices, suite.options, scores.log_likelihoods, strict=True)
        for name, tokens, s in zip(choice.names, options, sums, strict=False)
    }
