"""Continuations of held-out clips in speech, heard by a judge and weighed by a text model (GenPPL), with auto-BLEU and
the clips' own continuations beside them.

As slamkit's `asr_perplexity` (3 s given, temperature 0.8, top-k 25, 150 units, the judge's text as it is), but of the
continuation alone: what was given is neither heard nor weighed.
"""

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from jaxslm.audio.io import Clip, decode_clip
from jaxslm.data.records import Utterance
from jaxslm.evaluation.auto_bleu import auto_bleu
from jaxslm.evaluation.judges import LIST
from jaxslm.evaluation.normalizers import normalizer
from jaxslm.evaluation.results import write_result
from jaxslm.evaluation.scoring import Tokens
from jaxslm.generation.sampler import Sampling
from jaxslm.generation.speech_text import complete, prompt_ids
from jaxslm.suites.spoken import Sound, add_clips, clips_of, groups, recordings_of, texts_of, write_sounds
from jaxslm.suites.tts import check_speaks, say
from jaxslm.tasks.opened_lm import OpenedLM, open_lm
from jaxslm.tasks.opening import open_named
from jaxslm.units.units import UnitSequence

LEAST_LEFT = 0.5  # seconds of a clip behind what is given


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_clips(parser)
    parser.set_defaults(normalizer="none")
    parser.add_argument("--acoustic", help="of what speaks; default: as of launch/generate.py")
    parser.add_argument("--asr", required=True, help=f"command of the judge, with {LIST}: see evaluation/judges.py")
    parser.add_argument("--judge_lm", type=Path, required=True, help="text model: a Hugging Face folder, or a run")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each clip that are given; default: 3")
    parser.add_argument("--temperature", type=float, default=0.8, help="default: 0.8")
    parser.add_argument("--top_k", type=int, default=25, help="default: 25")
    parser.add_argument("--max_new_tokens", type=int, default=150, help="units; default: 150")


def run(flags: argparse.Namespace) -> str:
    write, sampling = normalizer(flags.normalizer), _sampling(flags)
    chain = open_named(flags.workdir, flags.acoustic, flags.step, language=True)
    check_speaks(chain, flags.workdir)
    sha256 = chain.language.vocabulary.unit_inventory_sha256
    clips = clips_of(flags, sha256, lambda clip: _is_long(clip, clip.units[sha256], flags.seconds))
    if not clips:
        raise ValueError(
            f"no clip is longer than --seconds={flags.seconds:g} by half a second: give a shorter beginning"
        )
    judge = open_lm(flags.judge_lm)  # a folder that is none is known before anything is said
    out = flags.out or flags.workdir / "evaluations"
    sounds = _sounds(flags, chain, clips, sampling)
    table, rows = {}, []
    for name, heard in sounds.items():
        files = write_sounds(out / "genppl" / name, heard)
        texts = [write(text) for text in texts_of(flags.asr, files, len(clips))]
        means = mean_nll(judge, texts)
        table[name] = figures(texts, means)
        rows += [dict(condition=name, id=c.id, text=t, nll=n) for c, t, n in zip(clips, texts, means, strict=True)]
    facts = dict(model=str(flags.workdir), judge=dict(asr=flags.asr, lm=judge.name), normalizer=flags.normalizer)
    facts |= dict(decoding=dataclasses.asdict(sampling), seconds=flags.seconds, weighed="the continuation alone")
    ceiling = "recordings" if "recordings" in sounds else None
    facts |= dict(ceiling=ceiling, no_ceiling="" if ceiling else "the clips came as units, without sound")
    whole = dict(suite="genppl", **facts, **table)
    write_result(out, "genppl", whole, rows)
    return _summary(table, facts)


def _summary(table: dict[str, dict], facts: dict) -> str:
    lines = [f"{'':<12} {'GenPPL':>9} {'auto-BLEU':>9} {'words':>7} {'silent':>6} {'clips':>6}"]
    for name, t in table.items():
        ppl = "none" if t["perplexity"] is None else f"{t['perplexity']:.1f}"
        bleu = "none" if t["auto_bleu_2"] is None else f"{t['auto_bleu_2']:.3f}"
        lines.append(f"{name:<12} {ppl:>9} {bleu:>9} {t['words']:7d} {t['silent']:6d} {t['clips']:6d}")
        if t["not_a_number"]:
            lines.append(f"{name}: the score of {t['not_a_number']} clips is no number, and left out")
    judges = f"judges: {facts['judge']['asr']}, {facts['judge']['lm']}; normalizer {facts['normalizer']}"
    return "\n".join([*lines, f"{judges}; ceiling: {facts['ceiling'] or facts['no_ceiling']}"])


