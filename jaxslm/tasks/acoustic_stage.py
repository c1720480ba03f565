"""Runs of speech_text_lm whose mixture asks for "coarse" or "fine": what they say of themselves, and reading them."""

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from jaxslm.acoustic.autoregressive import Stage, StageFacts
from jaxslm.acoustic.frames import AcousticCrops, FrameRates
from jaxslm.configure import read_config
from jaxslm.data.layouts import LAYOUTS
from jaxslm.data.loader import mixture_shares
from jaxslm.generation.sampler import Sampling
from jaxslm.models.decoder import Decoder, DecoderConfig
from jaxslm.tasks.export import load_vocabulary
from jaxslm.training.checkpoint import restore_model
from jaxslm.training.workdir import write_json

STAGE_FILE, CODEC = "stage.json", "codec"


def stage_of(mixture: Mapping[str, float]) -> str:
    """The acoustic stage that a mixture trains, "" if none."""
    return next((name for name in mixture_shares(mixture)[0] if LAYOUTS[name].needs_codes), "")


def stage_facts(config: Mapping[str, Any], codec: Mapping, inventory: str, rates: FrameRates) -> StageFacts:
    """The facts of a run.

    Raises ValueError for numbers of levels that the codec does not allow, and where exports are asked for.
    """
    stage, samples = stage_of(config["data"]["mixture"]), config["samples"]
    crops = AcousticCrops(**config["data"]["acoustic"])
    crops.check_levels(len(codec["codebook_sizes"]))
    if config["export"]["every"]:
        raise ValueError("an acoustic stage has no Hugging Face form: set export.every=0")
    sampling = Sampling(**{name: samples[name] for name in ("temperature", "top_k", "top_p")})
    return StageFacts(stage, rates, crops, sampling, dict(codec), inventory)


def write_facts(workdir: Path, facts: StageFacts) -> None:
    """`STAGE_FILE`: what vocabulary.json and config.json do not say."""
    rates = dict(unit_rate=facts.rates.units, code_rate=facts.rates.codes)
    write_json(workdir / STAGE_FILE, dict(codec=facts.codec, inventory=facts.inventory, **rates))


def load_stage(workdir: str | Path, step: int | None = None) -> Stage:
    """(decoder, vocabulary, facts) of a coarse or fine run, of its newest checkpoint or of `step`.

    Raises ValueError where the folder is no run of an acoustic stage, CheckpointError where no checkpoint can be read.
    """
    workdir = Path(workdir)
    config, path = read_config(workdir), workdir / STAGE_FILE
    if not path.is_file():
        raise ValueError(
            f"{workdir} is no run of an acoustic stage (no {STAGE_FILE}): train one by configs/audiolm_coarse.py or "
            "configs/audiolm_fine.py"
        )
    said, vocabulary = json.loads(path.read_text()), load_vocabulary(workdir)
    rates = FrameRates(said["unit_rate"], said["code_rate"])
    facts = stage_facts(config, said["codec"], said["inventory"], rates)
    model_config = DecoderConfig(vocab_size=vocabulary.padded_size, **config.model)
    abstract = jax.eval_shape(functools.partial(Decoder, model_config), jax.random.key(0))
    model, _ = restore_model(workdir / "checkpoints", abstract, step)
    return Stage(model, vocabulary, facts)
