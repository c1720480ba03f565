"""Transcripts of held-out clips by a language model, greedy: word and character error rates."""

import argparse

import jax
import numpy as np

from jaxslm.evaluation.word_errors import word_errors
from jaxslm.generation.sampler import Sampling
from jaxslm.generation.speech_text import complete, prompt_ids
from jaxslm.suites.spoken import add_clips, clips_of, groups, table, write
from jaxslm.tasks.opening import open_language

# marker that asks for the text: of the task, or of text as in interleaved data
PROMPTS = {"task": "[ASR]", "interleaved": "[Text]"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_clips(parser)
    parser.add_argument(
        "--prompt", default="task", choices=PROMPTS, help="[ASR], or [Text] for runs that were not taught asr"
    )
    parser.add_argument("--max_new_tokens", type=int, help="default: those of the run's samples")


def run(flags: argparse.Namespace) -> str:
    language = open_language(flags.workdir, flags.step)
    vocabulary = language.vocabulary
    if not vocabulary.has_text:
        raise ValueError(f"{flags.workdir} is a model of speech alone and writes no text")
    sha256, said = vocabulary.unit_inventory_sha256, []
    clips = clips_of(flags, sha256)
    limit = flags.max_new_tokens or language.limits["text"]
    sampling = Sampling(max_new_tokens=limit, temperature=0.0)
    marker = vocabulary.id(PROMPTS[flags.prompt])
    for _, group in groups(clips, "transcribing"):
        prompts = [_prompt(language, u.units[sha256].ids, marker) for u in group]
        key = jax.random.key(flags.seed)
        answers = complete(
            language.model, vocabulary, language.tokenizer, prompts, to="text", sampling=sampling, key=key
        )
        said += [answer.text for answer in answers]
    errors = word_errors([u.id for u in clips], [u.text for u in clips], said, flags.normalizer)
    facts = dict(
        model=str(flags.workdir),
        judge="none: the transcripts are the model's own",
        prompt=PROMPTS[flags.prompt],
        decoding=f"greedy, at most {limit} tokens",
        normalizer=flags.normalizer,
        ceiling=None,
    )
    out = flags.out or flags.workdir / "evaluations"
    write(out, "asr", facts, {"asr": errors})
    how = f"{PROMPTS[flags.prompt]} after the speech, greedy; normalizer {flags.normalizer}"
    return f"{table({'asr': errors})}\n{how}\nevery transcript: {out / 'asr.jsonl'}"


def _prompt(language, units: np.ndarray, marker: int) -> tuple[int, ...]:
    *speech, _ = prompt_ids(language.vocabulary, language.tokenizer, units=units, to="text")
    return (*speech, marker)
