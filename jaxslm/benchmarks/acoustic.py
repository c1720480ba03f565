"""Codes of units: the masked stage against AudioLM's two autoregressive stages, networks of one size in one run.

Random weights, as the time does not depend on them; clips of one window, so that neither has an overlap to make. Each
of the two stages has the masked stage's layers, widths and heads, without its convolutions. Speeds are seconds of audio
a second; `details` have the sequential steps, how many times a network is run one after the other.

    python launch/bench.py acoustic --seconds 3 --batch 1
"""

import argparse
import statistics
import time

import jax
import numpy as np

from jaxslm.acoustic.autoregressive import Stage, StageFacts, coarse_to_fine
from jaxslm.acoustic.frames import AcousticCrops, FrameRates
from jaxslm.acoustic.masked import MaskedConfig, MaskedModel
from jaxslm.acoustic.parallel import ParallelStage
from jaxslm.acoustic.unmasking import Unmasking
from jaxslm.benchmarks.measure import report
from jaxslm.generation.sampler import Sampling
from jaxslm.models.decoder import Decoder, DecoderConfig
from jaxslm.tokenizer import NoTokenizer
from jaxslm.vocabulary import build_vocabulary

RATE, UNITS, LEVELS, COARSE, SIZE = 50.0, 1000, 8, 4, 1024
PASSES = (16,) + (1,) * (LEVELS - 1)


def run(argv: list[str]) -> dict:
    """Measures both; see `measure.report`."""
    parser = argparse.ArgumentParser(prog="launch/bench.py acoustic", description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each clip; default: 3")
    parser.add_argument("--batch", type=int, default=1, help="clips at once; default: 1")
    parser.add_argument("--rounds", type=int, default=5, help="default: 5")
    for name, default in (("d_model", 256), ("layers", 6), ("heads", 4), ("d_ff", 768)):
        parser.add_argument(f"--{name}", type=int, default=default, help=f"default: {default}")
    flags = parser.parse_args(argv)
    n_frames = round(flags.seconds * RATE)
    units = list(np.random.default_rng(0).integers(0, UNITS, (flags.batch, n_frames)).astype(np.int32))
    masked, stages = _masked(flags, n_frames), [_stage(flags, name) for name in ("coarse", "fine")]
    sides = {
        "masked": lambda key: masked(units, [masked.no_prompt()] * flags.batch, key),
        "autoregressive": lambda key: coarse_to_fine(*stages, units, key=key),
    }
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(flags.rounds + 1):  # the first round compiles
        for name, make in sides.items():
            start = time.perf_counter()
            made = make(jax.random.key(number))
            assert all(codes.shape == (n_frames, LEVELS) for codes in made), name
            if number:
                seconds[name].append(time.perf_counter() - start)
    speeds = {name: flags.batch * flags.seconds / statistics.median(taken) for name, taken in seconds.items()}
    steps = dict(masked=sum(PASSES), autoregressive=n_frames * LEVELS)
    return report(
        "acoustic",
        ours=speeds["masked"],
        peer=speeds["autoregressive"],
        unit=f"seconds of audio/s, float32, median of {flags.rounds}",
        shapes=vars(flags) | dict(levels=LEVELS, codes=SIZE, frame_rate=RATE),
        packages=("jax",),
        sequential_steps=steps,
        fewer_steps=steps["autoregressive"] / steps["masked"],
        real_time_factor={name: 1 / speed for name, speed in speeds.items()},
        device=jax.devices()[0].device_kind,
    )


def _masked(flags: argparse.Namespace, n_frames: int) -> ParallelStage:
    shape = dict(d_model=flags.d_model, n_layers=flags.layers, n_heads=flags.heads, d_ff=flags.d_ff)
    config = MaskedConfig(UNITS, LEVELS, SIZE, **shape)
    model = jax.jit(lambda key: MaskedModel(config, key))(jax.random.key(0))
    return ParallelStage(model, n_frames, Unmasking(passes=PASSES))


def _stage(flags: argparse.Namespace, name: str) -> Stage:
    codec = dict(name="bench", sha256="0" * 64, frame_rate=RATE, levels=LEVELS, codebook_sizes=[SIZE] * LEVELS)
    vocabulary = build_vocabulary(NoTokenizer(), UNITS, "0" * 64, codec=codec)
    shape = dict(d_model=flags.d_model, n_layers=flags.layers, n_heads=flags.heads, d_ff=flags.d_ff)
    config = DecoderConfig(vocab_size=vocabulary.padded_size, n_kv_heads=flags.heads, **shape)
    model = jax.jit(lambda key: Decoder(config, key))(jax.random.key(0))
    crops = AcousticCrops(coarse_levels=COARSE, seconds=flags.seconds, prompt_seconds=flags.seconds / 3)
    facts = StageFacts(name, FrameRates(RATE, RATE), crops, Sampling(temperature=0.8, top_p=1.0), codec, "bench")
    return Stage(model, vocabulary, facts)
