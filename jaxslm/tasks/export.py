"""A run of speech_text_lm as a Hugging Face model folder: weights, tokenizer, unit inventory, model card."""

import contextlib
import dataclasses
import json
import logging
import re
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import tokenizers
from ml_collections import ConfigDict
from tqdm import tqdm

from jaxslm.hf.export import exported_as, finished_folder, write_configs, write_weights
from jaxslm.hf.tensors import DTYPES
from jaxslm.hf.tokenizer_files import read_as_qwen2, write_tokenizer
from jaxslm.models.decoder import DecoderConfig
from jaxslm.tasks.base import (
    BASE,
    EXPORT_FILE,
    LICENCES,
    SIDE_CAR,
    TEXT_TOKENIZER,
    UNITS,
    copy_tokenizer,
    load_run_tokenizer,
    read_base_config,
    read_export,
)
from jaxslm.tasks.card import model_card
from jaxslm.training.checkpoint import CheckpointError, damage, saved_steps
from jaxslm.training.metrics import read_rows
from jaxslm.training.stored import open_model, zeros
from jaxslm.training.workdir import PROVENANCE_FILE
from jaxslm.units.inventory import UnitInventory
from jaxslm.vocabulary import Vocabulary

log = logging.getLogger(__name__)

VOCABULARY_FILE = "vocabulary.json"
MAX_FILE_GB = 5.0


def load_vocabulary(workdir: Path) -> Vocabulary:
    return Vocabulary.from_json(json.loads((workdir / VOCABULARY_FILE).read_text()))


def newest_step(checkpoints: Path, step: int | None = None) -> int:
    """The newest checkpoint whose files are there in their sizes, or `step` if it is one. Raises CheckpointError."""
    there = saved_steps(checkpoints)
    if step is not None and step not in there:
        raise CheckpointError(f"{checkpoints} has no checkpoint {step}: it has {', '.join(map(str, there)) or 'none'}")
    for candidate in there if step is None else [step]:
        if not (harm := damage(checkpoints / str(candidate), "model", checksums=False)):
            return candidate
        if step is not None:
            raise CheckpointError(f"checkpoint {step} in {checkpoints} is damaged ({harm}): export another step")
        log.warning("checkpoint %d is damaged (%s); looking at the one before", candidate, harm)
    raise CheckpointError(f"{checkpoints} holds no unharmed checkpoint: train first")


@contextlib.contextmanager
def unharmed(checkpoint: Path) -> Iterator[None]:
    """Compares the checksums of a model while the block reads it. Raises CheckpointError behind the block."""
    with ThreadPoolExecutor(1) as pool:
        comparing = pool.submit(damage, checkpoint, "model")
        yield
        if harm := comparing.result():
            raise CheckpointError(f"checkpoint {checkpoint} is damaged ({harm}): export another step by --step")


def exported_step(folder: Path) -> int:
    """The step a folder was exported from. Raises ValueError if it is no finished export of ours."""
    exported = read_export(folder)
    if not (folder / "config.json").exists() or not exported:
        raise ValueError(
            f"{folder} is no finished export (no config.json or no {EXPORT_FILE}); remove it and export again"
        )
    return exported["step"]


