"""Answers a text or a recording: python launch/generate.py --workdir=runs/spiritlm --text="the cat" --to=speech

| given   | --to=text      | --to=speech      |
|---------|----------------|------------------|
| --audio | its transcript | its continuation |
| --text  | continuation   | the units of it  |

Speech comes out as a unit string. `--out=FILE` also writes the answer there, as text. A model of speech alone only
continues speech.
"""

import argparse
import functools
import logging
from pathlib import Path

import jax

from jaxslm.audio.io import read_audio
from jaxslm.configure import read_config
from jaxslm.generation.sampler import Sampling
from jaxslm.generation.speech_text import check_modalities, respond
from jaxslm.models.decoder import Decoder, DecoderConfig
from jaxslm.tasks.base import load_run_tokenizer
from jaxslm.tasks.export import load_vocabulary
from jaxslm.training.checkpoint import CheckpointError, restore_model
from jaxslm.units.inventory import UnitInventory

log = logging.getLogger(__name__)


def main() -> None:
    logging.basicConfig(format="%(message)s")
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--workdir", type=Path, required=True, help="of a training run")
    prompt = parser.add_mutually_exclusive_group(required=True)
    prompt.add_argument("--text")
    prompt.add_argument("--audio", type=Path, help="WAV, FLAC, OGG, MP3 ...; up to a minute")
    parser.add_argument("--to", choices=("text", "speech"), required=True)
    parser.add_argument("--step", type=int, help="checkpoint to use; default: the newest")
    parser.add_argument("--out", type=Path, help="text file to write the answer to")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--max_new_tokens", type=int, help="default: samples.text_tokens or samples.speech_tokens of the config"
    )
    for name in ("temperature", "top_k", "top_p", "repetition_penalty"):
        default = getattr(Sampling, name)
        parser.add_argument(f"--{name}", type=type(default), default=default, help=f"default: {default}")
    flags = parser.parse_args()
    try:
        response = answer(flags)
        if flags.out:
            flags.out.write_text(f"{response}\n", encoding="utf-8")
    except (ValueError, CheckpointError, OSError) as error:
        parser.exit(2, f"{error}\n")
    print(response)


def answer(flags: argparse.Namespace):
    config = read_config(flags.workdir)
    if (task := config.get("task", "speech_text_lm")) != "speech_text_lm":
        raise ValueError(f"{flags.workdir} is a run of the task '{task}': name one of speech_text_lm")
    if not set(config.data.mixture) - {"coarse", "fine"}:
        raise ValueError(
            f"{flags.workdir} is a run of an acoustic stage, which makes codes of units and no answers: use "
            "jaxslm.acoustic.autoregressive.coarse_to_fine"
        )
    vocabulary = load_vocabulary(flags.workdir)
    check_modalities(vocabulary, text=flags.text, to=flags.to)
    settings = {name: getattr(flags, name) for name in ("temperature", "top_k", "top_p", "repetition_penalty")}
    n_tokens = config.samples[f"{flags.to}_tokens"] if flags.max_new_tokens is None else flags.max_new_tokens
    sampling = Sampling(max_new_tokens=n_tokens, **settings)
    tokenizer, _ = load_run_tokenizer(flags.workdir, config.data.tokenizer)
    if tokenizer.sha256 != vocabulary.tokenizer_sha256:
        raise ValueError(
            f"the tokenizer {config.data.tokenizer} has changed since the run in {flags.workdir} was trained: "
            "put the old one back"
        )
    audio = read_audio(flags.audio, where=str(flags.audio)).samples if flags.audio else None
    inventory = UnitInventory.load(flags.workdir / "units") if flags.audio else None
    model_config = DecoderConfig(vocab_size=vocabulary.padded_size, **config.model)
    abstract = jax.eval_shape(functools.partial(Decoder, model_config), jax.random.key(0))
    model, _ = restore_model(flags.workdir / "checkpoints", abstract, flags.step)
    key = jax.random.key(flags.seed)
    prompt = {"text": flags.text, "audio": audio}
    response = respond(model, vocabulary, tokenizer, inventory, **prompt, to=flags.to, sampling=sampling, key=key)
    if len(response.prompt_ids) + len(response.ids) > config.data.context_length:
        log.warning("prompt and answer are longer than the %d tokens the model saw", config.data.context_length)
    if not response.stopped:
        log.warning("the answer was cut at --max_new_tokens=%d", n_tokens)
    return response


if __name__ == "__main__":
    main()
