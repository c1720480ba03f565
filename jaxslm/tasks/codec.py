"""A neural codec, trained adversarially: SoundStream and its relatives.

`make(config, workdir)` wires audio, codec, losses and optimizers into a Task; the loop does the rest.
"""

import functools
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from jaxslm.codec.adversarial import AdversarialTraining
from jaxslm.codec.codec_generator import CodecGenerator
from jaxslm.codec.discriminators import Discriminators
from jaxslm.codec.distillation import Distillation
from jaxslm.codec.model import Codec, CodecConfig
from jaxslm.codec.objective import Objective, weighted
from jaxslm.data.crops import AudioCrops, find_audio
from jaxslm.data.loader import training_batches
from jaxslm.data.prepare import prepare
from jaxslm.data.records import Records
from jaxslm.hf.codec import check_exportable, save_codec
from jaxslm.hf.config_file import read_json
from jaxslm.sharding import Partitioner, make_partitioner
from jaxslm.tasks.adversarial import adversarial_training, check_mesh, evaluation, plain, step_flops
from jaxslm.tasks.codec_files import import_codec
from jaxslm.tasks.codec_samples import draw_media, pick_recordings, write_samples
from jaxslm.tasks.codec_teacher import open_teacher
from jaxslm.training.checkpoint import restore_parts
from jaxslm.training.distributed import share_of
from jaxslm.training.state import make_init
from jaxslm.training.task import Task

log = logging.getLogger(__name__)

CODEC_FILE = "codec.json"


def make(config: Mapping, workdir: Path) -> Task:
    """The task of a config with the keys of `codec()` in configs/common.py."""
    data = config["data"]
    codec_config = CodecConfig(sample_rate=data["sample_rate"], **plain(config["model"]))
    partitioner = make_partitioner(config["mesh"])
    check_mesh(partitioner, data["batch_size"], "codec")
    distillation = teacher = None
    if config["losses"]["distil"]["weight"]:
        abstract = jax.eval_shape(functools.partial(Codec, codec_config), jax.random.key(0))
        distillation, teacher = open_teacher(config["losses"]["distil"], abstract)
        teacher = jax.device_put(teacher, partitioner.sharding((), ()))
    training = make_training(config, codec_config.sample_rate, distillation)
    if config["export"]["every"]:
        check_exportable(codec_config)
    records, crops, heldout = open_audio(data, codec_config.sample_rate, config["seed"])

    build = functools.partial(build_model, codec_config, training, plain(config["discriminators"]))
    init, abstract_state = make_init(build, training, partitioner)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract_state)
    step = jax.jit(training.step, static_argnums=3, donate_argnums=0, out_shardings=(shardings, None))
    processes = dict(process_index=jax.process_index(), process_count=jax.process_count())
    recordings = pick_recordings(records, config["samples"]["utterances"], codec_config.sample_rate)
    return Task(
        init=init,
        step=lambda state, batch: step(state, batch, teacher, training.has_started(state)),
        batches=lambda first_step: training_batches(
            [crops], [1.0], batch_size=data["batch_size"], first_step=first_step, workers=data["workers"], **processes
        ),
        batch_sharding=partitioner.batch_sharding(),
        abstract_state=lambda: abstract_state,
        evaluate=make_evaluate(config, training.objective, heldout, partitioner),
        samples=lambda state, folder, step: write_samples(trained(state.model), recordings, folder, step),
        media=lambda state: draw_media(trained(state.model), recordings),
        artifacts={CODEC_FILE: codec_config.to_json()},
        import_model=import_codec,
        export=lambda step, folder: export_codec(workdir, folder, step),
        work_per_step=data["batch_size"] * data["seconds"],
        work="audio_s",
        flops_per_step=step_flops(
            step, abstract_state, crops[0], data["batch_size"], teacher, bool(training.objective.adversarial)
        ),
        loss_label="",
    )


def make_training(config: Mapping, sample_rate: int, distillation: Distillation | None) -> AdversarialTraining:
    """Losses, optimizers and the rest of what a step is made of."""
    return adversarial_training(config, sample_rate, CodecGenerator(distillation))


