"""Continuations of held-out clips in speech, heard by a judge and weighed by a text model (GenPPL), with auto-BLEU and
the clips' own continuations beside them."""

import argparse
import dataclasses
import io
import json
import math
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
import soundfile

from jaxslm.audio.io import write_wav
from jaxslm.data.records import Utterance
from jaxslm.evaluation.auto_bleu import auto_bleu
from jaxslm.evaluation.judges import LIST, TEXT, ask
from jaxslm.evaluation.normalizers import normalizer
from jaxslm.evaluation.scoring import Tokens
from jaxslm.generation.sampler import Sampling
from jaxslm.generation.speech_text import complete, prompt_ids
from jaxslm.suites.spoken import add_clips, clips_of, groups
from jaxslm.suites.tts import say
from jaxslm.tasks.opened_lm import OpenedLM, open_lm
from jaxslm.tasks.opening import open_named
from jaxslm.units.units import UnitSequence


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_clips(parser)
    parser.add_argument("--acoustic", help="run of what speaks; default: the run's own voice")
    parser.add_argument("--asr", required=True, help=f"command of the judge, with {LIST}: see evaluation/judges.py")
    parser.add_argument("--judge_lm", type=Path, required=True, help="text model: a Hugging Face folder, or a run")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each clip that are given; default: 3")
    parser.add_argument("--temperature", type=float, default=0.8, help="default: 0.8")
    parser.add_argument("--top_k", type=int, default=25, help="default: 25")
    parser.add_argument("--max_new_tokens", type=int, default=150, help="units; default: 150")


def run(flags: argparse.Namespace) -> str:
    chain = open_named(flags.workdir, flags.acoustic, flags.step, language=True)
    if chain.voice is None or chain.voice.clones:
        raise ValueError(f"{flags.workdir} has no voice with speakers of its own: name a vocoder by --acoustic=WORKDIR")
    language, sha256 = chain.language, chain.language.vocabulary.unit_inventory_sha256
    clips = [c for c in clips_of(flags, sha256) if c.duration > flags.seconds + 0.5]
    if not clips:
        raise ValueError(
            f"no clip is longer than --seconds={flags.seconds:g} by half a second: give a shorter beginning"
        )
    out = flags.out or flags.workdir / "evaluations"
    made = continuations(flags, language, clips, sha256)
    rate = clips[0].units[sha256].frame_rate
    units = [UnitSequence(ids, np.ones(len(ids)), rate) for ids in made]
    sounds = {
        "continued": say(chain, units, timed=True, seed=flags.seed),
        "recordings": [_rest(clip, flags.seconds) for clip in clips],
    }
    judge, table, rows = open_lm(flags.judge_lm), {}, []
    write = normalizer(flags.normalizer)
    for name, heard in sounds.items():
        folder = out / "genppl" / name
        folder.mkdir(parents=True, exist_ok=True)
        files = [(folder / f"{i:04d}.wav").resolve() for i in range(len(clips))]
        for path, (samples_N, hertz) in zip(files, heard, strict=True):
            write_wav(path, samples_N, hertz)
        texts = [write(text) for text in ask(flags.asr, files, TEXT)]
        means = mean_nll(judge, texts)
        table[name] = figures(texts, means)
        rows += [dict(condition=name, id=c.id, text=t, nll=n) for c, t, n in zip(clips, texts, means, strict=True)]
    facts = dict(model=str(flags.workdir), judge=f"{flags.asr}; {judge.name}", normalizer=flags.normalizer)
    facts |= dict(decoding=dataclasses.asdict(_sampling(flags)), seconds=flags.seconds, ceiling="recordings")
    (out / "genppl.json").write_text(json.dumps(dict(suite="genppl", **facts, **table), indent=1))
    with (out / "genppl.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    lines = [f"{'':<12} {'GenPPL':>9} {'auto-BLEU':>9} {'words':>7} {'silent':>6} {'clips':>6}"]
    for name, t in table.items():
        ppl = "none" if t["perplexity"] is None else f"{t['perplexity']:.1f}"
        lines.append(f"{name:<12} {ppl:>9} {t['auto_bleu_2']:9.3f} {t['words']:7d} {t['silent']:6d} {t['clips']:6d}")
    return "\n".join(
        [*lines, f"judges: {facts['judge']}; normalizer {flags.normalizer}; beginnings of {flags.seconds:g} s"]
    )


def _sampling(flags: argparse.Namespace) -> Sampling:
    how = dict(temperature=flags.temperature, top_k=flags.top_k, top_p=1.0)
    return Sampling(max_new_tokens=flags.max_new_tokens, **how)


def continuations(flags, language, clips: Sequence[Utterance], sha256: str) -> list[tuple[int, ...]]:
    """Units that go on from the first seconds of each clip."""
    found = []
    for first, group in groups(clips, "continuing"):
        prompts = []
        for clip in group:
            units = clip.units[sha256]
            begun = np.cumsum(units.durations) <= flags.seconds * units.frame_rate
            prompts.append(prompt_ids(language.vocabulary, language.tokenizer, units=units.ids[begun], to="speech"))
        how = dict(to="speech", sampling=_sampling(flags), key=jax.random.fold_in(jax.random.key(flags.seed), first))
        found += [a.units for a in complete(language.model, language.vocabulary, language.tokenizer, prompts, **how)]
    return found


def _rest(clip: Utterance, seconds: float) -> tuple[np.ndarray, int]:
    samples_N, rate = soundfile.read(io.BytesIO(clip.audio), dtype="float32")
    return samples_N[round(seconds * rate) :], rate


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
    """perplexity: exp of the mean over texts of their mean nats a token; None where nothing was heard at all."""
    known = [mean for mean in means if mean is not None]
    return dict(
        perplexity=math.exp(sum(known) / len(known)) if known else None,
        auto_bleu_2=float(np.mean([auto_bleu(text.split()) for text in texts])),
        words=sum(len(text.split()) for text in texts),
        silent=sum(mean is None for mean in means),
        clips=len(texts),
    )
