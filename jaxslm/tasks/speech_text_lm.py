"""A decoder language model over text, speech units and codes: SpiRit-LM and its relatives, AudioLM's acoustic stages.

`make(config, workdir)` wires data, vocabulary, model and optimizer into a Task; the loop does the rest.
"""

import dataclasses
import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np

from jaxslm.acoustic.autoregressive import StageFacts
from jaxslm.acoustic.frames import AcousticCrops
from jaxslm.codec.model import Codec
from jaxslm.data.loader import check_codes, check_text, heldout_batches, mixture_shares, training_batches
from jaxslm.data.packing import PackedRows
from jaxslm.data.prepare import Prepared, prepare
from jaxslm.data.records import Records
from jaxslm.data.segments import LayoutSettings
from jaxslm.data.shuffled import SHUFFLES, shuffled_index
from jaxslm.data.spans import SpanLengths
from jaxslm.data.token_index import TokenIndex, build_token_index
from jaxslm.hf.tensors import DTYPES
from jaxslm.sharding import Partitioner, make_partitioner
from jaxslm.tasks import acoustic_stage, acoustic_stage_samples
from jaxslm.tasks.base import UNITS, check_base, import_model, keep_base, load_run_tokenizer, open_base
from jaxslm.tasks.codec_files import keep_codec, open_codec
from jaxslm.tasks.export import VOCABULARY_FILE, export_run
from jaxslm.tasks.likelihood import make_suites
from jaxslm.tasks.lm_program import make_program
from jaxslm.tasks.own_voice import VOICE, make_voice
from jaxslm.tasks.samples import pick_heldout, write_samples
from jaxslm.tasks.voices import open_voice
from jaxslm.training.checkpoint import saved_steps
from jaxslm.training.distributed import agree, share_of
from jaxslm.training.step import put_batch
from jaxslm.training.task import Task
from jaxslm.vocabulary import Vocabulary, build_vocabulary, check_free

log = logging.getLogger(__name__)

QUICK = "quick"  # samples.voice: one that the run learns


@dataclasses.dataclass(frozen=True)
class Corpus:
    """Prepared data with the ids it turns into."""

    prepared: Prepared
    tokenizer: object
    vocabulary: Vocabulary
    index: TokenIndex
    codec: tuple[Codec, str] | None = None


def open_corpus(data: Mapping, tokenizer) -> Corpus:
    """Prepares the config's data, or finds it prepared, and builds the vocabulary and the token index."""
    cache = Path(data["cache"]).expanduser()
    codec = open_codec(Path(data["codec"]).expanduser()) if data["codec"] else None
    if codec and data["sample_rate"] < (rate := codec[0].config.sample_rate):
        log.warning(
            "data.sample_rate=%d is below the codec's %d Hz: its codes lack the highs", data["sample_rate"], rate
        )
    prepared = prepare(data, cache, codec=codec, **share_of(cache))
    index = build_token_index(prepared.folder, tokenizer, prepared.inventory, cache, codec=prepared.codec)
    inventory = prepared.inventory
    vocabulary = build_vocabulary(tokenizer, inventory.size, inventory.sha256, codec=prepared.codec)
    corpus = Corpus(prepared, tokenizer, vocabulary, index, codec)
    digest = hashlib.sha256(json.dumps([corpus.vocabulary.to_json(), index.folder.name], sort_keys=True).encode())
    mine = int.from_bytes(digest.digest()[:4], "big") >> 1
    if agree(mine) != mine:
        raise ValueError(
            f"process {jax.process_index()} prepared other data than process 0 (units learnt elsewhere differ): "
            f"prepare once, and give all hosts the same folder by --config.data.cache (here {cache})"
        )
    return corpus


def check_rows(config: Mapping, partitioner: Partitioner) -> None:
    """Raises ValueError unless the rows of a batch can be dealt out to the mesh."""
    rows, parts = config["data"]["batch_size"], config["optimizer"]["accumulate_steps"]
    shards = partitioner.mesh.shape["data"] * partitioner.mesh.shape["fsdp"]
    if rows % (shards * parts):
        raise ValueError(
            f"data.batch_size={rows} is no multiple of the {shards} shards of a batch (mesh.data x mesh.fsdp) times "
            f"optimizer.accumulate_steps={parts}: raise it, or give devices to mesh.tensor or mesh.sequence"
        )


