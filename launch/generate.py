"""Answers a text or a recording: python launch/generate.py --text="the cat" --voice=prompt.wav --out=hello.wav

| given   | --to=text    | --to=speech      | --to=voice                      |
|---------|--------------|------------------|---------------------------------|
| --audio | transcript   | its continuation | the same in the voice --voice   |
| --text  | continuation | the text, spoken |                                 |

`--workdir` is a language model's run, `--acoustic` that of what makes sound of its units (configs/soundstorm.py,
configs/unit_hifigan.py); without one, speech is a unit string, or sound if the run keeps a voice of its own.
`--out=FILE.wav` gets the sound, another FILE the answer as text. `--batch=FILE.jsonl` answers a request a line,
{"text" or "audio": ..., "to": ..., "voice": ...}, into the folder --out. `--stream` writes sound while it is made.
"""

import argparse
import logging
import time
from pathlib import Path

from jaxslm.audio.io import WavStream
from jaxslm.commands import add_unmasking, unmasking_of
from jaxslm.generation.batch import ANSWERS, answer_file
from jaxslm.generation.chain import TO, Answer, Chain, Request
from jaxslm.generation.sampler import Sampling
from jaxslm.stopwatch import Stopwatch
from jaxslm.tasks.opening import add_runs, open_named
from jaxslm.training.checkpoint import CheckpointError

log = logging.getLogger(__name__)

SAMPLING = ("temperature", "top_k", "top_p", "repetition_penalty")


def main() -> None:
    logging.basicConfig(format="%(message)s", force=True)
    log.setLevel(logging.INFO)
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add_runs(parser)
    prompt = parser.add_mutually_exclusive_group(required=True)
    prompt.add_argument("--text")
    prompt.add_argument("--audio", type=Path, help="WAV, FLAC, OGG, MP3 ...; up to a minute")
    prompt.add_argument("--batch", type=Path, help="JSON lines of requests")
    parser.add_argument("--to", choices=TO, help="default: text of audio, speech of text")
    parser.add_argument("--voice", help="recording to speak like (its first 3 s), or a vocoder's speaker")
    parser.add_argument("--out", type=Path, help="FILE.wav, text file, or the folder of a batch")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--stream", action="store_true", help="write FILE.wav while it is made (causal codecs)")
    add_unmasking(parser)
    parser.add_argument("--speed", type=float, default=1.0, help="of speech, 2 for twice; default: 1")
    parser.add_argument("--duration_temperature", type=float, default=0.0, help="of durations; default: 0, the mean")
    parser.add_argument("--max_new_tokens", type=int, help="default: those of the run's samples")
    for name in SAMPLING:
        default = getattr(Sampling, name)
        parser.add_argument(f"--{name}", type=type(default), default=default, help=f"default: {default}")
    flags = parser.parse_args()
    try:
        run(flags)
    except (ValueError, CheckpointError, OSError, FloatingPointError) as error:
        parser.exit(2, f"{error}\n")


def run(flags: argparse.Namespace) -> None:
    sampling = {name: getattr(flags, name) for name in SAMPLING}
    if flags.max_new_tokens is not None:
        sampling["max_new_tokens"] = flags.max_new_tokens
    options = dict(
        seed=flags.seed, sampling=sampling, speed=flags.speed, duration_temperature=flags.duration_temperature
    )
    if flags.batch:
        if not flags.out or flags.out.suffix or flags.stream:
            raise ValueError("--batch needs a folder for the answers, and does not stream: name one by --out=DIR")
        chain = open_runs(flags, language=False)
        done, failed = answer_file(flags.batch, flags.out, chain, dict(to=flags.to, voice=flags.voice), **options)
        left = f"; {failed} could not be, see `error` there" if failed else ""
        print(f"{done} requests answered in {flags.out / ANSWERS}{left}")
        return
    to = flags.to or ("text" if flags.audio else "speech")
    to_file = flags.out is not None and flags.out.suffix.lower() == ".wav"
    if to == "text" and (to_file or flags.stream):
        raise ValueError(
            "the answer is a text: ask for sound by --to=speech or --to=voice, or name a text file by --out"
        )
    if flags.stream and not to_file:
        raise ValueError("--stream writes sound while it is made: name a file by --out=FILE.wav")
    sound = to_file or to == "voice"
    chain = open_runs(flags, language=to != "voice", sound=sound or bool(flags.acoustic))
    if to_file and chain.voice is None:
        raise ValueError("there is nothing to speak with: name the run of an acoustic stage by --acoustic=WORKDIR")
    audio = chain.recording(flags.audio) if flags.audio else None
    request = Request(to=to, text=flags.text, audio=audio, voice=chain.voice_of(flags.voice))
    options["watch"] = Stopwatch(begins=lambda stage: log.info("%s ...", stage))
    if flags.stream:
        answer = stream(chain, request, flags.out, options)
    else:
        (answer,) = chain.answer([request], **options, sound=to_file)
        tell(answer)
        if to_file:
            answer.save(flags.out)
            log.info("%s: %.2f s of sound", flags.out, len(answer.samples) / answer.sample_rate)
        elif flags.out:
            flags.out.write_text(f"{answer}\n", encoding="utf-8")
    log.info("%s", answer.seconds)
    print(answer)


def open_runs(flags: argparse.Namespace, **needs: bool) -> Chain:
    return open_named(flags.workdir, flags.acoustic, flags.step, unmasking=unmasking_of(flags), **needs)


def tell(answer: Answer) -> None:
    if answer.too_long:
        log.warning("prompt and answer are longer than what the language model saw in training")
    if not answer.stopped:
        log.warning("the answer was cut at the length limit: raise it by --max_new_tokens")
    if answer.units is not None and not len(answer.units):
        raise ValueError("the language model said nothing: ask again with another --seed")


def stream(chain: Chain, request: Request, out: Path, options: dict) -> Answer:
    """Writes the sound chunk by chunk, so that a player can follow, and says when the first was there."""
    start = time.perf_counter()
    answer, chunks = chain.stream(request, **options)
    tell(answer)
    with WavStream(out, answer.sample_rate) as file, answer.seconds("sound"):
        for chunk_N in chunks:
            if not file.n_samples:
                log.info("first sound after %.2f s", time.perf_counter() - start)
            file.write(chunk_N)
    log.info("%s: %.2f s of sound", out, file.n_samples / answer.sample_rate)
    return answer


if __name__ == "__main__":
    main()
