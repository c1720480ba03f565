"""A unit vocoder, trained adversarially: unit HiFi-GAN (Polyak et al. 2021) with a duration predictor.

`make(config, workdir)` wires speech with units, vocoder, losses and optimizers into a Task; the loop does the rest.
"""

import dataclasses
import functools
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from jaxslm.acoustic.speaking import VocoderFacts
from jaxslm.acoustic.vocoder import Vocoder, VocoderConfig
from jaxslm.acoustic.vocoder_generator import VocoderGenerator, of_durations, resynthesis, run_durations
from jaxslm.codec.adversarial import AdversarialTraining
from jaxslm.codec.discriminators import Discriminators
from jaxslm.codec.objective import Objective, weighted
from jaxslm.data.loader import training_batches
from jaxslm.data.prepare import prepare
from jaxslm.data.records import Records
from jaxslm.data.unit_crops import UnitCrops, find_spoken
from jaxslm.sharding import Partitioner, make_partitioner
from jaxslm.tasks.adversarial import adversarial_training, check_mesh, evaluation, plain, step_flops
from jaxslm.tasks.base import UNITS
from jaxslm.tasks.vocoder_files import VOCODER_FILE, import_vocoder, known_speakers
from jaxslm.tasks.vocoder_samples import draw_media, pick_recordings, write_samples
from jaxslm.training.distributed import share_of
from jaxslm.training.state import make_init
from jaxslm.training.task import Task
from jaxslm.units.inventory import UnitInventory

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Speech:
    """Crops to train on, held-out ones, what the ids mean, and the units' inventory."""

    crops: UnitCrops
    heldout: UnitCrops
    facts: VocoderFacts
    inventory: UnitInventory


def make(config: Mapping, workdir: Path) -> Task:
    """The task of a config with the keys of `unit_vocoder()` in configs/common.py."""
    data = config["data"]
    partitioner = make_partitioner(config["mesh"])
    check_mesh(partitioner, data["batch_size"], "vocoder")
    training = adversarial_training(config, data["sample_rate"], VocoderGenerator())
    speech = open_speech(config, known_speakers(workdir, config["init_from"]))
    crops, facts = speech.crops, speech.facts

    build = functools.partial(build_model, facts.config, training, plain(config["discriminators"]))
    init, abstract_state = make_init(build, training, partitioner)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract_state)
    step = jax.jit(training.step, static_argnums=3, donate_argnums=0, out_shardings=(shardings, None))
    processes = dict(process_index=jax.process_index(), process_count=jax.process_count())
    recordings = pick_recordings(speech.heldout, config["samples"]["utterances"])
    return Task(
        init=init,
        step=lambda state, batch: step(state, batch, None, training.has_started(state)),
        batches=lambda first_step: training_batches(
            [crops], [1.0], batch_size=data["batch_size"], first_step=first_step, workers=data["workers"], **processes
        ),
        batch_sharding=partitioner.batch_sharding(),
        abstract_state=lambda: abstract_state,
        evaluate=make_evaluate(config, training.objective, speech.heldout, partitioner),
        samples=lambda state, folder, step: write_samples(trained(state.model), facts, recordings, folder, step),
        media=lambda state: draw_media(trained(state.model), facts, recordings),
        artifacts={VOCODER_FILE: facts.to_json()},
        check_artifact=check_facts,
        write_files=lambda folder: speech.inventory.save(folder / UNITS),
        import_model=import_vocoder,
        work_per_step=data["batch_size"] * crops.n_frames * crops.hop / data["sample_rate"],
        work="audio_s",
        flops_per_step=step_flops(
            step, abstract_state, crops[0], data["batch_size"], None, bool(training.objective.adversarial)
        ),
        loss_label="",
    )