def _is_long(clip: Utterance, units: UnitSequence, seconds: float) -> bool:
    """Whether something is left behind the first seconds, in which at least one unit ends."""
    return clip.duration >= seconds + LEAST_LEFT and units.durations[0] <= seconds * units.frame_rate


def _sounds(flags, chain, clips: Sequence[Utterance], sampling: Sampling) -> dict[str, list[Sound | None]]:
    sha256 = chain.language.vocabulary.unit_inventory_sha256
    rate, prompts = clips[0].units[sha256].frame_rate, [None] * len(clips)
    if chain.voice.clones and all(clip.audio for clip in clips):  # speech that goes on keeps the voice that it had
        given = [_first(decode_clip(clip.audio), flags.seconds) for clip in clips]
        prompts = [chain.voice.prompt(g, c.id, from_end=True) for g, c in zip(given, clips, strict=True)]
    made = continuations(flags, chain.language, clips, sampling)
    units = [UnitSequence(np.asarray(ids, np.int32), np.ones(len(ids), np.int32), rate) for ids in made]
    sounds = {"continued": say(chain, units, prompts, timed=True, seed=flags.seed)}
    if recordings := recordings_of(clips):
        sounds["recordings"] = [(samples_N[round(flags.seconds * hertz) :], hertz) for samples_N, hertz in recordings]
    return sounds


def _first(clip: Clip, seconds: float) -> Clip:
    return dataclasses.replace(clip, samples=clip.samples[: round(seconds * clip.rate)])


def _sampling(flags: argparse.Namespace) -> Sampling:
    how = dict(temperature=flags.temperature, top_k=flags.top_k, top_p=1.0)
    return Sampling(max_new_tokens=flags.max_new_tokens, **how)


def continuations(flags, language, clips: Sequence[Utterance], sampling: Sampling) -> list[tuple[int, ...]]:
    """Units that go on from the first seconds of each clip."""
    found = []
    for first, group in groups(clips, "continuing"):
        prompts = []
        for clip in group:
            units = clip.units[language.vocabulary.unit_inventory_sha256]
            begun = np.cumsum(units.durations) <= flags.seconds * units.frame_rate
            prompts.append(prompt_ids(language.vocabulary, language.tokenizer, units=units.ids[begun], to="speech"))
        how = dict(to="speech", sampling=sampling, key=jax.random.fold_in(jax.random.key(flags.seed), first))
        found += [a.units for a in complete(language.model, language.vocabulary, language.tokenizer, prompts, **how)]
    return found


def mean_nll(judge: OpenedLM, texts: Sequence[str]) -> list[float | None]:
    """Of each text's tokens after the beginning of a text; None where nothing was heard, or the score is no number."""
    start, given = [judge.vocabulary.bos_id, *judge.vocabulary.text_start], []
    for text in texts:
        ids = judge.tokenizer.encode(text) if text else []
        given.append(Tokens(np.array([*start, *ids], np.int32), np.arange(len(start) + len(ids)) >= len(start)))
    some = [i for i, tokens in enumerate(given) if tokens.scored.any()]
    means: list[float | None] = [None] * len(texts)
    if some:
        scorer = judge.scorer
        sums = scorer(judge.model, scorer.batches([given[i] for i in some]))
        for i, total in zip(some, sums, strict=True):
            means[i] = float(-total / given[i].scored.sum()) if np.isfinite(total) else None
    return means


def figures(texts: Sequence[str], means: Sequence[float | None]) -> dict:
    """perplexity: exp of the mean over texts of their mean nats a token, and auto-BLEU of the same texts; None where
    nothing was heard at all. not_a_number: texts that were heard and have no score."""
    known = [mean for mean in means if mean is not None]
    heard = [text for text, mean in zip(texts, means, strict=True) if mean is not None]
    silent = sum(not text for text in texts)
    with np.errstate(over="ignore"):
        perplexity = float(np.exp(np.mean(known))) if known else None
    return dict(
        perplexity=perplexity,
        auto_bleu_2=float(np.mean([auto_bleu(text.split()) for text in heard])) if heard else None,
        words=sum(len(text.split()) for text in texts),
        silent=silent,
        not_a_number=len(texts) - len(known) - silent,
        clips=len(texts),
    )
