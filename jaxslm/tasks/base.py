"""What a run starts from: the shape and tokenizer of a Hugging Face model, kept in the workdir's folder `base`.

An export of a run can be one, too: `EXPORT_FILE` in it says what all of its ids mean, and it is taken over with its
units. Its own text tokenizer, without the tokens a vocabulary adds, lies in `TEXT_TOKENIZER`.
"""

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from jaxslm.data.prepare import UNITS as UNIT_SETTINGS
from jaxslm.data.prepare import given_inventory
from jaxslm.hf.load import Source, check_tensors, is_hf_folder, load_decoder, open_source
from jaxslm.models.decoder import Decoder, DecoderConfig
from jaxslm.tokenizer import load_tokenizer
from jaxslm.training.checkpoint import saved_steps
from jaxslm.units.inventory import UnitInventory
from jaxslm.vocabulary import Vocabulary

log = logging.getLogger(__name__)

BASE = "base"
UNITS = "units"
EXPORT_FILE = "jaxslm.json"
SIDE_CAR = "speech_tokenizer"
TEXT_TOKENIZER = "text_tokenizer"
# Small files of a model that a continued run and an export need when its folder is gone.
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "chat_template.jinja")
LICENCES = ("LICENSE*", "USE_POLICY*", "NOTICE*")
KEPT = (EXPORT_FILE, "config.json", "params.json", "generation_config.json", "README.md", *LICENCES)
TEXTLESS = "none"  # data.tokenizer of a run without text


def open_base(config: ConfigDict, workdir: Path) -> Source | None:
    """The Hugging Face model named by init_from, None if there is none; `config` takes over its shape and tokenizer.

    The config keeps a `model.rope_theta` that is not 0 and the tokenizer "none" (text is left out, as in TWIST); of an
    export of a run that keeps its text it takes over tokenizer and units in any case. Raises ValueError naming what is
    missing there or cannot be computed.
    """
    if not config.init_from:
        return None
    folder, kept = Path(config.init_from).expanduser(), workdir / BASE
    if not folder.exists() and is_hf_folder(kept):
        if not saved_steps(workdir / "checkpoints"):
            raise ValueError(f"init_from={config.init_from}: the folder is gone, and this run has no checkpoint yet")
        folder = kept  # a run that goes on needs the weights no more
    if not folder.is_dir():
        raise ValueError(f"init_from={config.init_from}: there is no such folder")
    if not is_hf_folder(folder):
        return None
    source = open_source(folder)
    fields = dict(source.fields)
    if config.model.rope_theta and config.model.rope_theta != fields["rope_theta"]:
        theta = fields.pop("rope_theta")
        log.warning("model.rope_theta is %g; %s was trained with %g", config.model.rope_theta, folder, theta)
    window = source.sliding_window
    if window and config.data.context_length > window:
        raise ValueError(
            f"{folder} looks {window} tokens back, and data.context_length={config.data.context_length} is longer: the "
            f"decoder looks at all of them; set data.context_length to {window} or less"
        )
    changed = {name: value for name, value in fields.items() if config.model.get(name) != value}
    with config.unlocked():
        config.model.update(changed)
    log.info("%s: %s", folder, ", ".join(f"{name}={value}" for name, value in fields.items()))
    exported = _taken_over(folder, config.data.tokenizer)
    if exported.get("tokenizer") == TEXTLESS != config.data.tokenizer:
        raise ValueError(
            f"init_from={folder} is an export of speech alone: set data.tokenizer='none' and a mixture without text"
        )
    if config.data.tokenizer != TEXTLESS or exported:
        config.data.tokenizer = _text_tokenizer(folder, exported)
    if exported and not config.data.units.get("inventory"):
        units = workdir / UNITS if folder == kept else folder / SIDE_CAR
        with config.unlocked():
            config.data.units.inventory = str(units)
    return source


def _taken_over(folder: Path, tokenizer: str) -> dict[str, Any]:
    """What an export says whose ids a run goes on with; {} of other models, and where its text is to be left out."""
    exported = read_export(folder)
    return {} if tokenizer == TEXTLESS != exported.get("tokenizer", TEXTLESS) else exported


def read_export(folder: Path) -> dict[str, Any]:
    """What `EXPORT_FILE` says: step, dtype, tokenizer ("byte", "none" or a folder), vocabulary; {} without it."""
    path = folder / EXPORT_FILE
    if not path.exists():
        return {}
    try:
        exported = json.loads(path.read_text())
        assert {"step", "dtype", "tokenizer", "vocabulary"} <= set(exported), set(exported)
    except (ValueError, TypeError, AssertionError) as error:
        raise ValueError(f"{path} is damaged ({error}): copy the export again") from error
    return exported


def _text_tokenizer(folder: Path, exported: dict[str, Any]) -> str:
    if exported.get("tokenizer") in ("byte", TEXTLESS):
        return exported["tokenizer"]
    inner = folder / TEXT_TOKENIZER
    return str(inner if inner.is_dir() else folder)


