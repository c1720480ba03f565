"""The masked acoustic stage, units to codes of a codec (SoundStorm), with a model of how long units last.

`make(config, workdir)` wires units, codes, model and optimizer into a Task; the loop does the rest.
"""

import dataclasses
import functools
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from jaxslm.acoustic.durations import DurationConfig, DurationModel
from jaxslm.acoustic.masked import MaskedConfig, MaskedModel
from jaxslm.acoustic.objective import duration_mean, masked_sums
from jaxslm.acoustic.voices import MaskedVoice
from jaxslm.codec.model import Codec
from jaxslm.data.code_crops import CodeCrops
from jaxslm.data.loader import training_batches
from jaxslm.data.prepare import Prepared, prepare
from jaxslm.data.records import Records, describe
from jaxslm.hf.config_file import read_json
from jaxslm.sharding import Partitioner, make_partitioner
from jaxslm.tasks.acoustic_samples import Resynthesis
from jaxslm.tasks.adversarial import check_mesh, evaluation, plain
from jaxslm.tasks.base import UNITS
from jaxslm.tasks.codec_files import codebook_values, keep_codec, open_codec
from jaxslm.tasks.codec_samples import whole_on_host
from jaxslm.training.checkpoint import restore_model
from jaxslm.training.distributed import share_of
from jaxslm.training.optimizer import make_optimizer
from jaxslm.training.state import make_init
from jaxslm.training.step import make_train_step
from jaxslm.training.task import Task
from jaxslm.units.inventory import UnitInventory

log = logging.getLogger(__name__)

ACOUSTIC_FILE, CODEC = "acoustic.json", "codec"


def make(config: Mapping, workdir: Path) -> Task:
    """The task of a config with the keys of `acoustic()` in configs/common.py."""
    data = config["data"]
    partitioner = make_partitioner(config["mesh"])
    check_mesh(partitioner, data["batch_size"], "masked acoustic stage")
    codec, prepared = open_data(data)
    inventory, about = prepared.inventory, prepared.codec
    records = Records(prepared.folder, inventory.sha256, about["sha256"])
    n_frames = round(data["seconds"] * about["frame_rate"])
    same = (records, inventory.sha256, about["sha256"])
    n_levels = _levels(data["levels"], about)
    crops, heldout = (CodeCrops(*same, split, n_frames, n_levels, config["seed"]) for split in ("train", "heldout"))
    hours = [c.total_frames / about["frame_rate"] / 3600 for c in (crops, heldout)]
    log.info("%.2f h to train on, %.2f h held out: %s to %s", *hours, inventory.name, about["name"])

    masked_config = MaskedConfig(
        n_units=inventory.size,
        n_levels=n_levels,
        codebook_size=about["codebook_sizes"][0],
        **plain(config["model"]),
    )
    durations = DurationConfig(**plain(config["durations"]))
    optimizer, schedule = make_optimizer(config["optimizer"], config["steps"])
    values_QxKxC = codebook_values(codec)[:n_levels]
    build = functools.partial(build_model, masked_config, durations)
    init, abstract_state = make_init(functools.partial(build, values_QxKxC=values_QxKxC), optimizer, partitioner)
    step = make_train_step(
        make_loss(config["prompt_dropout"], partitioner),
        optimizer,
        schedule,
        objectives=[f"level{q + 1}" for q in range(masked_config.n_levels)],
        accumulate_steps=config["optimizer"]["accumulate_steps"],
        state_shardings=jax.tree.map(lambda leaf: leaf.sharding, abstract_state),
    )
    facts = dict(
        model=dataclasses.asdict(masked_config),
        durations=dataclasses.asdict(durations),
        window=n_frames,
        inventory=describe(inventory),
        codec=about,
    )
    resynthesis = Resynthesis(heldout, codec, config["samples"])

    def voice_of(model: Any) -> MaskedVoice:
        return MaskedVoice(jax.tree.map(whole_on_host, model), facts, inventory, codec)

    def write_files(folder: Path) -> None:
        inventory.save(folder / UNITS)
        keep_codec(codec, about["name"], folder / CODEC)

    n_rows = config["eval"]["batches"] * data["batch_size"]
    processes = dict(process_index=jax.process_index(), process_count=jax.process_count())
    return Task(
        init=init,
        step=step,
        batches=lambda first_step: training_batches(
            [crops], [1.0], batch_size=data["batch_size"], first_step=first_step, workers=data["workers"], **processes
        ),
        batch_sharding=partitioner.batch_sharding(),
        abstract_state=lambda: abstract_state,
        evaluate=evaluation([heldout[row] for row in range(n_rows)], data["batch_size"], measure_heldout, partitioner),
        samples=lambda state, folder, step: resynthesis.write(voice_of(state.model), folder, step),
        media=lambda state: resynthesis.media(voice_of(state.model)),
        write_files=write_files,
        artifacts={ACOUSTIC_FILE: json.loads(json.dumps(facts))},
        check_artifact=functools.partial(check_facts, workdir),
        work_per_step=data["batch_size"] * data["seconds"],
        work="audio_s",
        flops_per_step=6.0 * n_frames * data["batch_size"] * _n_parameters(abstract_state.model["masked"]),
        loss_label="loss (nats a code)",
    )


