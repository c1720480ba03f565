"""Where unit vocoders come from: the workdir of a training run, or a published checkpoint."""

import functools
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from jaxslm.acoustic.speaking import VocoderFacts
from jaxslm.acoustic.vocoder import Vocoder
from jaxslm.codec.conv import kernel_size
from jaxslm.hf.config_file import read_json
from jaxslm.hf.vocoder import load_vocoder_file
from jaxslm.naming import parameter_name
from jaxslm.training.checkpoint import restore_parts, saved_steps

log = logging.getLogger(__name__)

VOCODER_FILE = "vocoder.json"


def load_vocoder(
    workdir: str | Path, step: int | None = None, *, units_sha256: str = ""
) -> tuple[Vocoder, VocoderFacts]:
    """(the vocoder of a run, weight norm folded, its facts), of its newest checkpoint or of `step`: the mean of its
    parameters over the last steps if the run kept one.

    units_sha256: of the inventory whose units it is to speak; "" where that is checked later.
    Raises ValueError where the folder is no workdir of a vocoder, or for units of another inventory; CheckpointError
    without a checkpoint.
    """
    workdir = Path(workdir)
    if not (workdir / VOCODER_FILE).is_file():
        raise ValueError(f"{workdir} has no {VOCODER_FILE}: name the workdir of a run with task='unit_vocoder'")
    facts = VocoderFacts.from_json(read_json(workdir / VOCODER_FILE))
    if units_sha256:
        facts.check_units(units_sha256)
    abstract = jax.eval_shape(functools.partial(Vocoder, facts.config), jax.random.key(0))
    vocoder, _ = restore_parts(workdir / "checkpoints", abstract, ("average", "vocoder"), step)
    return vocoder.folded(), facts


def open_vocoder(place: str | Path, *, units_sha256: str = "") -> tuple[Vocoder, VocoderFacts]:
    """As `load_vocoder`, also of a published checkpoint or a folder with one, whose units are not known by hash."""
    place = Path(place)
    if (place / VOCODER_FILE).is_file():
        return load_vocoder(place, units_sha256=units_sha256)
    return load_vocoder_file(place)


def known_speakers(*places: str | Path) -> tuple[str, ...]:
    """Names of the first of the folders that is a trained vocoder's, by id; none if none is."""
    for place in (Path(place).expanduser() for place in places if place):
        if (place / VOCODER_FILE).is_file() and saved_steps(place / "checkpoints"):
            return VocoderFacts.from_json(read_json(place / VOCODER_FILE)).speakers
    return ()


def import_vocoder(model: Mapping[str, Any], place: Path) -> dict[str, Any]:
    """The model of a run with a published vocoder in place of its own: `Task.import_model`. Discriminators start anew,
    and so do the tables of speakers, of which there are others.

    Raises ValueError naming what does not fit.
    """
    theirs, facts = load_vocoder_file(place)
    arrays = {parameter_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(theirs)}

    def take(path: tuple, old: jax.Array) -> jax.Array:
        name = parameter_name(path)
        if name == "conditions/speaker/weight":
            return old
        new, kernel = arrays.get(name), arrays.get(f"{name.rpartition('/')[0]}/weight")
        if new is None and kernel is not None:  # theirs has no weight norm any more
            new = kernel if name.endswith("/direction") else kernel_size(kernel)
        if new is None and name.startswith("durations/"):
            return old  # published ones without a predictor get one
        if new is None or new.shape != old.shape:
            has = "nothing" if new is None else f"shape {list(new.shape)}"
            raise ValueError(
                f"init_from={place} has {has} for {name} {list(old.shape)}: give `model` and data.units the settings "
                f"of that vocoder, which are {facts.config.to_json()}"
            )
        return jax.device_put(jnp.asarray(new, old.dtype), old.sharding)

    vocoder = jax.tree_util.tree_map_with_path(take, model["vocoder"])
    average = None if model["average"] is None else jax.tree.map(jnp.copy, vocoder)
    return {**model, "vocoder": vocoder, "average": average}