def open_speech(config: Mapping, known: tuple[str, ...] = ()) -> Speech:
    """Prepares the data of a config. known: speakers of the run that this one goes on from, whose ids stay what they
    were where the data has no others: so a vocoder of many voices is tuned to one.

    Raises ValueError where there is none of one split, where units are not as many a second as the generator makes
    frames, and for a closed set of speakers of which none is named.
    """
    data, model = config["data"], plain(config["model"])
    if not data["units"]:
        raise ValueError("data.units is empty: a vocoder speaks units; name their encoder or inventory")
    cache = Path(data["cache"]).expanduser()
    prepared = prepare(plain(data), cache, **share_of(cache))
    inventory, rate = prepared.inventory, data["sample_rate"]
    with_speakers = model.pop("speakers")
    names: tuple[str, ...] = ()
    speaker = ""
    shape = functools.partial(
        VocoderConfig, sample_rate=rate, frame_rate=inventory.frame_rate, n_units=inventory.size, **model
    )
    hop = shape().hop
    records = Records(prepared.folder, inventory.sha256)
    found = find_spoken(records, inventory.sha256, hop, rate)
    if with_speakers:
        names = tuple(sorted({each.speaker for each in found["train"]} - {""}))
        if not names:
            raise ValueError("model.speakers=True, but no training utterance has a speaker: set it to False")
        if (heard := set(names)) < set(known):
            log.info(
                "of %d speakers of the vocoder the data have %d: the others stay as they are", len(known), len(heard)
            )
            names, speaker = known, names[0]
    facts = VocoderFacts(shape(n_speakers=len(names)), names, (), speaker, inventory.name, inventory.sha256)
    n_frames = max(1, round(data["seconds"] * inventory.frame_rate))
    more = dict(speakers={name: i for i, name in enumerate(names)}, sample_rate=rate)
    crops, heldout = (
        UnitCrops(records, inventory.sha256, found[split], n_frames, hop, config["seed"], **more)
        for split in ("train", "heldout")
    )
    for split, kept in (("train", crops), ("heldout", heldout)):
        if strangers := len(found[split]) - len(kept.spoken):
            log.warning(
                "%d utterances of the split '%s' have a speaker without training data: left out", strangers, split
            )
    log.info("%.2f h of speech to train on, %.2f h held out", crops.seconds / 3600, heldout.seconds / 3600)
    return Speech(crops, heldout, facts, inventory)


def check_facts(name: str, saved: Any, current: Any) -> None:
    """`Task.check_artifact`: refuses a run whose ids meant something else, naming what."""
    before, now = VocoderFacts.from_json(saved), VocoderFacts.from_json(current)
    try:
        before.check_units(now.inventory_sha256)
    except ValueError as error:
        raise ValueError(f"{name}: {error}; or use a new --workdir") from error
    for field in ("config", "speakers", "styles"):
        if getattr(before, field) != getattr(now, field):
            raise ValueError(
                f"{name}: {field} was {getattr(before, field)} and is {getattr(now, field)} now: use the settings and "
                "data it was trained with, or a new --workdir"
            )


def build_model(
    config: VocoderConfig, training: AdversarialTraining, discriminators: Mapping[str, Any], key: jax.Array
) -> dict:
    """The model of the state, see codec/adversarial.py."""
    keys = jax.random.split(key)
    vocoder = Vocoder(config, keys[0])
    opponents = None
    if training.objective.adversarial:
        opponents = Discriminators(discriminators["kinds"], keys[1], level=discriminators["level"])
    average = jax.tree.map(jnp.copy, vocoder) if training.average_decay else None
    return {"vocoder": vocoder, "discriminators": opponents, "average": average}


def trained(model: Mapping[str, Any]) -> Vocoder:
    """The vocoder to use: with the averaged parameters if there are."""
    return model["vocoder"] if model["average"] is None else model["average"]


def make_evaluate(config, objective: Objective, heldout: UnitCrops, partitioner: Partitioner):
    """`evaluate(state)`: held-out distances between crops and what is made of their units; of durations the loss, and
    their mean error in frames (`duration_error`).
    """
    size = config["data"]["batch_size"]

    def measure(model, batch):
        vocoder, samples, n_B = trained(model), batch["samples"], batch["length"][:, 0]
        distances = objective.distance(resynthesis(vocoder, batch, config["dtype"]), samples, n_B)
        values = {"loss": weighted(distances, objective.yardstick)}
        values |= {f"loss/{name}": value for name, value in distances.items()}
        figures = {name: (value, n_B.sum()) for name, value in values.items()}
        if vocoder.durations is not None:
            predicted, measured = run_durations(vocoder, batch), batch["measured"] > 0
            off = jnp.abs(jnp.maximum(jnp.expm1(predicted.mean_BxU), 1) - batch["run_frames"])
            error = jnp.where(measured, off, 0).sum() / jnp.maximum(measured.sum(), 1)
            figures["loss/durations"] = of_durations(predicted, batch), measured.sum()
            figures["duration_error"] = error, measured.sum()
        return figures

    crops = heldout.firsts(min(config["eval"]["batches"] * size, len(heldout.spoken)))
    return evaluation(crops, size, measure, partitioner)
