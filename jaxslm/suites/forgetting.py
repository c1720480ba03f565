"""What a run has forgotten of its base: loss on text, and accuracy on multiple choice, of both."""

import argparse
import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import jax

from jaxslm.configure import read_config
from jaxslm.data.report import Report
from jaxslm.data.sources.text import read as read_text
from jaxslm.evaluation.choices import MEAN, SUM
from jaxslm.evaluation.forgetting import text_loss
from jaxslm.evaluation.likelihood import score_suite
from jaxslm.evaluation.suites import read_suite
from jaxslm.tasks.likelihood import make_suite
from jaxslm.tasks.opened_lm import OpenedLM, context_of, open_lm

_MARKERS = 1  # [Text] behind <s>, of which the first takes no place in a row


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--workdir", type=Path, required=True, help="of a run, or a Hugging Face folder")
    parser.add_argument("--base", type=Path, help="what the run began from, or any other; default: its init_from")
    parser.add_argument("--text", type=Path, required=True, help=".txt or .jsonl, or a folder: the base's own domain")
    parser.add_argument("--choices", type=Path, help="JSON lines of questions with choices, see --suite=jsonl")
    parser.add_argument("--limit", type=int, default=1000, help="documents, and questions; default: 1000")
    parser.add_argument("--out", type=Path, help="folder for forgetting.json; default: WORKDIR/evaluations")


def run(flags: argparse.Namespace) -> str:
    base = flags.base or _beginning(flags.workdir)
    report = Report()
    raws = read_text(dict(path=str(flags.text), heldout=0.0), report)
    documents = [raw.text for raw, _ in zip(raws, range(flags.limit), strict=False)]
    choices = None
    if flags.choices:
        choices = read_suite(dict(kind="jsonl", path=str(flags.choices), limit=flags.limit), report)
    figures, most = {}, min(map(context_of, (base, flags.workdir))) - _MARKERS
    facts = dict(
        protocol=f"documents in pieces of at most {most} tokens behind <s> and [Text], where a vocabulary has it",
        ceiling="before",
    )
    if choices:
        facts["chance"] = sum(1 / len(choice.options) for choice in choices) / len(choices)
    for when, folder in (("before", base), ("after", flags.workdir)):
        opened = open_lm(folder)
        measured, said = _measure(opened, documents, choices, report, flags.workdir, most)
        figures[when], facts["choices_protocol"] = dict(model=opened.name, **measured), said
        del opened  # two models of 7B may not fit side by side
    out = flags.out or flags.workdir / "evaluations"
    if jax.process_index() == 0:
        out.mkdir(parents=True, exist_ok=True)
        whole = dict(suite="forgetting", text=str(flags.text), choices=str(flags.choices or ""), **facts, **figures)
        (out / "forgetting.json").write_text(json.dumps(_plain(whole), indent=1, allow_nan=False), encoding="utf-8")
    left_out = f"\n{report.summary()}" if report.count() else ""
    return f"{_table(figures)}\n{_said(facts)}{left_out}"


def _said(facts: dict) -> str:
    lines = [facts["protocol"]]
    if "chance" in facts:
        lines.append(f"choices: {facts['choices_protocol']}; chance {facts['chance']:.3f}")
    return "\n".join(lines)


def _beginning(workdir: Path) -> Path:
    if not (init_from := read_config(workdir).get("init_from")):
        raise ValueError(f"{workdir} was not begun from another model (init_from): name one by --base=FOLDER")
    return Path(init_from).expanduser()


def _plain(value: Any) -> Any:
    """JSON has no NaN: null."""
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _measure(
    opened: OpenedLM, documents, choices, report: Report, cache: Path, most: int
) -> tuple[dict[str, float], str]:
    """Figures, and the protocol of the choices."""
    if not opened.vocabulary.has_text:
        raise ValueError(f"{opened.name} is a model of speech alone: there is no text it could forget")
    scorer = opened.scorer
    loss = text_loss(documents, opened.vocabulary, opened.tokenizer, scorer, opened.model, most=most)
    found, said = dataclasses.asdict(loss), ""
    if choices:
        how = dict(vocabulary=opened.vocabulary, tokenizer=opened.tokenizer, inventory=opened.inventory, cache=cache)
        suite = make_suite("choices", choices, **how, report=report)
        scores, said = score_suite(suite, scorer, opened.model, progress="choices"), suite.protocol
        found |= {f"accuracy_{kind}": scores.accuracies[kind]["all"].value for kind in (SUM, MEAN)}
    return found, said


def _table(figures: dict[str, dict]) -> str:
    before, after = figures["before"], figures["after"]
    lines = [f"{'':<18} {'before':>9} {'after':>9} {'change':>9}"]
    for name in before:
        if name != "model":
            a, b = before[name], after[name]
            form = "9d" if isinstance(a, int) else "9.4f"
            lines.append(f"{name:<18} {a:{form}} {b:{form}} {b - a:+{form}}")
    return "\n".join([f"before: {before['model']}", f"after:  {after['model']}", *lines])
