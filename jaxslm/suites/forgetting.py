"""What a run has forgotten of its base: loss on text, and accuracy on multiple choice, of both."""

import argparse
import dataclasses
from pathlib import Path

import jax

from jaxslm.configure import read_config
from jaxslm.data.report import Report
from jaxslm.data.sources.text import read as read_text
from jaxslm.evaluation.choices import MEAN, SUM
from jaxslm.evaluation.forgetting import text_loss
from jaxslm.evaluation.likelihood import score_suite
from jaxslm.evaluation.results import write_result
from jaxslm.evaluation.suites import read_suite
from jaxslm.tasks.likelihood import make_suite
from jaxslm.tasks.opened_lm import OpenedLM, context_of, open_lm

TOKENIZED = ("nats_per_token", "tokens")  # figures that two models of one tokenizer alone can be compared by
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
    choices, unread = None, Report()
    if flags.choices:
        choices = read_suite(dict(kind="jsonl", path=str(flags.choices), limit=flags.limit), unread)
    figures, protocols, tokenizers, most = {}, {}, {}, min(map(context_of, (base, flags.workdir))) - _MARKERS
    facts = dict(
        protocol=f"documents in pieces of at most {most} tokens behind <s> and [Text], where a vocabulary has it",
        ceiling="before",
    )
    for when, folder in (("before", base), ("after", flags.workdir)):
        opened = open_lm(folder)
        own = Report(unread.entries, log=False)  # of this model: units of sounds may be lost, too
        measured, said = _measure(opened, documents, choices, own, flags.workdir, most)
        figures[when], protocols[when] = dict(model=opened.name, **measured), said
        tokenizers[when], data = opened.vocabulary.tokenizer_sha256, opened.config["data"]
        del opened  # two models of 7B may not fit side by side
    facts |= dict(choices_protocol=protocols, same_tokenizer=len(set(tokenizers.values())) == 1)
    facts["training"] = {name: dict(data[name]) for name in ("mixture", "loss_weights") if name in data}  # of the run
    out = flags.out or flags.workdir / "evaluations"
    if jax.process_index() == 0:
        whole = dict(suite="forgetting", text=str(flags.text), choices=str(flags.choices or ""), **facts, **figures)
        write_result(out, "forgetting", whole)
    lost = Report([*report.entries, *own.entries], log=False)
    left_out = f"\n{lost.summary()}" if lost.count() else ""
    return f"{table(figures, facts['same_tokenizer'])}\n{_said(facts)}{left_out}"


def _said(facts: dict) -> str:
    lines = [facts["protocol"]]
    if not facts["same_tokenizer"]:
        lines.append("the tokenizers differ: compare bits_per_byte, not nats_per_token")
    by_protocol: dict[str, list[str]] = {}
    for when, said in facts["choices_protocol"].items():
        by_protocol.setdefault(said, []).append(when)
    lines += [f"choices {' and '.join(whens)}: {said}" for said, whens in by_protocol.items() if said]
    for name, shares in facts["training"].items():
        lines.append(f"{name} of the run: {', '.join(f'{kind} {share:.3g}' for kind, share in shares.items())}")
    return "\n".join(lines)


def _beginning(workdir: Path) -> Path:
    if not (init_from := read_config(workdir).get("init_from")):
        raise ValueError(f"{workdir} was not begun from another model (init_from): name one by --base=FOLDER")
    return Path(init_from).expanduser()


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
        found |= dict(chance=suite.chance, choices=len(suite.choices), choices_left_out=sum(suite.left_out.values()))
        found["choices_not_a_number"] = scores.accuracies[SUM]["all"].not_a_number
    return found, said


def table(figures: dict[str, dict], same_tokenizer: bool) -> str:
    """Figures before, after, and their difference, where it means something: not that of tokens of two tokenizers."""
    before, after = figures["before"], figures["after"]
    lines = [f"{'':<18} {'before':>9} {'after':>9} {'change':>9}"]
    for name in before:
        if name != "model":
            a, b = before[name], after[name]
            form = "9d" if isinstance(a, int) else "9.4f"
            change = f"{b - a:+{form}}" if same_tokenizer or name not in TOKENIZED else f"{'':>9}"
            lines.append(f"{name:<18} {a:{form}} {b:{form}} {change}".rstrip())
    return "\n".join([f"before: {before['model']}", f"after:  {after['model']}", *lines])
