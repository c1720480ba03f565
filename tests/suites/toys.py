"""A tiny language model, an inventory and a voice for suites of whole runs."""

import argparse

import jax
import numpy as np

from jaxslm.generation.chain import Language
from jaxslm.models.decoder import Decoder, DecoderConfig
from jaxslm.tokenizer import load_tokenizer
from jaxslm.units.inventory import UnitInventory
from jaxslm.units.units import UnitSequence
from jaxslm.vocabulary import build_vocabulary

INVENTORY = UnitInventory("mfcc", 0, 50.0, np.random.default_rng(0).normal(size=(20, 39)).astype(np.float32), 20)
VOCABULARY = build_vocabulary(load_tokenizer("byte"), 20, INVENTORY.sha256)


def tiny_language() -> Language:
    config = DecoderConfig(VOCABULARY.padded_size, d_model=16, n_layers=1, n_heads=2, n_kv_heads=2, d_ff=32)
    model = Decoder(config, jax.random.key(0))
    return Language(model, VOCABULARY, load_tokenizer("byte"), INVENTORY, dict(text=9, speech=7), 64)


def flags_of(module, *arguments) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)
    return parser.parse_args(list(map(str, arguments)))


class Beeps:
    """A voice of one speaker whose sounds are as long as its units last."""

    sample_rate, clones, untimed = 16_000, False, ""

    def prompt(self, given, where, *, from_end=False):
        assert given == "tom", where
        return given

    def check_units(self, sha256):
        assert sha256 == INVENTORY.sha256

    def timed(self, units, **_):
        return [UnitSequence(u.ids, np.full(len(u.ids), 4), u.frame_rate) for u in units]

    def speak(self, units, prompts, key, watch=None):
        self.prompts = prompts
        return [np.full(int(sum(u.durations)) * 320, 0.1, np.float32) for u in units]
