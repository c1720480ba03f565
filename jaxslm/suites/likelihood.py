"""sWUGGY, sBLIMP, StoryCloze, SALMon, JSON lines: accuracies by log-likelihood of a language model's run."""

import argparse
from pathlib import Path

import jax

from jaxslm.configure import read_config
from jaxslm.data.report import Report
from jaxslm.evaluation.likelihood import as_table, named_scores, score_suite, write_scores
from jaxslm.evaluation.suites import read_suite, zerospeech
from jaxslm.evaluation.suites.storycloze import MODES
from jaxslm.tasks.likelihood import make_suite
from jaxslm.tasks.opened_lm import open_lm

SLM21 = dict(swuggy="lexical", sblimp="syntactic")  # folders of a submission


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--workdir", type=Path, required=True, help="of a run, or a Hugging Face folder (text alone)")
    parser.add_argument("--step", type=int, help="checkpoint; default: the newest")
    parser.add_argument("--path", type=Path, required=True, help="of the suite in its published layout")
    parser.add_argument("--split", help="of sWUGGY and sBLIMP: dev or test; default: dev")
    parser.add_argument("--modes", help=f"of StoryCloze, such as {','.join(MODES)}; default: S")
    parser.add_argument("--parts", help="of SALMon; default: all that are there")
    parser.add_argument("--limit", type=int, help="the first so many choices; default: all")
    parser.add_argument("--name", help="of the files that are written; default: that of the suite")
    parser.add_argument("--score_end", action="store_true", help="score </s>, too")
    parser.add_argument("--out", type=Path, help="folder for the table and the scores; default: WORKDIR/evaluations")


def run(flags: argparse.Namespace) -> str:
    report = Report()
    spec = dict(kind=flags.suite, path=str(flags.path), limit=flags.limit)
    for name in ("split", "modes", "parts"):
        if (value := getattr(flags, name)) is not None:
            spec[name] = value.split(",") if name != "split" else value
    choices = read_suite(spec, report)
    opened = open_lm(flags.workdir, flags.step)
    cache = Path(read_config(flags.workdir).data.cache).expanduser() if opened.inventory else flags.workdir
    how = dict(vocabulary=opened.vocabulary, tokenizer=opened.tokenizer, inventory=opened.inventory, cache=cache)
    suite = make_suite(flags.name or flags.suite, choices, **how, report=report, score_end=flags.score_end)
    scores = score_suite(suite, opened.scorer, opened.model, progress=flags.suite)
    out = flags.out or flags.workdir / "evaluations"
    unwritten = ""
    if jax.process_index() == 0:
        write_scores(scores, out, model=opened.name)
        if flags.suite in SLM21:
            submission = out / SLM21[flags.suite] / f"{flags.split or 'dev'}.txt"
            submission.unlink(missing_ok=True)  # that of an earlier evaluation
            try:
                zerospeech.write_scores(submission, named := named_scores(scores))
                unwritten = f"\nfor zrc, by mean: {submission}, {len(named)} recordings"
                if report.count() or flags.limit:
                    unwritten += "; zrc wants one of every recording in the split, and some are left out here"
            except ValueError as error:  # a score that is no number: the table counts it
                unwritten = f"\nno file of scores for zrc: {error}"
    left_out = f"\n{report.summary()}" if report.count() else ""
    return f"{opened.name}\n{as_table(scores)}{left_out}{unwritten}\nevery score: {out / suite.name}.jsonl"
