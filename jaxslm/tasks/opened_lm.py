"""A language model to be scored, in shards over all devices: of a run, or a Hugging Face folder as it is."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from jaxslm.configure import read_config
from jaxslm.evaluation.scoring import Scorer
from jaxslm.hf.load import is_hf_folder, load_decoder, open_source
from jaxslm.models.decoder import Decoder, DecoderConfig
from jaxslm.sharding import Partitioner, make_partitioner
from jaxslm.tasks.base import inventory_of_run, tokenizer_of_run
from jaxslm.tasks.export import VOCABULARY_FILE, load_vocabulary
from jaxslm.tasks.likelihood import make_scorer
from jaxslm.tokenizer import load_tokenizer
from jaxslm.training.checkpoint import restore_model
from jaxslm.units.inventory import UnitInventory
from jaxslm.vocabulary import Vocabulary, build_vocabulary

ROWS = 8  # of a batch on one device
MOST = 2048  # tokens of a row of a Hugging Face model


@dataclass(frozen=True)
class OpenedLM:
    """inventory: None of a model of text alone. config: what `make_scorer` needs of one."""

    name: str
    model: Decoder
    vocabulary: Vocabulary
    tokenizer: Any
    inventory: UnitInventory | None
    config: Mapping[str, Any]
    partitioner: Partitioner

    @property
    def scorer(self) -> Scorer:
        rows = ROWS * self.partitioner.mesh.size
        return make_scorer(self.config, self.vocabulary, self.partitioner, rows=rows)


def open_lm(folder: Path, step: int | None = None) -> OpenedLM:
    """The newest checkpoint of a run, or that of `step`; or a Hugging Face folder, which knows text alone.

    Raises ValueError where the folder is neither, or its tokenizer is another than that of the run; CheckpointError.
    """
    partitioner = make_partitioner(dict(data=1, fsdp=-1))
    if (folder / VOCABULARY_FILE).is_file() and (folder / "checkpoints").is_dir():
        return _run(folder, step, partitioner)
    if is_hf_folder(folder):
        return _hugging_face(folder, partitioner)
    raise ValueError(f"{folder} is neither the workdir of a language model's run nor a Hugging Face folder")


def context_of(folder: Path) -> int:
    """Tokens of a row that the model of a folder, as of `open_lm`, is scored in."""
    if is_hf_folder(folder) and not (folder / VOCABULARY_FILE).is_file():
        return min(int(open_source(folder).config.get("max_position_embeddings") or MOST), MOST)
    return read_config(folder).data.context_length


def _run(workdir: Path, step: int | None, partitioner: Partitioner) -> OpenedLM:
    config = read_config(workdir)
    vocabulary = load_vocabulary(workdir)
    tokenizer = tokenizer_of_run(workdir, config.data.tokenizer, vocabulary)
    inventory = inventory_of_run(workdir, vocabulary)
    abstract = _abstract(DecoderConfig(vocab_size=vocabulary.padded_size, **config.model), partitioner)
    model, at = restore_model(workdir / "checkpoints", abstract, step)
    return OpenedLM(f"{workdir} at step {at}", model, vocabulary, tokenizer, inventory, config, partitioner)


def _hugging_face(folder: Path, partitioner: Partitioner) -> OpenedLM:
    source, tokenizer = open_source(folder), load_tokenizer(str(folder))
    vocabulary = build_vocabulary(tokenizer, 0, "", markers=(), tasks=())
    model_config = DecoderConfig(vocab_size=vocabulary.padded_size, **source.fields)
    shardings = partitioner.shardings(_shapes(model_config))
    fresh = jax.jit(functools.partial(Decoder, model_config), out_shardings=shardings)(jax.random.key(0))
    text = dict(text_size=vocabulary.text_size, size=vocabulary.text_size)
    model = load_decoder(source, fresh, **text, new_rows="mean", key=jax.random.key(0))
    data = dict(context_length=context_of(folder))
    config = dict(model=source.fields, loss_chunks=8, optimizer=dict(z_loss=0.0), data=data)
    return OpenedLM(str(folder), model, vocabulary, tokenizer, None, config, partitioner)


def _shapes(config: DecoderConfig) -> Any:
    return jax.eval_shape(functools.partial(Decoder, config), jax.random.key(0))


def _abstract(config: DecoderConfig, partitioner: Partitioner) -> Any:
    shapes = _shapes(config)
    shardings = partitioner.shardings(shapes)
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, shardings)
