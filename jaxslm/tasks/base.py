"""What a run starts from: the shape and tokenizer of a Hugging Face model, kept in the workdir's folder `base`."""

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from jaxslm.hf.load import Source, is_hf_folder, load_decoder, open_source
from jaxslm.models.decoder import Decoder
from jaxslm.tokenizer import load_tokenizer
from jaxslm.vocabulary import Vocabulary

log = logging.getLogger(__name__)

BASE = "base"
# Small files of a model that a continued run and an export need when its folder is gone.
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "chat_template.jinja")
KEPT = (*TOKENIZER_FILES, "config.json", "params.json", "generation_config.json", "LICENSE", "README.md")
TEXTLESS = "none"  # data.tokenizer of a run without text


def open_base(config: ConfigDict, workdir: Path) -> Source | None:
    """The Hugging Face model named by init_from, None if there is none; `config` takes over its shape and tokenizer.

    The config keeps a `model.rope_theta` that is not 0 and the tokenizer "none" (text is left out, as in TWIST). Raises
    ValueError naming what is missing there or cannot be computed.
    """
    if not config.init_from:
        return None
    folder, kept = Path(config.init_from).expanduser(), workdir / BASE
    if not folder.exists() and is_hf_folder(kept):
        if not any((workdir / "checkpoints").glob("[0-9]*")):
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
    if config.data.tokenizer != TEXTLESS:
        config.data.tokenizer = str(folder)
    return source


def import_model(
    source: Source | None, model: Decoder, folder: Path, *, vocabulary: Vocabulary, new_rows: str, seed: int
) -> Decoder:
    """`model` with the parameters of `source`. Raises ValueError if there is none, or as `load_decoder`."""
    if source is None:
        raise ValueError(f"init_from={folder} is neither a workdir with checkpoints nor a Hugging Face folder")
    text_size = vocabulary.text_size if vocabulary.has_text else 0
    key = jax.random.fold_in(jax.random.key(seed), 1)
    return load_decoder(source, model, text_size=text_size, size=vocabulary.size, new_rows=new_rows, key=key)


def keep_base(workdir: Path, config: ConfigDict, source: Source | None) -> None:
    """Copies the small files of the base model, or of the tokenizer alone, into the workdir."""
    origin = Path(config.init_from).expanduser() / BASE  # of a workdir: what that one started from
    tokenizer = Path(config.data.tokenizer).expanduser()
    if source is not None:
        _copy(source.folder, KEPT, workdir)
    elif config.init_from and origin.is_dir():
        _copy(origin, KEPT, workdir)
    elif tokenizer.is_file():
        _copy(tokenizer.parent, (tokenizer.name, *TOKENIZER_FILES), workdir)
        (workdir / BASE / tokenizer.name).rename(workdir / BASE / f"tokenizer{tokenizer.suffix}")
    elif tokenizer.is_dir():
        _copy(tokenizer, TOKENIZER_FILES, workdir)


def _copy(folder: Path, names: tuple[str, ...], workdir: Path) -> None:
    target = workdir / BASE
    if folder.resolve() != target.resolve():
        target.mkdir(parents=True, exist_ok=True)
        for name in names:
            if (folder / name).is_file():
                shutil.copyfile(folder / name, target / name)


def load_run_tokenizer(workdir: Path, name: str) -> tuple[Any, Path | None]:
    """(tokenizer, folder or file it was read from; None if it needs none) of a run, from its workdir if need be."""
    if name in ("byte", TEXTLESS):
        return load_tokenizer(name), None
    path = Path(name).expanduser()
    if not path.exists() and (workdir / BASE).is_dir():
        path = workdir / BASE
    return load_tokenizer(str(path)), path


def read_base_config(workdir: Path) -> dict[str, Any]:
    """config.json of the model this run started from, {} if there is none."""
    path = workdir / BASE / "config.json"
    return json.loads(path.read_text()) if path.exists() else {}
