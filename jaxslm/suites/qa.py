"""Spoken questions answered in text or speech by a language model, or predictions that are there, and matched."""

import argparse
import json
from collections import defaultdict
from pathlib import Path

import jax
import numpy as np

from jaxslm.data.report import Report
from jaxslm.evaluation.judges import LIST, TEXT, ask
from jaxslm.evaluation.normalizers import NORMALIZERS, normalizer
from jaxslm.evaluation.spoken_qa import SpokenQuestion, judge, read_questions
from jaxslm.generation.chain import Request
from jaxslm.generation.sampler import Sampling
from jaxslm.generation.speech_text import complete, prompt_ids
from jaxslm.suites.spoken import groups
from jaxslm.tasks.opening import open_named

TO = ("text", "speech")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--questions", type=Path, required=True, help="JSON lines: index, audio_path, answer, subset")
    parser.add_argument("--workdir", type=Path, help="of a language model's run; without one, each line's `prediction`")
    parser.add_argument("--step", type=int, help="checkpoint; default: the newest")
    parser.add_argument("--acoustic", help="run of what speaks, for --to=speech; default: the run's own voice")
    parser.add_argument("--to", default="text", choices=TO, help="answers in; default: text")
    parser.add_argument("--asr", help=f"command that hears spoken answers, with {LIST}: see evaluation/judges.py")
    parser.add_argument("--normalizer", default=NORMALIZERS[0], choices=NORMALIZERS, help="default: whisper-english")
    parser.add_argument("--max_new_tokens", type=int, default=100, help="of an answer; default: 100")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="folder for qa.json, qa.jsonl and sound")


def run(flags: argparse.Namespace) -> str:
    report, normalize = Report(), normalizer(flags.normalizer)
    questions = list(read_questions(flags.questions, report))
    wanted = [q for q in questions if (q.audio if flags.workdir else q.prediction) is not None]
    if not wanted:
        what = "audio_path" if flags.workdir else "prediction (or name a model by --workdir)"
        raise ValueError(f"{flags.questions}: none of {len(questions)} questions has {what}\n{report.summary()}")
    if flags.workdir and flags.to == "speech" and not flags.asr:
        raise ValueError("spoken answers need a judge that hears them: --asr=COMMAND")
    flags.out.mkdir(parents=True, exist_ok=True)
    said = answer(flags, wanted) if flags.workdir else [q.prediction for q in wanted]
    by_subset: dict[str, list[dict]] = defaultdict(list)
    with (flags.out / "qa.jsonl").open("w", encoding="utf-8") as file:
        for question, text in zip(wanted, said, strict=True):
            right = judge(text, question.answers, normalize)
            row = dict(index=question.id, subset=question.subset, question=question.question)
            row |= dict(answer=list(question.answers), prediction=text, **right)
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            for name in dict.fromkeys(("all", question.subset)):
                by_subset[name].append(right)
    table = {
        name: dict(questions=len(rows), **{kind: float(np.mean([r[kind] for r in rows])) for kind in rows[0]})
        for name, rows in by_subset.items()
    }
    spoken = flags.workdir and flags.to == "speech"
    facts = dict(judge=f"match, after {flags.asr}" if spoken else "match", normalizer=flags.normalizer, ceiling=None)
    facts |= dict(model=str(flags.workdir) if flags.workdir else "predictions of the file", to=flags.to)
    whole = dict(suite="qa", file=str(flags.questions), without=len(questions) - len(wanted), **facts, accuracy=table)
    (flags.out / "qa.json").write_text(json.dumps(whole, indent=1, ensure_ascii=False), encoding="utf-8")
    lines = [f"{'':<24} {'exact':>6} {'contains':>8} {'questions':>9}"]
    lines += [f"{n:<24} {r['exact']:6.3f} {r['contains']:8.3f} {r['questions']:9d}" for n, r in table.items()]
    left_out = f"\n{report.summary()}" if report.count() else ""
    return "\n".join([*lines, f"judge: {facts['judge']}; normalizer {flags.normalizer}{left_out}"])


def answer(flags: argparse.Namespace, questions: list[SpokenQuestion]) -> list[str]:
    """What a model says after each question: text behind `[Text]`, or a continuation in speech, heard by the judge."""
    spoken = flags.to == "speech"
    chain = open_named(flags.workdir, flags.acoustic, flags.step, language=True, sound=spoken)
    language, said = chain.language, []
    for first, group in groups(questions, "answering"):
        clips = [chain.recording(q.audio) for q in group]
        if spoken:
            requests = [Request("speech", audio=clip, id=q.id) for clip, q in zip(clips, group, strict=True)]
            places, sampling = range(first, first + len(group)), dict(max_new_tokens=flags.max_new_tokens)
            answers = chain.answer(requests, seed=flags.seed, places=places, sampling=sampling)
            for number, each in enumerate(answers, first):
                if each.samples is not None:
                    each.save(flags.out / f"{number:05d}.wav")
            continue
        prompts = []
        for units in chain.inventory.encode_batch([clip.heard for clip in clips]):
            ids = prompt_ids(language.vocabulary, language.tokenizer, units=units.ids, to="speech")
            prompts.append((*ids, *language.vocabulary.text_start))
        sampling = Sampling(max_new_tokens=flags.max_new_tokens, temperature=0.0)
        how = dict(to="text", sampling=sampling, key=jax.random.key(flags.seed))
        said += [a.text for a in complete(language.model, language.vocabulary, language.tokenizer, prompts, **how)]
    if not spoken:
        return said
    files = {i: (flags.out / f"{i:05d}.wav").resolve() for i in range(len(questions))}
    there = {i: path for i, path in files.items() if path.is_file()}
    heard = dict(zip(there, ask(flags.asr, list(there.values()), TEXT), strict=True)) if there else {}
    return [heard.get(i, "") for i in files]
