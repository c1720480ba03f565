"""Texts of held-out clips spoken by a language model and a voice, and heard by a judge, beside two ceilings: the clips'
own units in the same voice, and the recordings."""

import argparse
import io
from collections.abc import Sequence

import jax
import numpy as np
import soundfile

from jaxslm.audio.io import write_wav
from jaxslm.data.records import Utterance
from jaxslm.evaluation.judges import LIST, SCORE, TEXT, ask
from jaxslm.evaluation.word_errors import word_errors
from jaxslm.generation.sampler import Sampling
from jaxslm.generation.speech_text import complete, prompt_ids
from jaxslm.suites.spoken import add_clips, clips_of, groups, table, write
from jaxslm.tasks.opening import open_named
from jaxslm.units.units import UnitSequence

PROMPTS = {"task": "[TTS]", "interleaved": "[Speech]"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_clips(parser)
    parser.add_argument("--acoustic", help="run of what speaks; default: the run's own voice")
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
    if chain.voice is None:
        raise ValueError(f"{flags.workdir} has no voice of its own: name what speaks by --acoustic=WORKDIR")
    if chain.voice.clones:
        raise ValueError(
            "what speaks takes on the voice of a recording, which this suite does not give: name a vocoder"
        )
    language, sha256 = chain.language, chain.language.vocabulary.unit_inventory_sha256
    clips = clips_of(flags, sha256)
    out = flags.out or flags.workdir / "evaluations"
    spoken = _spoken(flags, language, clips)
    rate = clips[0].units[sha256].frame_rate
    sounds = {
        "spoken": say(chain, [UnitSequence(u, np.ones(len(u)), rate) for u in spoken], timed=True, seed=flags.seed),
        "resynthesis": say(chain, [clip.units[sha256] for clip in clips], timed=False, seed=flags.seed),
        "recordings": [soundfile.read(io.BytesIO(clip.audio), dtype="float32") for clip in clips],
    }
    errors, quality = {}, {}
    for name, heard in sounds.items():
        folder = out / "tts" / name
        folder.mkdir(parents=True, exist_ok=True)
        files = [(folder / f"{i:04d}.wav").resolve() for i in range(len(clips))]
        for path, (samples_N, hertz) in zip(files, heard, strict=True):
            write_wav(path, samples_N, hertz)
        said = ask(flags.asr, files, TEXT)
        errors[name] = word_errors([c.id for c in clips], [c.text for c in clips], said, flags.normalizer)
        for each in flags.quality:
            kind, _, command = each.partition("=")
            quality.setdefault(kind, {})[name] = float(np.mean(ask(command, files, SCORE)))
    facts = dict(
        model=str(flags.workdir),
        judge=flags.asr,
        prompt=PROMPTS[flags.prompt],
        temperature=flags.temperature,
        normalizer=flags.normalizer,
        ceiling="resynthesis, recordings",
        nothing_said=sum(not len(units) for units in spoken),
        quality=quality,
    )
    write(out, "tts", facts, errors)
    scores = "".join(f"\n{kind}: {', '.join(f'{n} {v:.3f}' for n, v in by.items())}" for kind, by in quality.items())
    how = f"judge {flags.asr}; normalizer {flags.normalizer}; ceilings: resynthesis and recordings"
    return f"{table(errors)}{scores}\n{how}\nto hear: {out / 'tts'}"


def _spoken(flags: argparse.Namespace, language, clips: Sequence[Utterance]) -> list[tuple[int, ...]]:
    vocabulary, found = language.vocabulary, []
    sampling = Sampling(max_new_tokens=flags.max_new_tokens or language.limits["speech"], temperature=flags.temperature)
    marker = vocabulary.id(PROMPTS[flags.prompt])
    for first, group in groups(clips, "speaking"):
        prompts = [(*prompt_ids(vocabulary, language.tokenizer, text=u.text, to="speech")[:-1], marker) for u in group]
        key = jax.random.fold_in(jax.random.key(flags.seed), first)
        how = dict(to="speech", sampling=sampling, key=key)
        found += [a.units for a in complete(language.model, vocabulary, language.tokenizer, prompts, **how)]
    return found


def say(chain, units: Sequence[UnitSequence], *, timed: bool, seed: int) -> list[tuple[np.ndarray, int]]:
    """(samples, rate) of each; a tenth of a second of silence for no units. timed: the voice gives durations."""
    rate, key = chain.voice.sample_rate, jax.random.key(seed)
    some = [i for i, each in enumerate(units) if len(each.ids)]
    asked = [units[i] for i in some]
    if timed and asked:
        asked = chain.voice.timed(asked, speed=1.0, temperature=0.0, key=key)
    sounds = dict(zip(some, chain.voice.speak(asked, [None] * len(asked), key), strict=True)) if asked else {}
    silence = np.zeros(rate // 10, np.float32)
    return [(sounds.get(i, silence), rate) for i in range(len(units))]
