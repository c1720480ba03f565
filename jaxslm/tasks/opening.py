"""Trained runs, opened to be used."""

import functools
from pathlib import Path

import jax

from jaxslm.configure import read_config
from jaxslm.generation.chain import Chain, Language
from jaxslm.models.decoder import Decoder, DecoderConfig
from jaxslm.tasks.acoustic_stage import STAGE_FILE
from jaxslm.tasks.base import UNITS, load_run_tokenizer
from jaxslm.tasks.export import VOCABULARY_FILE, load_vocabulary
from jaxslm.tasks.own_voice import VOICE
from jaxslm.tasks.voices import open_voice
from jaxslm.training.checkpoint import restore_model
from jaxslm.units.inventory import UnitInventory

WORKDIR, ACOUSTIC = Path("runs/spiritlm"), Path("runs/soundstorm")  # where none is named


def find_acoustic(workdir: Path | None, acoustic: str | Path | None) -> str | Path | None:
    """What speaks where none is named: the run at `ACOUSTIC`, else the voice that the language model's run keeps."""
    inside = None if workdir is None else workdir / VOICE
    return acoustic or next((path for path in (ACOUSTIC, inside) if path and path.is_dir()), None)


def open_chain(workdir: str | Path = "", acoustic: str | Path = "", step: int | None = None) -> Chain:
    """See `jaxslm.generation.load`."""
    language = open_language(Path(workdir), step) if workdir else None
    voice = open_voice(acoustic) if acoustic else None
    if language is None and voice is None:
        raise ValueError("name a run: a language model by --workdir, an acoustic stage by --acoustic, or both")
    return Chain(language, voice)


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
    tokenizer, _ = load_run_tokenizer(workdir, config.data.tokenizer)
    if tokenizer.sha256 != vocabulary.tokenizer_sha256:
        raise ValueError(
            f"the tokenizer {config.data.tokenizer} has changed since the run in {workdir} was trained: put the old "
            "one back"
        )
    model_config = DecoderConfig(vocab_size=vocabulary.padded_size, **config.model)
    abstract = jax.eval_shape(functools.partial(Decoder, model_config), jax.random.key(0))
    model, _ = restore_model(workdir / "checkpoints", abstract, step)
    inventory = UnitInventory.load(workdir / UNITS)
    limits = {to: config.samples[f"{to}_tokens"] for to in ("text", "speech")}
    return Language(model, vocabulary, tokenizer, inventory, limits, config.data.context_length)