def check_processes(rows: int, partitioner: Partitioner) -> None:
    """Raises ValueError unless each process has rows of its own, of `rows`."""
    shards = partitioner.mesh.shape["data"] * partitioner.mesh.shape["fsdp"]
    sharding = partitioner.batch_sharding()
    here = sum(stop - start for start, stop in _row_ranges(sharding, rows))
    if here * jax.process_count() != rows:
        raise ValueError(
            f"mesh.data x mesh.fsdp = {shards} does not give each of the {jax.process_count()} processes rows of its "
            "own: make it a multiple of the number of processes, with mesh.tensor and mesh.sequence inside each"
        )


def _row_ranges(sharding, rows: int) -> set[tuple[int, int]]:
    """Which rows of a batch this process's devices hold, as (first, stop) ranges."""
    indices = sharding.addressable_devices_indices_map((rows, sharding.mesh.shape["sequence"]))
    return {index[0].indices(rows)[:2] for index in indices.values()}


def make_rows(config: Mapping, corpus: Corpus, *, heldout: bool) -> list[PackedRows]:
    """One source of rows for each objective of the mixture, in the mixture's order."""
    data = config["data"]
    names, _ = mixture_shares(data["mixture"])
    return [
        PackedRows(
            corpus.index,
            corpus.vocabulary,
            name,
            objective_id=i,
            context_length=data["context_length"],
            seed=config["seed"],
            settings=LayoutSettings(SpanLengths(**data["spans"]), AcousticCrops(**data["acoustic"])),
            loss_weight=data["loss_weights"].get(name, 1.0),
            heldout=heldout,
        )
        for i, name in enumerate(names)
    ]


def make(config: Mapping, workdir: Path) -> Task:
    """The task of a config with the keys of configs/common.py.

    If init_from names a Hugging Face folder, `config` takes over its shape and tokenizer.
    """
    if config["export"]["dtype"] not in DTYPES:
        raise ValueError(f"export.dtype={config['export']['dtype']!r} is not one of {', '.join(DTYPES)}")
    source = open_base(config, workdir)
    data = config["data"]
    partitioner = make_partitioner(config["mesh"])
    check_rows(config, partitioner)
    check_processes(data["batch_size"], partitioner)
    if not data["units"]:
        raise ValueError("data.units is empty: this task needs unit tokens, even where data.mixture is text alone")
    tokenizer, _ = load_run_tokenizer(workdir, data["tokenizer"])
    check_text(data["mixture"], tokenizer)
    check_codes(data["mixture"], data["codec"])
    check_free(tokenizer, codes=bool(data["codec"]))
    if source is not None and not saved_steps(workdir / "checkpoints"):
        check_base(source, config, tokenizer)
    corpus = open_corpus(data, tokenizer)
    if data["shuffle"]:
        log.warning("data.shuffle=%s: %s", data["shuffle"], SHUFFLES.get(data["shuffle"], ""))
        corpus = dataclasses.replace(corpus, index=shuffled_index(corpus.index, data["shuffle"], config["seed"]))
    facts = _stage_facts(config, corpus)
    names, shares = mixture_shares(data["mixture"])
    rows, heldout = (make_rows(config, corpus, heldout=h) for h in (False, True))
    for packed in rows:
        log.info("%s", packed.describe())
    vocabulary = corpus.vocabulary
    program = make_program(
        config,
        vocab_size=vocabulary.size,
        padded_size=vocabulary.padded_size,
        objectives=names,
        partitioner=partitioner,
    )
    processes = dict(process_index=jax.process_index(), process_count=jax.process_count())

    suites = make_suites(config, corpus, partitioner)

    def write_files(folder: Path) -> None:
        corpus.prepared.inventory.save(folder / UNITS)
        keep_base(folder, config, source)
        if facts:
            acoustic_stage.write_facts(folder, facts)
            keep_codec(*corpus.codec, folder / acoustic_stage.CODEC)

    return Task(
        init=program.init,
        step=program.step,
        batches=lambda first_step: training_batches(
            rows, shares, batch_size=data["batch_size"], first_step=first_step, workers=data["workers"], **processes
        ),
        batch_sharding=partitioner.batch_sharding(),
        abstract_state=lambda: program.abstract_state,
        evaluate=make_evaluate(config, program.loss, names, heldout, suites, partitioner, processes),
        samples=make_samples(config, corpus, facts, workdir),
        write_files=write_files,
        import_model=lambda model, folder: import_model(
            source, model, folder, vocabulary=vocabulary, new_rows=config["new_rows"], seed=config["seed"]
        ),
        export=lambda step, folder: export_run(
            workdir, config, folder, step=step, dtype=config["export"]["dtype"], progress=False
        ),
        artifacts={VOCABULARY_FILE: vocabulary.to_json()},
        check_artifact=lambda name, saved, current: Vocabulary.from_json(current).check_same(
            Vocabulary.from_json(saved), str(workdir / name)
        ),
        work_per_step=data["batch_size"] * data["context_length"],
        flops_per_step=program.flops_per_step,
    )


