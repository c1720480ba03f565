"""Texts of held-out clips spoken by a language model and a voice, and heard by a judge, beside two ceilings: the clips'
own units in the same voice, and the recordings."""

import argparse
import statistics
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from jaxslm.data.records import Utterance
from jaxslm.evaluation.judges import LIST, SCORE, ask
from jaxslm.evaluation.word_errors import word_errors
from jaxslm.generation.sampler import Sampling
from jaxslm.generation.speech_text import Response, complete, prompt_ids
from jaxslm.suites.spoken import Sound, add_clips, clips_of, groups, recordings_of, table, texts_of, write, write_sounds
from jaxslm.tasks.opening import open_named
from jaxslm.units.units import UnitSequence

PROMPTS = {"task": "[TTS]", "interleaved": "[Speech]"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_clips(parser)
    parser.add_argument("--acoustic", help="of what speaks; default: as of launch/generate.py")
    parser.add_argument("--voice", help="recording to sound like, or a vocoder's speaker; default: any voice")
    parser.add_argument("--asr", required=True, help=f"command of the judge, with {LIST}: see evaluation/judges.py")
    parser.add_argument("--quality", action="append", default=[], metavar="NAME=COMMAND", help="scores, such as DNSMOS")
    parser.add_argument(
        "--prompt", default="task", choices=PROMPTS, help="[TTS], or [Speech] for runs that were not taught tts"
    )
    parser.add_argument("--temperature", type=float, default=0.0, help="default: 0, greedy")
    parser.add_argument("--max_new_tokens", type=int, help="default: those of the run's samples")


def run(flags: argparse.Namespace) -> str:
    if wrong := [each for each in flags.quality if "=" not in each]:
        raise ValueError(f"--quality={wrong[0]}: give it a name, --quality=NAME=COMMAND")
    chain = open_named(flags.workdir, flags.acoustic, flags.step, language=True)
    check_speaks(chain, flags.workdir)
    voice = chain.voice_of(flags.voice)
    prompt = None if voice is None else chain.voice.prompt(voice, f"--voice={flags.voice}")
    language, sha256 = chain.language, chain.language.vocabulary.unit_inventory_sha256
    clips = clips_of(flags, sha256)
    out = flags.out or flags.workdir / "evaluations"
    spoken = _spoken(flags, language, clips)
    rate, prompts = clips[0].units[sha256].frame_rate, [prompt] * len(clips)
    made = [UnitSequence(np.asarray(a.units, np.int32), np.ones(len(a.units), np.int32), rate) for a in spoken]
    sounds = {
        "spoken": say(chain, made, prompts, timed=True, seed=flags.seed),
        "resynthesis": say(chain, [clip.units[sha256] for clip in clips], prompts, timed=False, seed=flags.seed),
    }
    if recordings := recordings_of(clips):
        sounds["recordings"] = recordings
    files, errors, quality = {}, {}, {}
    for name, heard in sounds.items():
        files[name] = write_sounds(out / "tts" / name, heard)
        said = texts_of(flags.asr, files[name], len(clips))
        errors[name] = word_errors([c.id for c in clips], [c.text for c in clips], said, flags.normalizer)
    facts = dict(
        model=str(flags.workdir),
        judge=flags.asr,
        prompt=PROMPTS[flags.prompt],
        temperature=flags.temperature,
        voice=flags.voice,
        normalizer=flags.normalizer,
        ceiling=[name for name in sounds if name != "spoken"],
        nothing_said=sum(not len(answer.units) for answer in spoken),
        cut=sum(not answer.stopped for answer in spoken),
        quality=quality,
    )
    write(out, "tts", facts, errors)  # before another judge may fail
    for each in flags.quality:
        kind, _, command = each.partition("=")
        quality[kind] = dict(judge=command)
        for name, written in files.items():
            scores = ask(command, list(written.values()), SCORE) if written else []
            quality[kind][name] = statistics.mean(scores) if scores else None
        write(out, "tts", facts, errors)
    return _summary(errors, facts, out)


def check_speaks(chain, workdir: Path) -> None:
    """Raises ValueError where a chain cannot speak what its language model says."""
    if chain.voice is None:
        raise ValueError(f"{workdir} has no voice of its own: name what speaks by --acoustic=WORKDIR")
    if chain.voice.untimed:
        raise ValueError(chain.voice.untimed)


def _summary(errors, facts: dict, out: Path) -> str:
    lines = [table(errors)]
    for kind, by in facts["quality"].items():
        figures = {name: value for name, value in by.items() if name != "judge"}
        cells = ", ".join(f"{name} {'none' if v is None else f'{v:.3f}'}" for name, v in figures.items())
        lines.append(f"{kind}: {cells}; judge {by['judge']}")
    if facts["nothing_said"]:
        lines.append(f"nothing was said of {facts['nothing_said']} texts: their words count as deleted")
    if facts["cut"]:
        lines.append(f"{facts['cut']} were cut at the length limit: raise it by --max_new_tokens")
    lines.append(f"judge {facts['judge']}; normalizer {facts['normalizer']}; ceilings: {', '.join(facts['ceiling'])}")
    return "\n".join([*lines, f"to hear: {out / 'tts'}"])


def _spoken(flags: argparse.Namespace, language, clips: Sequence[Utterance]) -> list[Response]:
    vocabulary, found = language.vocabulary, []
    sampling = Sampling(max_new_tokens=flags.max_new_tokens or language.limits["speech"], temperature=flags.temperature)
    marker = vocabulary.id(PROMPTS[flags.prompt])
    for first, group in groups(clips, "speaking"):
        prompts = [(*prompt_ids(vocabulary, language.tokenizer, text=u.text, to="speech")[:-1], marker) for u in group]
        key = jax.random.fold_in(jax.random.key(flags.seed), first)
        how = dict(to="speech", sampling=sampling, key=key)
        found += complete(language.model, vocabulary, language.tokenizer, prompts, **how)
    return found


def say(chain, units: Sequence[UnitSequence], prompts: Sequence, *, timed: bool, seed: int) -> list[Sound | None]:
    """The sound of each, None of no units. prompts: as `Voice.speak` takes them. timed: the voice gives durations."""
    key, some = jax.random.key(seed), [i for i, each in enumerate(units) if len(each.ids)]
    if not some:
        return [None] * len(units)
    asked = [units[i] for i in some]
    if timed:
        asked = chain.voice.timed(asked, speed=1.0, temperature=0.0, key=key)
    made = chain.voice.speak(asked, [prompts[i] for i in some], key)
    sounds = {i: (samples_N, chain.voice.sample_rate) for i, samples_N in zip(some, made, strict=True)}
    return [sounds.get(i) for i in range(len(units))]
