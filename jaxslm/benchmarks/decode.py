"""Decoding speed: our sampler against `transformers.generate` with its key/value cache.

Same shape, float32, prompts and number of new tokens; the two alternate in one run on the same threads. Both are
measured greedy and with SpiRit-LM's sampling (temperature 0.8, top-p 0.95); `ratio` is the lower of the two.

    python launch/bench.py decode
"""

import argparse
import multiprocessing
import platform
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

import jax
import numpy as np

from jaxslm.benchmarks.measure import own_peak_memory_mib, report
from jaxslm.generation.sampler import Sampling, generate
from jaxslm.models.decoder import Decoder, DecoderConfig, parameter_count

VOCABULARY = 32_503  # SpiRit-LM's ids
PADDED = 32_512
MODES = {"greedy": (0.0, 1.0), "sampled": (0.8, 0.95)}  # temperature, top-p


def run(argv: list[str]) -> dict:
    """Measures both sides; see `measure.report`; the details have both modes."""
    flags = _flags(argv)
    config = DecoderConfig(
        vocab_size=PADDED,
        d_model=flags.d_model,
        n_layers=flags.layers,
        n_heads=flags.d_model // 64,
        n_kv_heads=flags.d_model // 64,
        d_ff=flags.d_ff,
    )
    prompt_BxP = np.random.default_rng(0).integers(0, VOCABULARY, (flags.batch, flags.prompt))
    sides = {name: make(config, prompt_BxP, flags.new) for name, make in SIDES.items()}
    speeds = {f"{side}_{mode}": [] for side in sides for mode in MODES}
    for repeat in range(flags.repeats + 1):  # the first round compiles and warms up
        for mode, (temperature, top_p) in MODES.items():
            for side, decode in sides.items():
                start = time.perf_counter()
                n_tokens = decode(temperature, top_p, repeat)
                seconds = time.perf_counter() - start
                assert n_tokens == flags.batch * flags.new, (side, n_tokens)
                if repeat:
                    speeds[f"{side}_{mode}"].append(n_tokens / seconds)
    tokens_per_s = {name: round(statistics.median(values), 1) for name, values in speeds.items()}
    ratios = {mode: tokens_per_s[f"ours_{mode}"] / tokens_per_s[f"peer_{mode}"] for mode in MODES}
    worst = min(ratios, key=ratios.get)
    return report(
        "decode",
        ours=tokens_per_s[f"ours_{worst}"],
        peer=tokens_per_s[f"peer_{worst}"],
        unit=f"new tokens/s, {worst}, float32, median of {flags.repeats}",
        peak_memory_mib={side: _peak_memory(side, config, prompt_BxP, flags.new) for side in SIDES},
        shapes=vars(flags) | {"vocabulary": PADDED, "parameters": parameter_count(config)},
        packages=("jax", "torch", "transformers"),
        tokens_per_s=tokens_per_s,
        ratios=ratios,
        machine=platform.machine(),
    )


def _flags(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.py decode", formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    defaults = dict(batch=8, prompt=64, new=128, d_model=256, layers=8, d_ff=704, repeats=5)
    for name, value in defaults.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    return parser.parse_args(argv)


def _peak_memory(side: str, config: DecoderConfig, prompt_BxP: np.ndarray, n_new: int) -> float | None:
    """Peak resident MiB of a process of its own that decodes once, sampled."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_decode_once, side, config, prompt_BxP, n_new).result()


def _decode_once(side: str, config: DecoderConfig, prompt_BxP: np.ndarray, n_new: int) -> float | None:
    SIDES[side](config, prompt_BxP, n_new)(*MODES["sampled"], 0)
    return own_peak_memory_mib()


def _ours(config: DecoderConfig, prompt_BxP: np.ndarray, n_new: int) -> Callable[[float, float, int], int]:
    model = Decoder(config, jax.random.key(0))
    allowed_V = np.arange(PADDED) < VOCABULARY

    def decode(temperature: float, top_p: float, seed: int) -> int:
        sampling = Sampling(max_new_tokens=n_new, temperature=temperature, top_p=top_p)
        key = jax.random.key(seed)
        _, lengths_B = generate(
            model, prompt_BxP, np.ones_like(prompt_BxP), key, sampling, allowed_V=allowed_V, stop_ids=()
        )
        return int(lengths_B.sum())

    return decode


def _peer(config: DecoderConfig, prompt_BxP: np.ndarray, n_new: int) -> Callable[[float, float, int], int]:
    import torch
    import transformers

    torch.manual_seed(0)
    llama = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=config.d_model,
            intermediate_size=config.d_ff,
            num_hidden_layers=config.n_layers,
            num_attention_heads=config.n_heads,
            num_key_value_heads=config.n_kv_heads,
            max_position_embeddings=4096,
        )
    ).eval()
    prompt = torch.tensor(prompt_BxP)

    @torch.inference_mode()
    def decode(temperature: float, top_p: float, seed: int) -> int:
        torch.manual_seed(seed)
        drawn = dict(do_sample=True, temperature=temperature, top_p=top_p, top_k=0) if temperature else {}
        how = transformers.GenerationConfig(
            max_new_tokens=n_new, min_new_tokens=None, use_cache=True, eos_token_id=None, pad_token_id=0, **drawn
        )
        ids = llama.generate(prompt, attention_mask=torch.ones_like(prompt), generation_config=how)
        return ids[:, prompt.shape[1] :].numel()

    return decode


SIDES = {"ours": _ours, "peer": _peer}
