"""Decoding speed: our sampler against `transformers.generate` with its key/value cache.

Same shape, prompts and number of new tokens; the two, each in a process of its own, alternate in one run. Both are
measured greedy and with SpiRit-LM's sampling (temperature 0.8, top-p 0.95); `ratio` is the lower of the two. On a GPU
the peer has a static cache and compiles its step, as transformers does there by itself.

`bandwidth_share` is the speed over the bound that a chip's memory sets: the weights, and the keys and values of the
tokens so far, read once a step. The prompt's own pass is in the time, and not in the bound.

On one H200, each command within 10 minutes (two or three of them loading and compiling); without launch/with_flags.sh,
whose flags turn off CUDA graphs, which steps this short need:

    python launch/bench.py decode --size=7b --n_layers=4    # 1: a minute or two; does everything run?
    python launch/bench.py decode --size=7b --batch=1       # 2: 3 to 4 minutes
    python launch/bench.py decode --size=7b --batch=64      # 3: 3 to 5 minutes
"""

import argparse
import json
import os
import platform
import statistics
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from jaxslm.benchmarks.measure import Side, jax_device, peak_memory_mib, report, same_device, serve, torch_device
from jaxslm.benchmarks.sizes import SIZES
from jaxslm.benchmarks.sizes import VOCABULARY as PADDED
from jaxslm.benchmarks.torch_llama import torch_llama

VOCABULARY = 32_503  # SpiRit-LM's ids
MODES = {"greedy": (0.0, 1.0), "sampled": (0.8, 0.95)}  # temperature, top-p
LARGE = dict(dtype="bfloat16", batch=1, prompt=64, new=256, repeats=3)
ENVIRONMENT = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}  # a GPU's memory is for both


