"""Trained runs, opened to be used."""

import argparse
import functools
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from jaxslm.configure import read_config
from jaxslm.generation.chain import Chain, Language
from jaxslm.generation.steps import in_computation_dtype
from jaxslm.models.decoder import Decoder, DecoderConfig
from jaxslm.tasks.acoustic_stage import STAGE_FILE
from jaxslm.tasks.base import inventory_of_run, tokenizer_of_run
from jaxslm.tasks.export import VOCABULARY_FILE, load_vocabulary
from jaxslm.tasks.own_voice import VOICE
from jaxslm.tasks.voices import open_voice
from jaxslm.training.checkpoint import CheckpointError, restore_model

log = logging.getLogger(__name__)

WORKDIR, ACOUSTIC = Path("runs/spiritlm"), Path("runs/soundstorm")  # where none is named


def open_chain(
    workdir: str | Path = "",
    acoustic: str | Path = "",
    step: int | None = None,
    unmasking: Mapping[str, Any] = {},
) -> Chain:
    """See `jaxslm.generation.load`."""
    language = open_language(Path(workdir), step) if workdir else None
    voice = open_voice(acoustic, unmasking) if acoustic else None
    if language is None and voice is None:
        raise ValueError("name a run: a language model by --workdir, an acoustic stage by --acoustic, or both")
    return Chain(language, voice)


def add_runs(parser: argparse.ArgumentParser) -> None:
    """--workdir, --acoustic and --step, for `open_named`."""
    parser.add_argument("--workdir", type=Path, help=f"of a language model's run; default: {WORKDIR}")
    parser.add_argument(
        "--acoustic", help=f"of what speaks, or of two stages COARSE,FINE; default: {ACOUSTIC}, else WORKDIR/{VOICE}"
    )
    parser.add_argument("--step", type=int, help="checkpoint of the language model; default: the newest")


def open_named(
    workdir: Path | None,
    acoustic: str | None,
    step: int | None = None,
    *,
    language: bool,
    sound: bool = True,
    unmasking: Mapping[str, Any] = {},
) -> Chain:
    """What a command opens: runs that are named, and for others the README's, as far as they are there and fit.

    language: whether one is needed; sound: whether speech is to be heard. Without a name, what speaks is `ACOUSTIC`,
    else the voice that the language model's run keeps.
    Raises ValueError as `load`, and where a language model is needed and there is none.
    """
    place = workdir or (WORKDIR if WORKDIR.is_dir() else None)
    if language and place is None:
        raise ValueError(f"there is no {WORKDIR}: name the run of a language model by --workdir=WORKDIR")
    if acoustic:
        try:
            return open_chain(place or "", acoustic, step, unmasking)
        except (ValueError, CheckpointError) as error:
            if workdir or language or place is None:
                raise
            log.warning("%s is left out: %s", place, error)
            return open_chain("", acoustic, step, unmasking)
    opened = open_language(place, step) if place else None
    for path in (ACOUSTIC, place and place / VOICE) if sound else ():
        if path and path.is_dir():
            try:
                return Chain(opened, open_voice(path, unmasking))
            except (ValueError, CheckpointError) as error:
                log.warning("%s is left out: %s", path, error)
    if opened is None:
        raise ValueError(f"there is no {WORKDIR} and no {ACOUSTIC}: name runs by --workdir and --acoustic")
    return Chain(opened, None)


def open_language(workdir: Path, step: int | None = None) -> Language:
    """The language model of a run, of its newest checkpoint or of `step`.

    Raises ValueError where the folder is no workdir of such a run, or its tokenizer changed; CheckpointError.
    """
    config = read_config(workdir)
    task = config.get("task", "speech_text_lm")
    if task != "speech_text_lm" or not (workdir / VOCABULARY_FILE).is_file():
        raise ValueError(f"{workdir} is a run of the task '{task}': name one of speech_text_lm")
    if (workdir / STAGE_FILE).is_file():
        raise ValueError(
            f"{workdir} is a run of an acoustic stage, which makes codes of units and answers nothing: name it by "
            "--acoustic, and a language model by --workdir"
        )
    vocabulary = load_vocabulary(workdir)
    tokenizer = tokenizer_of_run(workdir, config.data.tokenizer, vocabulary)
    inventory = inventory_of_run(workdir, vocabulary)
    model_config = DecoderConfig(vocab_size=vocabulary.padded_size, **config.model)
    abstract = jax.eval_shape(functools.partial(Decoder, model_config), jax.random.key(0))
    model, _ = restore_model(workdir / "checkpoints", abstract, step)
    limits = {to: config.samples[f"{to}_tokens"] for to in ("text", "speech")}
    model = in_computation_dtype(model)
    return Language(model, vocabulary, tokenizer, inventory, limits, config.data.context_length)
