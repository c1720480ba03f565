"""Transcripts of held-out clips by a language model, greedy: word and character error rates; beside them, as a ceiling,
those of another recogniser on the same recordings."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from jaxslm.data.records import Utterance
from jaxslm.evaluation.judges import LIST
from jaxslm.evaluation.word_errors import WordErrors, word_errors
from jaxslm.generation.sampler import Sampling
from jaxslm.generation.speech_text import Response, complete, prompt_ids
from jaxslm.suites.spoken import add_clips, clips_of, groups, recordings_of, table, texts_of, write, write_sounds
from jaxslm.tasks.opening import open_language

# marker that asks for the text: of the task, or of text as in interleaved data
PROMPTS = {"task": "[ASR]", "interleaved": "[Text]"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_clips(parser)
    parser.add_argument(
        "--prompt", default="task", choices=PROMPTS, help="[ASR], or [Text] for runs that were not taught asr"
    )
    parser.add_argument("--max_new_tokens", type=int, help="default: those of the run's samples")
    parser.add_argument("--asr", help=f"a recogniser as ceiling, by a command with {LIST}: see evaluation/judges.py")


def run(flags: argparse.Namespace) -> str:
    language = open_language(flags.workdir, flags.step)
    vocabulary = language.vocabulary
    if not vocabulary.has_text:
        raise ValueError(f"{flags.workdir} is a model of speech alone and writes no text")
    clips = clips_of(flags, vocabulary.unit_inventory_sha256)
    recordings = recordings_of(clips) if flags.asr else None
    if flags.asr and recordings is None:
        raise ValueError("these clips came as units, without sound that --asr could hear: leave it out")
    out = flags.out or flags.workdir / "evaluations"
    ids, references = [clip.id for clip in clips], [clip.text for clip in clips]
    limit = flags.max_new_tokens or language.limits["text"]
    answers = _transcripts(flags, language, clips, Sampling(max_new_tokens=limit, temperature=0.0))
    errors = {"asr": word_errors(ids, references, [answer.text for answer in answers], flags.normalizer)}
    if recordings:
        heard = texts_of(flags.asr, write_sounds(out / "asr" / "recordings", recordings), len(clips))
        errors["recordings"] = word_errors(ids, references, heard, flags.normalizer)
    facts = dict(
        model=str(flags.workdir),
        judge="none: the transcripts are the model's own",
        prompt=PROMPTS[flags.prompt],
        decoding=f"greedy, at most {limit} tokens",
        normalizer=flags.normalizer,
        ceiling=f"recordings: {flags.asr}" if flags.asr else None,
        no_ceiling="" if flags.asr else "no other recogniser was named by --asr",
        cut=sum(not answer.stopped for answer in answers),
    )
    write(out, "asr", facts, errors)
    return _summary(errors, facts, out)


def _summary(errors: dict[str, WordErrors], facts: dict, out: Path) -> str:
    lines = [table(errors), f"{facts['prompt']} after the speech, greedy; normalizer {facts['normalizer']}"]
    lines.append(f"ceiling: {facts['ceiling'] or facts['no_ceiling']}")
    if facts["cut"]:
        lines.append(f"{facts['cut']} transcripts were cut at the length limit: raise it by --max_new_tokens")
    return "\n".join([*lines, f"every transcript: {out / 'asr.jsonl'}"])


def _transcripts(flags, language, clips: Sequence[Utterance], sampling: Sampling) -> list[Response]:
    vocabulary, answers = language.vocabulary, []
    marker = vocabulary.id(PROMPTS[flags.prompt])
    for _, group in groups(clips, "transcribing"):
        prompts = [_prompt(language, u.units[vocabulary.unit_inventory_sha256].ids, marker) for u in group]
        how = dict(to="text", sampling=sampling, key=jax.random.key(flags.seed))
        answers += complete(language.model, vocabulary, language.tokenizer, prompts, **how)
    return answers


def _prompt(language, units: np.ndarray, marker: int) -> tuple[int, ...]:
    *speech, _ = prompt_ids(language.vocabulary, language.tokenizer, units=units, to="text")
    return (*speech, marker)
