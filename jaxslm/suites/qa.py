"""Spoken questions answered in text or speech by a language model, or predictions that are there, and matched."""

import argparse
import dataclasses
from collections import defaultdict
from pathlib import Path

import jax
import numpy as np

from jaxslm.data.report import Report
from jaxslm.evaluation.judges import LIST
from jaxslm.evaluation.normalizers import NORMALIZERS, normalizer
from jaxslm.evaluation.results import write_result
from jaxslm.evaluation.spoken_qa import QUESTION, SpokenQuestion, judge, read_questions
from jaxslm.generation.chain import Request
from jaxslm.generation.sampler import Sampling
from jaxslm.generation.speech_text import complete, prompt_ids
from jaxslm.suites.spoken import Sound, groups, texts_of, write_sounds
from jaxslm.suites.tts import check_speaks
from jaxslm.tasks.opening import open_named

TO = ("text", "speech")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--questions", type=Path, required=True, help="JSON lines: index, audio_path, answer, subset")
    parser.add_argument(
        "--separator", default="", help="between accepted answers in one text, such as ';'; default: none"
    )
    parser.add_argument("--workdir", type=Path, help="of a language model's run; without one, each line's `prediction`")
    parser.add_argument("--step", type=int, help="checkpoint; default: the newest")
    parser.add_argument("--acoustic", help="of what speaks, for --to=speech; default: as of launch/generate.py")
    parser.add_argument("--to", default="text", choices=TO, help="answers in; default: text")
    parser.add_argument("--asr", help=f"command that hears spoken answers, with {LIST}: see evaluation/judges.py")
    parser.add_argument("--normalizer", default=NORMALIZERS[0], choices=NORMALIZERS, help="default: whisper-english")
    parser.add_argument("--max_new_tokens", type=int, default=100, help="of an answer; default: 100")
    parser.add_argument("--temperature", type=float, default=0.0, help="default: 0, greedy")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="folder for qa.json, qa.jsonl and sound")


def run(flags: argparse.Namespace) -> str:
    if flags.workdir and flags.to == "speech" and not flags.asr:
        raise ValueError("spoken answers need a judge that hears them: --asr=COMMAND")
    report, normalize = Report(), normalizer(flags.normalizer)
    questions = list(read_questions(flags.questions, report, separator=flags.separator))
    lines = len(questions) + report.count()
    wanted = _answerable(flags, questions, normalize, report)
    flags.out.mkdir(parents=True, exist_ok=True)
    sampling = Sampling(max_new_tokens=flags.max_new_tokens, temperature=flags.temperature)
    said = answer(flags, wanted, sampling, report) if flags.workdir else [q.prediction for q in wanted]
    rows, by_subset = [], defaultdict(list)
    for question, text in zip(wanted, said, strict=True):
        if text is None:
            continue
        right = judge(text, question.answers, normalize)
        row = dict(index=question.id, subset=question.subset, question=question.question)
        rows.append(row | dict(answer=list(question.answers), prediction=text, **right))
        for name in dict.fromkeys(("all", question.subset)):
            by_subset[name].append(right)
    if not by_subset:
        raise ValueError(f"{flags.questions}: none of {len(wanted)} questions could be asked\n{report.summary()}")
    table = {
        name: dict(questions=len(found), **{kind: float(np.mean([r[kind] for r in found])) for kind in found[0]})
        for name, found in by_subset.items()
    }
    facts = _facts(flags, sampling) | dict(without=lines - table["all"]["questions"])
    whole = dict(suite="qa", file=str(flags.questions), **facts, accuracy=table)
    write_result(flags.out, "qa", whole, rows)
    lines = [f"{'':<24} {'exact':>6} {'contains':>8} {'questions':>9}"]
    lines += [f"{n:<24} {r['exact']:6.3f} {r['contains']:8.3f} {r['questions']:9d}" for n, r in table.items()]
    left_out = f"\n{report.summary()}" if report.count() else ""
    accepted = sum(len(question.answers) for question in wanted)
    lines.append(f"{accepted} accepted answers to {len(wanted)} questions (--separator parts several in one text)")
    lines.append(f"judge: {facts['judge']}; normalizer {flags.normalizer}; ceiling: {facts['no_ceiling']}{left_out}")
    return "\n".join(lines)


