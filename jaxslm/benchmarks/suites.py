"""Likelihood pairs a second: our scorer against the same scores by `transformers` on torch.

Same weights, sequences and scored tokens, on random stories of units of the lengths that Topic-StoryCloze has; the two,
each in a process of its own, alternate in one run, and their scores are compared. The peer is how suites are
scored elsewhere (slamkit): in batches padded to the longest sequence, here sorted by length, which it does not do.
"""

import argparse
import functools
import json
import os
import sys
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxslm.benchmarks.llama_weights import load_llama, random_llama_state
from jaxslm.benchmarks.measure import Side, jax_device, peak_memory_mib, report, same_device, serve, torch_device
from jaxslm.benchmarks.torch_llama import torch_llama
from jaxslm.models.decoder import Decoder, DecoderConfig

VOCABULARY, PADDED = 503, 512


def run(argv: list[str]) -> dict[str, Any]:
    """Measures both; see `measure.report`. RuntimeError if their scores differ by more than rounding."""
    flags = _parse(argv)
    if flags.worker:
        _work(flags)
        return {}
    sides = {name: Side("jaxslm.benchmarks.suites", [*argv, f"--worker={name}"], {}) for name in ("ours", "peer")}
    speeds, scores = {name: [] for name in sides}, {}
    for repeat in range(flags.repeats + 1):  # the first round compiles and warms up
        for name, side in sides.items():
            made = side.step()
            scores[name] = np.array(made["scores"])
            if repeat:
                speeds[name].append(flags.pairs / made["seconds"])
    said = {name: side.finish() for name, side in sides.items()}
    apart = float(np.max(np.abs(scores["ours"] / scores["peer"] - 1)))
    if apart > 1e-3:
        raise RuntimeError(f"the two sides' scores differ by {apart:.1e}: they do not compute the same")
    medians = {name: float(np.median(values)) for name, values in speeds.items()}
    return report(
        "suites",
        ours=medians["ours"],
        peer=medians["peer"],
        unit=f"pairs/s, float32, median of {flags.repeats}",
        peak_memory_mib={name: peak_memory_mib(side) for name, side in said.items()},
        shapes={name: value for name, value in vars(flags).items() if name != "worker"},
        packages=("jax", "torch", "transformers"),
        device=same_device(said["ours"], said["peer"]),
        largest_relative_difference=apart,
    )


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("suites", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    defaults = dict(
        d_model=256, n_layers=4, n_heads=4, n_kv_heads=4, d_ff=704, pairs=200, batch=8, context=384, repeats=3,
        threads=os.cpu_count(),
    )  # fmt: skip
    for name, value in defaults.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--worker", choices=("ours", "peer"), help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def _stories(flags: argparse.Namespace) -> list[np.ndarray]:
    """Both options of each pair, one after the other: 100 to 350 units, their ends of unequal length."""
    rng = np.random.default_rng(0)
    lengths = np.repeat(rng.integers(100, 330, flags.pairs), 2) + rng.integers(0, 20, 2 * flags.pairs)
    return [rng.integers(0, VOCABULARY, n).astype(np.int32) for n in lengths]


def _work(flags: argparse.Namespace) -> None:
    score, about = {"ours": _ours, "peer": _peer}[flags.worker](flags, _stories(flags))
    serve(((lambda: dict(scores=score())) for _ in range(flags.repeats + 1)), about)


Score = Callable[[], list[float]]  # sums of the log-likelihoods of all ids but the first


def _config(flags: argparse.Namespace) -> DecoderConfig:
    names = ("d_model", "n_layers", "n_heads", "n_kv_heads", "d_ff")
    return DecoderConfig(vocab_size=PADDED, **{name: getattr(flags, name) for name in names})


def _ours(flags: argparse.Namespace, stories: list[np.ndarray]) -> tuple[Score, Callable[[], dict]]:
    from jaxslm.evaluation.scoring import Scorer, Tokens
    from jaxslm.sharding import make_partitioner
    from jaxslm.tasks.likelihood import unit_of
    from jaxslm.tasks.lm_program import make_loss
    from jaxslm.training.step import put_batch

    config, partitioner = _config(flags), make_partitioner(dict(data=1, fsdp=-1))
    model = load_llama(Decoder(config, jax.random.key(0)), random_llama_state(config, 0))
    settings = dict(loss_chunks=4, optimizer=dict(z_loss=0.0))

    def make_sums(n: int):
        loss = make_loss(settings, PADDED, n, partitioner)
        return lambda model, batch: loss(model, batch)[1]

    place = functools.partial(put_batch, sharding=partitioner.batch_sharding())
    scorer = Scorer(make_sums, place, rows=flags.batch, context=flags.context, unit=unit_of(partitioner))
    tokens = [Tokens(ids, np.arange(len(ids)) > 0) for ids in stories]
    return lambda: scorer(model, scorer.batches(tokens)).tolist(), jax_device


def _peer(flags: argparse.Namespace, stories: list[np.ndarray]) -> tuple[Score, Callable[[], dict]]:
    import torch

    torch.set_num_threads(flags.threads)
    device, config = "cuda" if torch.cuda.is_available() else "cpu", _config(flags)
    llama = torch_llama(flags, PADDED, rms_norm_eps=config.norm_eps)
    llama.load_state_dict({name: torch.tensor(x) for name, x in random_llama_state(config, 0).items()})
    order = np.argsort([len(ids) for ids in stories])

    @torch.inference_mode()
    def score() -> list[float]:
        found = np.zeros(len(stories))
        for first in range(0, len(order), flags.batch):
            chosen = order[first : first + flags.batch]
            rows = [torch.tensor(stories[i], dtype=torch.long) for i in chosen]
            ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True).to(device)
            mask = torch.arange(ids.shape[1], device=device) < torch.tensor([[len(r)] for r in rows], device=device)
            logits = llama(input_ids=ids, attention_mask=mask.long()).logits[:, :-1]
            nll = torch.nn.functional.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none")
            found[chosen] = -(nll * mask[:, 1:]).sum(1).cpu().numpy()
        return found.tolist()

    return score, torch_device


if __name__ == "__main__":
    result = run(sys.argv[1:])
    if result:
        print(json.dumps(result))