def open_audio(data: Mapping, sample_rate: int, seed: int) -> tuple[Records, AudioCrops, AudioCrops]:
    """(prepared audio, clips to train on, held-out ones). Raises ValueError where there is none of one."""
    cache = Path(data["cache"]).expanduser()
    prepared = prepare({**plain(data), "units": {}}, cache, **share_of(cache))
    records, n_samples = Records(prepared.folder, inventory=""), round(data["seconds"] * sample_rate)
    more = dict(sample_rate=sample_rate, found=find_audio(records))
    crops, heldout = (AudioCrops(records, split, n_samples, seed, **more) for split in ("train", "heldout"))
    log.info("%.2f h of audio to train on, %.2f h held out", crops.seconds / 3600, heldout.seconds / 3600)
    return records, crops, heldout


def load_run(workdir: str | Path, step: int | None = None) -> Codec:
    """The codec of a run, of its newest checkpoint or of `step`, weight norm folded: the mean of its parameters over
    the last steps if the run kept one.

    Raises ValueError where the folder is no workdir of a codec, CheckpointError without a checkpoint.
    """
    return restore_codec(Path(workdir), step)[0]


def export_codec(workdir: Path, folder: Path, step: int | None = None) -> int:
    """Writes the codec of a run as a Hugging Face folder; the step it is of. Raises ValueError as `load_run`, where no
    architecture there has all that the codec does, and where the folder exists.
    """
    codec, step = restore_codec(workdir, step)
    save_codec(codec, folder)
    return step


def restore_codec(workdir: Path, step: int | None) -> tuple[Codec, int]:
    """(what `load_run` gives, the step it is of)."""
    if not (workdir / CODEC_FILE).is_file():
        raise ValueError(f"{workdir} has no {CODEC_FILE}: name the workdir of a run with task='codec'")
    config = CodecConfig(**read_json(workdir / CODEC_FILE))
    abstract = jax.eval_shape(functools.partial(Codec, config), jax.random.key(0))
    codec, step = restore_parts(workdir / "checkpoints", abstract, ("average", "codec"), step)
    return codec.folded(), step


def build_model(
    config: CodecConfig, training: AdversarialTraining, discriminators: Mapping[str, Any], key: jax.Array
) -> dict:
    """The model of the state, see codec/adversarial.py."""
    keys = jax.random.split(key, 3)
    codec = Codec(config, keys[0])
    student = training.generator.distillation and training.generator.distillation.student(config.dim, keys[1])
    opponents = None
    if training.objective.adversarial:
        opponents = Discriminators(discriminators["kinds"], keys[2], level=discriminators["level"])
    average = codec.with_codebooks(None) if training.average_decay else None
    return {"codec": codec, "student": student, "discriminators": opponents, "average": average}


def trained(model: Mapping[str, Any]) -> Codec:
    """The codec to use: with the averaged parameters if there are."""
    if model["average"] is None:
        return model["codec"]
    return model["average"].with_codebooks(model["codec"].quantizer.codebooks)


def make_evaluate(config, objective: Objective, heldout: AudioCrops, partitioner: Partitioner):
    """`evaluate(state)`: held-out distances between clips and reconstructions, and how the codes are used."""
    size = config["data"]["batch_size"]

    def measure(model, batch):
        samples, n_B = batch["samples"], batch["length"][:, 0]
        made = trained(model)(samples.astype(config["dtype"]), n_B)
        distances = objective.distance(made.samples_BxN.astype(jnp.float32), samples, n_B)
        values = {"loss": weighted(distances, objective.yardstick)}
        values |= {f"loss/{name}": value for name, value in distances.items()}
        values |= {name: value_Q.mean() for name, value_Q in made.quantized.metrics.items()}
        return {name: (value, n_B.sum()) for name, value in values.items()}

    clips = heldout.firsts(min(config["eval"]["batches"] * size, heldout.n_utterances))
    return evaluation(clips, size, measure, partitioner)