def _stage_facts(config: Mapping, corpus: Corpus) -> StageFacts | None:
    """Of an acoustic stage, if the mixture trains one."""
    if not acoustic_stage.stage_of(config["data"]["mixture"]):
        return None
    prepared = corpus.prepared
    return acoustic_stage.stage_facts(config, prepared.codec, prepared.inventory.name, corpus.index.rates)


def make_samples(config: Mapping, corpus: Corpus, facts: StageFacts | None, workdir: Path):
    """`Task.samples`: answers to held-out utterances, or what an acoustic stage makes of them.

    What is said can be heard where samples.voice is "quick" or names the run of an acoustic stage.
    """
    inventory, vocabulary, settings = corpus.prepared.inventory, corpus.vocabulary, config["samples"]
    records = Records(corpus.prepared.folder, inventory.sha256, vocabulary.codec_sha256)
    name = settings["voice"]

    def learn():
        if name == QUICK and jax.process_index() == 0:
            return make_voice(workdir / VOICE, records, inventory, config["seed"])
        return None

    if facts:
        clips = acoustic_stage_samples.pick_coded(records, vocabulary, facts, settings["utterances"])
        how = dict(clips=clips, vocabulary=vocabulary, facts=facts, codec=config["data"]["codec"])

        def stage_samples(state, folder: Path, step: int) -> str:
            learn()  # whose durations the stage speaks with
            return acoustic_stage_samples.write_samples(state, folder, step, **how)

        return stage_samples
    voice = open_voice(name) if name not in ("", QUICK) else None
    if voice:
        voice.check_units(inventory.sha256)
    chosen = pick_heldout(records, vocabulary, settings["utterances"])

    def samples(state, folder: Path, step: int) -> str:
        speaks = voice or learn()
        same = dict(vocabulary=vocabulary, tokenizer=corpus.tokenizer, config=settings)
        return write_samples(state, folder, step, utterances=chosen, voice=speaks, **same)

    return samples


def make_evaluate(config, loss, names, heldout: list[PackedRows], suites, partitioner: Partitioner, processes):
    """`evaluate(state)`: held-out loss a token, overall and for each objective that has held-out data, and what
    `suites(model)` gives."""
    sums_of = jax.jit(lambda model, batch: loss(model, batch)[1])
    batch_size, most = config["data"]["batch_size"], config["eval"]["batches"]
    usable = [rows for rows in heldout if rows.n_fitting]
    if missing := [rows.objective for rows in heldout if not rows.n_fitting]:
        log.warning("no held-out utterance for %s fits: no held-out loss of them", ", ".join(missing))

    def evaluate(state) -> dict[str, float]:
        nll, weight = np.zeros(len(names)), np.zeros(len(names))
        for rows in usable:
            for batch in heldout_batches(rows, batch_size=batch_size, most=most, **processes):
                sums = jax.device_get(sums_of(state.model, put_batch(batch, partitioner.batch_sharding())))
                nll += sums["nll_O"]
                weight += sums["weight_O"]
        seen = [i for i in range(len(names)) if weight[i]]
        if not seen:
            return suites(state.model)
        means = {f"loss/{names[i]}": float(nll[i] / weight[i]) for i in seen}
        return {"loss": float(nll.sum() / weight.sum())} | means | suites(state.model)

    return evaluate
