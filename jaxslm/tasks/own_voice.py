"""The voice that a language model's run keeps in its workdir, so that what it says can be heard."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from jaxslm.acoustic.mel_voice import MelVoice, build, learn
from jaxslm.audio.io import decode_flac
from jaxslm.data.draws import draw_order
from jaxslm.data.records import Records, describe
from jaxslm.hf.config_file import read_json
from jaxslm.tree_files import read_tree, write_tree
from jaxslm.units.inventory import UnitInventory
from jaxslm.units.units import UnitSequence

log = logging.getLogger(__name__)

VOICE, FACTS, WEIGHTS = "voice", "voice.json", "voice.safetensors"
STEPS, SECONDS = 300, 1200.0  # that a voice is learnt in, of at most so much audio


def make_voice(folder: Path, records: Records, inventory: UnitInventory, seed: int) -> MelVoice | None:
    """The voice in `folder`; learnt of the training utterances and put there, if it is not; None without audio."""
    if (folder / FACTS).is_file() and read_json(folder / FACTS)["inventory"]["sha256"] == inventory.sha256:
        return open_own_voice(folder)
    pairs = _pairs(records, inventory.sha256, seed)
    if not pairs:
        log.warning("the data have no audio: no voice is learnt, and samples are units")
        return None
    model = learn(pairs, inventory.size, steps=STEPS, seed=seed)
    facts = dict(kind="mel", n_units=inventory.size, inventory=describe(inventory))
    folder.mkdir(parents=True, exist_ok=True)
    write_tree(model, folder / WEIGHTS)
    (folder / FACTS).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    return MelVoice(model, facts)


def open_own_voice(folder: Path) -> MelVoice:
    """What `make_voice` put there. Raises ValueError for files that are damaged."""
    facts = read_json(folder / FACTS)
    abstract = jax.eval_shape(lambda key: build(facts["n_units"], key), jax.random.key(0))
    return MelVoice(read_tree(abstract, folder / WEIGHTS), facts)


def _pairs(records: Records, sha256: str, seed: int) -> Sequence[tuple[UnitSequence, np.ndarray]]:
    pairs, seconds = [], 0.0
    for index in draw_order(len(records), seed).tolist():
        utterance = records[index]
        units = utterance.units.get(sha256)
        if utterance.split == "train" and utterance.audio and units is not None and len(units):
            pairs.append((units, decode_flac(utterance.audio)))
            seconds += utterance.duration
        if seconds >= SECONDS:
            break
    return pairs