def open_data(data: Mapping) -> tuple[Codec, Prepared]:
    """The codec that the config names, and its data with units and codes."""
    if not data["codec"]:
        raise ValueError(
            "data.codec is empty: train a codec, such as by launch/train.py --config=configs/spectral_16k.py:tiny "
            "--workdir=runs/codec, and name its workdir (or a Hugging Face folder) by --config.data.codec=runs/codec"
        )
    codec, name = open_codec(Path(data["codec"]).expanduser())
    if data["sample_rate"] < (rate := codec.config.sample_rate):
        log.warning("data.sample_rate=%d is below the codec's %d: its codes lack the highs", data["sample_rate"], rate)
    if not data["units"]:
        raise ValueError("data.units is empty: this task speaks units, name some as for a language model")
    cache = Path(data["cache"]).expanduser()
    return codec, prepare(data, cache, codec=(codec, name), **share_of(cache))


def _levels(asked: int, about: Mapping) -> int:
    """Codes of a frame that are learnt. Raises ValueError for more levels than the codec has."""
    per_level = len(about["codebook_sizes"]) // about["levels"]
    if not 0 <= asked <= about["levels"]:
        raise ValueError(f"data.levels={asked}, but the codec has {about['levels']}: ask for 1 to that, or 0 for all")
    return (asked or about["levels"]) * per_level


def build_model(masked: MaskedConfig, durations: DurationConfig, key: jax.Array, values_QxKxC=None) -> dict:
    """The model of the state. values_QxKxC: what the embeddings of codes start from."""
    keys = jax.random.split(key, 3)
    model = MaskedModel(masked, keys[0])
    if values_QxKxC is not None:
        model = model.with_codebooks(values_QxKxC, keys[1])
    return {"masked": model, "durations": DurationModel(masked.n_units, durations, keys[2])}


def make_loss(prompt_dropout: float, partitioner: Partitioner):
    """`loss(model, batch) -> (total, sums)` for make_train_step; durations count as much as codes."""

    def loss(model: Mapping[str, Any], batch: Mapping[str, jax.Array]):
        total, sums = masked_sums(
            model["masked"], batch, prompt_dropout=prompt_dropout, constrain=partitioner.constrain
        )
        return total + duration_mean(model["durations"], batch, train=True) * sums["weight_O"].sum(), sums

    return loss


def measure_heldout(model: Mapping[str, Any], batch: Mapping[str, jax.Array]) -> dict[str, tuple]:
    """Figures with their weights: the loss a code, over all levels and of each, the share of the likeliest codes that
    are right, the loss of durations.
    """
    _, sums = masked_sums(model["masked"], batch, prompt_dropout=0.0)
    weight_Q = sums["weight_O"]
    weight = weight_Q.sum()
    losses_Q = sums["nll_O"] / jnp.maximum(weight_Q, 1)
    levels = {f"loss/level{q + 1}": (losses_Q[q], weight_Q[q]) for q in range(len(losses_Q))}
    return levels | {
        "loss": (sums["nll_O"].sum() / jnp.maximum(weight, 1), weight),
        "accuracy": (sums["right_O"].sum() / jnp.maximum(weight, 1), weight),
        "loss/durations": (duration_mean(model["durations"], batch, train=False), (batch["durations"] > 0).sum()),
    }


def check_facts(workdir: Path, name: str, saved: Mapping, current: Mapping) -> None:
    """Raises ValueError naming what changed: units or codec, by their hash, or the model."""
    for what in ("inventory", "codec"):
        if saved[what]["sha256"] != current[what]["sha256"]:
            theirs, ours = (f"{facts[what]['name']} ({facts[what]['sha256'][:12]})" for facts in (saved, current))
            raise ValueError(
                f"{workdir / name}: this run was trained with the {what} {theirs}, the config gives {ours}, to which "
                "the same ids mean other sounds; use a new --workdir, or the data it was trained with"
            )
    for part in ("model", "durations", "window"):
        if saved[part] != current[part]:
            raise ValueError(f"{workdir / name}: {part} was {saved[part]} and is {current[part]}; use a new --workdir")


def load_run(workdir: str | Path, step: int | None = None, unmasking: Mapping[str, Any] = {}) -> MaskedVoice:
    """The voice of a run, of its newest checkpoint or of `step`. unmasking: see `MaskedVoice`.

    Raises ValueError where the folder is no workdir of such a run, CheckpointError without a checkpoint.
    """
    workdir = Path(workdir)
    facts = read_json(workdir / ACOUSTIC_FILE)
    masked, durations = MaskedConfig(**facts["model"]), DurationConfig(**facts["durations"])
    abstract = jax.eval_shape(functools.partial(build_model, masked, durations), jax.random.key(0))
    model, _ = restore_model(workdir / "checkpoints", abstract, step)
    codec, _ = open_codec(workdir / CODEC)
    return MaskedVoice(model, facts, UnitInventory.load(workdir / UNITS), codec, unmasking)


def _n_parameters(model: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(model) if jnp.issubdtype(leaf.dtype, jnp.floating))
