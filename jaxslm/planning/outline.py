"""The program that a config trains, where none of its data, weights and tokenizers need be at hand."""

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ml_collections import ConfigDict

from jaxslm.data.loader import mixture_shares
from jaxslm.sharding import Partitioner
from jaxslm.tasks.acoustic_stage import stage_of
from jaxslm.tasks.base import open_base
from jaxslm.tasks.lm_program import Program, make_program
from jaxslm.tasks.speech_text_lm import check_rows
from jaxslm.tokenizer import load_tokenizer
from jaxslm.vocabulary import Vocabulary, build_vocabulary


def outline(config: ConfigDict, partitioner: Partitioner) -> Program:
    """The program of a config of the task speech_text_lm for the devices of `partitioner`.

    The shape of init_from's model is taken over where its folder is here, else that of `config.model` holds. Raises
    ValueError if something has no size, or the batch cannot be dealt out to the mesh.
    """
    if config.task != "speech_text_lm":
        raise ValueError(f"config.task is {config.task!r}: plans are made of the task 'speech_text_lm'")
    if config.init_from and Path(config.init_from).expanduser().is_dir():
        open_base(config, Path())
    vocabulary = planned_vocabulary(config.data)
    check_rows(config, partitioner)
    names, _ = mixture_shares(config.data.mixture)
    sizes = dict(vocab_size=vocabulary.size, padded_size=vocabulary.padded_size)
    return make_program(config, objectives=names, partitioner=partitioner, **sizes)


def planned_vocabulary(data: Mapping[str, Any]) -> Vocabulary:
    """As a run would build it; a tokenizer that is not here counts `data.text_tokens` tokens."""
    if stage_of(data["mixture"]):
        raise ValueError("data.mixture trains an acoustic stage, whose codec is not at hand: plans know text and units")
    name, tokens = data["tokenizer"], data["text_tokens"]
    if name in ("byte", "none") or Path(name).expanduser().exists():
        tokenizer = load_tokenizer(name)
    elif tokens > 0:
        special = dict(bos_id=1, eos_id=2, special_ids=(0, 1, 2))
        tokenizer = SimpleNamespace(size=tokens, has_text=True, sha256="", **special)
    else:
        raise ValueError(f"data.tokenizer={name} is not here: give its number of tokens by --config.data.text_tokens=N")
    return build_vocabulary(tokenizer, data["units"]["clusters"], "")