def _answerable(flags, questions: list[SpokenQuestion], normalize, report: Report) -> list[SpokenQuestion]:
    """Questions with what is scored, and an answer that a text can match. Raises ValueError if there are none."""
    found = []
    for question in questions:
        if (question.audio if flags.workdir else question.prediction) is None:
            continue
        if any(map(normalize, question.answers)):
            found.append(question)
        else:
            cause = f"nothing is left of the answer {question.answers[0]!r} once normalized"
            cure = "write it out, or choose another --normalizer"
            report.left_out(f"{flags.questions}, {question.id}", cause, cure, what=QUESTION)
    if not found:
        what = "audio_path" if flags.workdir else "prediction (or name a model by --workdir)"
        raise ValueError(f"{flags.questions}: none of {len(questions)} questions has {what}\n{report.summary()}")
    return found


def _facts(flags: argparse.Namespace, sampling: Sampling) -> dict:
    spoken = flags.workdir and flags.to == "speech"
    facts = dict(judge=f"match, after {flags.asr}" if spoken else "match", normalizer=flags.normalizer)
    facts |= dict(ceiling=None, no_ceiling="nobody else answers these questions here")
    if not flags.workdir:
        return facts | dict(model="predictions of the file")
    return facts | dict(model=str(flags.workdir), to=flags.to, decoding=dataclasses.asdict(sampling))


def answer(
    flags: argparse.Namespace, questions: list[SpokenQuestion], sampling: Sampling, report: Report
) -> list[str | None]:
    """What a model says after each question: text behind `[Text]`, or a continuation in speech, heard by the judge.

    None for a recording that cannot be used, which the report names.
    """
    spoken = flags.to == "speech"
    chain = open_named(flags.workdir, flags.acoustic, flags.step, language=True, sound=spoken)
    if spoken:
        check_speaks(chain, flags.workdir)
    texts: list[str | None] = [None] * len(questions)
    sounds: list[Sound | None] = [None] * len(questions)
    asked: set[int] = set()
    for first, group in groups(questions, "answering"):
        places, clips = [], []
        for place, question in enumerate(group, first):
            try:
                clips.append(chain.recording(question.audio))
                places.append(place)
            except (ValueError, OSError) as error:
                report.left_out(str(question.audio), str(error), what=QUESTION)
        asked.update(places)
        if not places:
            continue
        if spoken:
            found = _spoken(chain, [questions[i].id for i in places], clips, places, sampling, flags.seed)
            for place, sound in zip(places, found, strict=True):
                sounds[place] = sound
        else:
            for place, text in zip(places, _written(chain, clips, sampling, flags.seed + first), strict=True):
                texts[place] = text
    if spoken:
        heard = texts_of(flags.asr, write_sounds(flags.out / "qa", sounds), len(questions))
        texts = [heard[i] if i in asked else None for i in range(len(questions))]
    return texts


def _spoken(chain, ids, clips, places, sampling: Sampling, seed: int) -> list[Sound | None]:
    """What is said after each question; None of nothing."""
    requests = [Request("speech", audio=clip, id=id) for clip, id in zip(clips, ids, strict=True)]
    how = dataclasses.asdict(sampling)
    answers = chain.answer(requests, seed=seed, places=places, sampling=how)
    return [None if a.samples is None else (a.samples, a.sample_rate) for a in answers]


def _written(chain, clips, sampling: Sampling, seed: int) -> list[str]:
    """The text behind `[Text]` after each question."""
    language, prompts = chain.language, []
    if not language.vocabulary.has_text:
        raise ValueError("this is a model of speech alone and writes no text: ask it by --to=speech")
    for units in chain.inventory.encode_batch([clip.heard for clip in clips]):
        ids = prompt_ids(language.vocabulary, language.tokenizer, units=units.ids, to="speech")
        prompts.append((*ids, *language.vocabulary.text_start))
    how = dict(to="text", sampling=sampling, key=jax.random.key(seed))
    return [a.text for a in complete(language.model, language.vocabulary, language.tokenizer, prompts, **how)]