def run(argv: list[str]) -> dict[str, Any]:
    """Measures both sides; see `measure.report`; the details have both modes. RuntimeError if they used two devices."""
    flags = _parse(argv)
    if flags.worker:
        _work(flags)
        return {}
    sides = {
        name: Side("jaxslm.benchmarks.decode", [*argv, f"--worker={name}"], ENVIRONMENT) for name in ("ours", "peer")
    }
    speeds = {f"{side}_{mode}": [] for side in sides for mode in MODES}
    for repeat in range(flags.repeats + 1):  # the first round compiles and warms up
        for mode in MODES:
            for name, side in sides.items():
                made = side.step()
                assert made["tokens"] == flags.batch * flags.new, (name, made)
                if repeat:
                    speeds[f"{name}_{mode}"].append(made["tokens"] / made["seconds"])
    said = {name: side.finish() for name, side in sides.items()}
    tokens_per_s = {name: round(statistics.median(values), 1) for name, values in speeds.items()}
    ratios = {mode: tokens_per_s[f"ours_{mode}"] / tokens_per_s[f"peer_{mode}"] for mode in MODES}
    worst = min(ratios, key=ratios.get)
    details = {}
    if bandwidth := said["ours"]["hbm_bandwidth"]:
        seconds = said["ours"]["step_bytes"] / bandwidth  # of a step, at best
        details["bandwidth_share"] = {name: speed / flags.batch * seconds for name, speed in tokens_per_s.items()}
    return report(
        "decode",
        ours=tokens_per_s[f"ours_{worst}"],
        peer=tokens_per_s[f"peer_{worst}"],
        unit=f"new tokens/s, {worst}, {flags.dtype}, median of {flags.repeats}",
        peak_memory_mib={name: peak_memory_mib(side) for name, side in said.items()},
        shapes={name: value for name, value in vars(flags).items() if name != "worker"}
        | {"vocabulary": PADDED, "parameters": said["ours"]["parameters"]},
        packages=("jax", "torch", "transformers"),
        device=same_device(said["ours"], said["peer"]),
        tokens_per_s=tokens_per_s,
        ratios=ratios,
        step_bytes=said["ours"]["step_bytes"],
        machine=platform.machine(),
        **details,
    )


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("decode", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--size", choices=tuple(SIZES), help="defaults of the other options")
    defaults = dict(
        d_model=256, n_layers=8, n_heads=4, n_kv_heads=4, d_ff=704, batch=8, prompt=64, new=128, repeats=5,
        threads=os.cpu_count(),
    )  # fmt: skip
    for name, value in defaults.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--worker", choices=("ours", "peer"), help=argparse.SUPPRESS)
    size = parser.parse_args(argv).size
    parser.set_defaults(**(SIZES[size] | LARGE if size else {}))
    return parser.parse_args(argv)


Decode = Callable[[float, float, int], int]  # of temperature, top-p and seed; the number of new tokens


def _work(flags: argparse.Namespace) -> None:
    prompt_BxP = np.random.default_rng(0).integers(0, VOCABULARY, (flags.batch, flags.prompt))
    decode, about = {"ours": _ours, "peer": _peer}[flags.worker](flags, prompt_BxP)
    asked = ((*how, repeat) for repeat in range(flags.repeats + 1) for how in MODES.values())
    serve(((lambda how=how: dict(tokens=decode(*how))) for how in asked), about)


def _ours(flags: argparse.Namespace, prompt_BxP: np.ndarray) -> tuple[Decode, Callable[[], dict]]:
    import jax

    from jaxslm.generation.sampler import Sampling, generate
    from jaxslm.generation.steps import in_computation_dtype
    from jaxslm.models.decoder import Decoder, DecoderConfig, parameter_count

    names = ("d_model", "n_layers", "n_heads", "n_kv_heads", "d_ff", "dtype")
    config = DecoderConfig(vocab_size=PADDED, **{name: getattr(flags, name) for name in names})
    model = jax.jit(lambda key: in_computation_dtype(Decoder(config, key)))(jax.random.key(0))
    allowed_V = np.arange(PADDED) < VOCABULARY

    def decode(temperature: float, top_p: float, seed: int) -> int:
        sampling = Sampling(max_new_tokens=flags.new, temperature=temperature, top_p=top_p)
        key = jax.random.key(seed)
        _, lengths_B = generate(
            model, prompt_BxP, np.ones_like(prompt_BxP), key, sampling, allowed_V=allowed_V, stop_ids=()
        )
        return int(lengths_B.sum())

    def about() -> dict[str, Any]:
        n_weights = parameter_count(config) - PADDED * config.d_model  # of the embedding only a few rows are read
        n_cached = 2 * config.n_layers * config.n_kv_heads * config.head_dim * flags.batch  # keys and values a token
        n_bytes = jax.numpy.dtype(config.dtype).itemsize
        step_bytes = n_bytes * (n_weights + n_cached * (flags.prompt + flags.new / 2))
        return jax_device() | dict(step_bytes=step_bytes, parameters=parameter_count(config))

    return decode, about


def _peer(flags: argparse.Namespace, prompt_BxP: np.ndarray) -> tuple[Decode, Callable[[], dict]]:
    import torch
    import transformers

    torch.set_num_threads(flags.threads)
    torch.manual_seed(0)
    torch.set_default_dtype(getattr(torch, flags.dtype))
    llama = torch_llama(flags, VOCABULARY)
    device = llama.device.type
    prompt = torch.tensor(prompt_BxP, device=device)
    fixed = dict(max_new_tokens=flags.new, min_new_tokens=None, use_cache=True, eos_token_id=None, pad_token_id=0)
    if device == "cuda":
        fixed["cache_implementation"] = "static"

    @torch.inference_mode()
    def decode(temperature: float, top_p: float, seed: int) -> int:
        torch.manual_seed(seed)
        drawn = dict(do_sample=True, temperature=temperature, top_p=top_p, top_k=0) if temperature else {}
        how = transformers.GenerationConfig(**fixed, **drawn)
        ids = llama.generate(prompt, attention_mask=torch.ones_like(prompt), generation_config=how)
        return ids[:, prompt.shape[1] :].numel()

    return decode, torch_device


if __name__ == "__main__":
    result = run(sys.argv[1:])
    if result:
        print(json.dumps(result))