def export_run(
    workdir: Path,
    config: ConfigDict,
    out: Path,
    *,
    step: int | None = None,
    dtype: str = "bfloat16",
    max_file_gb: float = MAX_FILE_GB,
    progress: bool = True,
) -> int:
    """Writes checkpoint `step` (default: the newest) of `workdir` to the folder `out`; returns the step.

    The checkpoint is read and written array by array: memory is that of the largest chunk. Its checksums are compared
    meanwhile. Raises ValueError (`out` is there already, a wrong dtype), CheckpointError (nothing to export, or it is
    damaged), OSError (no room; `out`.incomplete remains).
    """
    if dtype not in DTYPES:
        raise ValueError(f"--dtype={dtype} is not one of {', '.join(DTYPES)}")
    if max_file_gb <= 0:
        raise ValueError(f"--max_file_gb={max_file_gb} is not above 0")
    step = newest_step(workdir / "checkpoints", step)
    vocabulary = load_vocabulary(workdir)
    if vocabulary.codec_sha256:
        raise ValueError(f"{workdir} is a run with codes of a codec, which has no Hugging Face form")
    tokenizer, source = load_run_tokenizer(workdir, config.data.tokenizer)
    if tokenizer.sha256 != vocabulary.tokenizer_sha256:
        raise ValueError(
            f"the tokenizer {source} has changed since the run in {workdir} was trained: put the old one back"
        )
    model_config = DecoderConfig(vocab_size=vocabulary.padded_size, **config.model)
    base = read_base_config(workdir)
    arrays = open_model(workdir / "checkpoints" / str(step))
    with finished_folder(out) as folder:
        write_tokenizer(folder, tokenizer, vocabulary, source=source)  # first: it may be refused, and takes no time
        architecture, as_written = exported_as(model_config, base, qwen_tokenizer=read_as_qwen2(folder))
        if as_written.output_bias and not model_config.output_bias:
            arrays["layers/attention/output/bias"] = zeros(model_config.n_layers, model_config.d_model)
        bar = tqdm(unit="B", unit_scale=True, desc="weights", disable=not progress)
        with bar, unharmed(workdir / "checkpoints" / str(step)):
            n_bytes = write_weights(
                folder,
                arrays,
                as_written,
                architecture,
                n_rows=vocabulary.size,
                dtype=dtype,
                max_file_bytes=int(max_file_gb * 1e9),
                progress=bar.update,
            )
        inventory = UnitInventory.load(workdir / UNITS)
        dataclasses.replace(inventory, encoder_folder="").save(folder / SIDE_CAR)  # a place on this machine alone
        (folder / SIDE_CAR / "units.json").write_text(json.dumps(unit_tokens(vocabulary), indent=2) + "\n")
        shutil.copyfile(workdir / "config.json", folder / "training_config.json")
        if source is not None:
            copy_tokenizer(source, folder / TEXT_TOKENIZER)
        name = TEXT_TOKENIZER if source else config.data.tokenizer
        exported = {"step": step, "dtype": dtype, "tokenizer": name, "vocabulary": vocabulary.to_json()}
        (folder / EXPORT_FILE).write_text(json.dumps(exported) + "\n")
        for path in (path for pattern in LICENCES for path in sorted((workdir / BASE).glob(pattern))):
            shutil.copyfile(path, folder / path.name)
        settings = json.loads((folder / "tokenizer_config.json").read_text())
        card = model_card(
            config=config,
            vocabulary=vocabulary,
            step=step,
            provenance=_read(workdir / PROVENANCE_FILE),
            metrics=_metrics_at(workdir / "metrics.jsonl", step),
            license=_license(workdir / BASE),
            dtype=dtype,
            parameters=n_bytes // DTYPES[dtype][1].itemsize,
            inventory=json.loads((folder / SIDE_CAR / "inventory.json").read_text()),
            bos=_token(settings["bos_token"]),
        )
        (folder / "README.md").write_text(card, encoding="utf-8")
        write_configs(
            folder,
            as_written,
            architecture,
            vocabulary,
            base=base,
            generation={name: config.samples.get(name) for name in ("temperature", "top_p", "top_k")},
            dtype=dtype,
            context_length=config.data.context_length,
            pad_id=_token_id(folder, settings.get("pad_token")),
        )
    return step


def _token(value: Any) -> str:
    """A token of tokenizer_config.json, which has it bare or with its properties."""
    return value["content"] if isinstance(value, dict) else value or ""


def _token_id(folder: Path, value: Any) -> int | None:
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    return tokenizer.token_to_id(_token(value)) if value else None


def unit_tokens(vocabulary: Vocabulary) -> dict[str, Any]:
    """How the units of the inventory are called in the tokenizer: units.json beside the inventory."""
    units = vocabulary.block("units")
    ids = {"unit_token_pattern": units.pattern, "first_unit_id": units.first, "n_units": units.size}
    return ids | {"unit_inventory_sha256": vocabulary.unit_inventory_sha256}


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.exists() else {}


def _metrics_at(path: Path, step: int) -> Mapping[str, float]:
    """The newest held-out and training losses up to `step`, each with its step in its name."""
    figures: dict[str, tuple[int, float]] = {}
    for row in read_rows(path):
        if row["step"] <= step:
            figures |= {name: (row["step"], value) for name, value in row.items() if "loss" in name}
    return {f"{name} (step {at})": value for name, (at, value) in figures.items() if isinstance(value, float)}


def _license(base: Path) -> str:
    """What the card of the base model says, '' if there is none."""
    path = base / "README.md"
    found = re.search(r"^license:[ \t]*(\S+)", path.read_text(errors="replace"), re.M) if path.exists() else None
    return found.group(1) if found else ""