def check_base(source: Source, config: ConfigDict, tokenizer: Any) -> None:
    """Raises ValueError for all that headers say of the base model: preparing data can take hours."""
    rows = tokenizer.size if tokenizer.has_text else 0
    special = [i for key in ("bos_token_id", "eos_token_id") for i in np.atleast_1d(source.config.get(key) or 0)]
    if rows and max(special) >= rows:
        raise ValueError(
            f"{source.folder}: its config.json has special ids up to {max(special)}, the tokenizer {rows} ids: it "
            "is of another model; set data.tokenizer to the model's own"
        )
    if exported := _taken_over(source.folder, config.data.tokenizer):
        theirs = Vocabulary.from_json(exported["vocabulary"])
        units = given_inventory(UNIT_SETTINGS | config.data.units.to_dict())
        if units is None or units.sha256 != theirs.unit_inventory_sha256:
            raise ValueError(
                f"init_from={source.folder} was exported with other units than data.units are (sha256 "
                f"{theirs.unit_inventory_sha256[:12]}.. there): leave data.units.inventory empty to take over its own"
            )
        rows = theirs.size
    check_tensors(source, DecoderConfig(vocab_size=1, **config.model), rows)


def import_model(
    source: Source | None, model: Decoder, folder: Path, *, vocabulary: Vocabulary, new_rows: str, seed: int
) -> Decoder:
    """`model` with the parameters of `source`. Raises ValueError if there is none, or as `load_decoder`."""
    if source is None:
        raise ValueError(f"init_from={folder} is neither a workdir with checkpoints nor a Hugging Face folder")
    text_size = vocabulary.text_size if vocabulary.has_text else 0
    if exported := _taken_over(source.folder, "" if vocabulary.has_text else TEXTLESS):
        vocabulary.check_same(Vocabulary.from_json(exported["vocabulary"]), str(source.folder))
        text_size = vocabulary.size
    key = jax.random.fold_in(jax.random.key(seed), 1)
    return load_decoder(source, model, text_size=text_size, size=vocabulary.size, new_rows=new_rows, key=key)


def keep_base(workdir: Path, config: ConfigDict, source: Source | None) -> None:
    """Copies the small files of the base model, or of the tokenizer alone, into the workdir."""
    origin = Path(config.init_from).expanduser() / BASE  # of a workdir: what that one started from
    target = workdir / BASE
    if source is not None:
        _copy(source.folder, KEPT, target)
    elif config.init_from and origin.is_dir():
        _copy(origin, (*KEPT, *TOKENIZER_FILES), target)
    copy_tokenizer(Path(config.data.tokenizer).expanduser(), target)


def copy_tokenizer(tokenizer: Path, target: Path) -> None:
    """Copies the files of a tokenizer's file or folder, if it is one, under the names that a folder has them by."""
    if tokenizer.is_file():
        _copy(tokenizer.parent, (tokenizer.name, *TOKENIZER_FILES[2:]), target)
        (target / tokenizer.name).rename(target / f"tokenizer{tokenizer.suffix}")
    elif tokenizer.is_dir():
        _copy(tokenizer, TOKENIZER_FILES, target)


def _copy(folder: Path, names: tuple[str, ...], target: Path) -> None:
    if folder.resolve() != target.resolve():
        target.mkdir(parents=True, exist_ok=True)
        for path in (path for name in names for path in folder.glob(name)):
            if path.is_file():
                shutil.copyfile(path, target / path.name)


def load_run_tokenizer(workdir: Path, name: str) -> tuple[Any, Path | None]:
    """(tokenizer, folder or file it was read from; None if it needs none) of a run, from its workdir if need be."""
    if name in ("byte", TEXTLESS):
        return load_tokenizer(name), None
    path = Path(name).expanduser()
    if not path.exists() and (workdir / BASE).is_dir():
        path = workdir / BASE
    return load_tokenizer(str(path)), path


def tokenizer_of_run(workdir: Path, name: str, vocabulary: Vocabulary) -> Any:
    """The tokenizer of a run. Raises ValueError if it is not the one its vocabulary was made with."""
    tokenizer, _ = load_run_tokenizer(workdir, name)
    if tokenizer.sha256 != vocabulary.tokenizer_sha256:
        raise ValueError(
            f"the tokenizer {name} has changed since the run in {workdir} was trained: put the old one back"
        )
    return tokenizer


def inventory_of_run(workdir: Path, vocabulary: Vocabulary) -> UnitInventory:
    """The unit inventory of a run. Raises ValueError if it is not the one its vocabulary was made with."""
    inventory = UnitInventory.load(workdir / UNITS)
    if inventory.sha256 != vocabulary.unit_inventory_sha256:
        raise ValueError(
            f"{workdir / UNITS} is the unit inventory {inventory.name} ({inventory.sha256[:12]}..), the model in "
            f"{workdir} was trained with units of {vocabulary.unit_inventory_sha256[:12]}..: its ids mean other "
            "sounds; put the inventory of the training data back"
        )
    return inventory


def read_base_config(workdir: Path) -> dict[str, Any]:
    """config.json of the model this run started from, {} if there is none."""
    path = workdir / BASE / "config.json"
    return json.loads(path.read_text()) if path.exists() else {}
