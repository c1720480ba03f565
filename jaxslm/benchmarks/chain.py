"""From a text to sound: the time of each stage for a second of sound, and how soon the first of it is there.

Random weights, as the time does not depend on them: a language model, durations of about two frames a unit, the masked
stage and SoundStream at its published size (configs/soundstream_16k.py), which is causal. The voice is a prompt of 3 s,
heard by MFCC units. `ours` is seconds of sound a second; there is no peer.

    python launch/bench.py chain --units 150
"""

import argparse
import math
import statistics
import time

import jax
import numpy as np

from jaxslm.acoustic.durations import DurationConfig, DurationModel
from jaxslm.acoustic.masked import MaskedConfig, MaskedModel
from jaxslm.acoustic.voices import MaskedVoice
from jaxslm.audio.io import Clip
from jaxslm.benchmarks.measure import report
from jaxslm.codec.identity import describe_codec
from jaxslm.codec.model import Codec, CodecConfig
from jaxslm.generation.chain import Chain, Language, Request
from jaxslm.models.decoder import Decoder, DecoderConfig, parameter_count
from jaxslm.tokenizer import load_tokenizer
from jaxslm.units.inventory import UnitInventory
from jaxslm.vocabulary import build_vocabulary

RATE, UNITS = 16_000, 1000
FRAMES = 2  # of a unit, about
TEXT = "the quick brown fox jumps over the lazy dog"
PASSES = "16,1,1,1,1,1,1,1"


def run(argv: list[str]) -> dict:
    """Measures whole answers, then streams; see `measure.report`."""
    parser = argparse.ArgumentParser(prog="launch/bench.py chain", description=__doc__)
    parser.add_argument("--units", type=int, default=150, help="that the language model says; default: 150")
    parser.add_argument("--rounds", type=int, default=5, help="default: 5")
    parser.add_argument("--batch", type=int, default=1, help="requests at once; default: 1")
    parser.add_argument("--window", type=float, default=6.0, help="seconds that the masked stage sees; default: 6")
    parser.add_argument("--passes", default=PASSES, help=f"default: {PASSES}")
    parser.add_argument("--codec_filters", type=int, default=32, help="of SoundStream's first layer; default: 32")
    for name, default in (("d_model", 256), ("layers", 6), ("d_ff", 768)):
        parser.add_argument(f"--{name}", type=int, default=default, help=f"of both networks; default: {default}")
    flags = parser.parse_args(argv)
    chain = Chain(language := _language(flags), _voice(flags))
    request = Request("speech", text=TEXT, voice=_prompt())
    options = dict(sampling=dict(max_new_tokens=flags.units))
    seed = _talkative(chain, request, options)  # always the same, so that rounds have the shapes that were compiled
    wholes, streams = [], []
    for number in range(flags.rounds + 1):  # the first round compiles
        answers = chain.answer([request] * flags.batch, seed=seed, **options)
        seconds = sum(len(answer.samples) / answer.sample_rate for answer in answers if answer.samples is not None)
        whole = {stage: spent / seconds for stage, spent in answers[0].seconds.items()}
        stream = _streamed(chain, request, seed, options)
        if number:
            wholes.append(whole)
            streams.append(stream)
    stages = {stage: statistics.median(each[stage] for each in wholes) for stage in wholes[0]}
    total = statistics.median(sum(each.values()) for each in wholes)
    first, last, streamed = (statistics.median(values) for values in zip(*streams, strict=True))
    return report(
        "chain",
        ours=1 / total,
        peer=None,
        unit=f"seconds of sound/s, float32, median of {flags.rounds}",
        shapes=vars(flags) | dict(parameters_of_language_model=parameter_count(language.model.config)),
        packages=("jax",),
        real_time_factor=total,
        real_time_factor_of_stages=stages,
        first_sound_after_s=first,
        streamed_real_time_factor=last / streamed,
        streamed_seconds=streamed,
        device=jax.devices()[0].device_kind,
    )


def _talkative(chain: Chain, request: Request, options: dict) -> int:
    """The first seed with which random weights do not stop early."""
    for seed in range(100):
        (answer,) = chain.answer([request], seed=seed, sound=False, **options)
        if not answer.stopped:
            return seed
    raise ValueError("the language model always stops early: ask for fewer --units")


def _streamed(chain: Chain, request: Request, seed: int, options: dict) -> tuple[float, float, float]:
    """Seconds from the request to the first sound and to the last, and how much sound it was."""
    start = time.perf_counter()
    answer, chunks = chain.stream(request, seed=seed, **options)
    times = [(time.perf_counter() - start, len(chunk_N)) for chunk_N in chunks]
    return times[0][0], times[-1][0], sum(n for _, n in times) / answer.sample_rate


def _inventory() -> UnitInventory:
    centroids = np.random.default_rng(0).normal(size=(UNITS, 39)).astype(np.float32)
    return UnitInventory("mfcc", 0, 50.0, centroids, UNITS)


def _prompt() -> Clip:
    return Clip(0.1 * np.random.default_rng(1).normal(size=3 * RATE).astype(np.float32), rate=RATE)


def _language(flags: argparse.Namespace) -> Language:
    inventory, tokenizer = _inventory(), load_tokenizer("byte")
    vocabulary = build_vocabulary(tokenizer, UNITS, inventory.sha256)
    heads = max(1, flags.d_model // 64)
    shape = dict(d_model=flags.d_model, n_layers=flags.layers, n_heads=heads, n_kv_heads=heads, d_ff=flags.d_ff)
    config = DecoderConfig(vocabulary.padded_size, **shape)
    model = jax.jit(lambda key: Decoder(config, key))(jax.random.key(0))
    return Language(model, vocabulary, tokenizer, inventory)


def _voice(flags: argparse.Namespace) -> MaskedVoice:
    network = dict(kind="seanet", n_filters=flags.codec_filters, ratios=(2, 4, 5, 8))
    rvq = dict(kind="rvq", n_levels=8, codebook_size=1024)
    codec = jax.jit(lambda key: Codec(CodecConfig(RATE, 512, network, network, rvq), key))(jax.random.key(0))
    heads = max(1, flags.d_model // 64)
    config = MaskedConfig(UNITS, 8, 1024, d_model=flags.d_model, n_layers=flags.layers, n_heads=heads, d_ff=flags.d_ff)
    masked = jax.jit(lambda key: MaskedModel(config, key))(jax.random.key(1))
    durations = DurationModel(UNITS, DurationConfig(spread=False), jax.random.key(2))
    durations.predictor.project.bias[...] = durations.predictor.project.bias[...].at[0].set(math.log(FRAMES + 1))
    inventory = _inventory()
    facts = dict(
        window=round(flags.window * codec.frame_rate),
        inventory=dict(name=inventory.name, sha256=inventory.sha256),
        codec=describe_codec(codec, "SoundStream"),
    )
    model = dict(masked=masked, durations=durations)
    return MaskedVoice(model, facts, inventory, codec, dict(passes=tuple(map(int, flags.passes.split(",")))))
