"""One training step of a language model against `transformers.LlamaForCausalLM` with `torch.optim.AdamW`.

Each side runs in a process of its own, so that peak memory is its own and neither's idle threads disturb the other. The
two start from the same weights, see the same packed rows and take steps in turn; their losses are compared, so that the
faster one is known to have done the same work. Our step is the one that trains: loss, AdamW and `make_train_step`.
"""

import argparse
import json
import os
import statistics
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from jaxslm.benchmarks.measure import Side, report, serve

LEARNING_RATE, BETAS, EPS, WEIGHT_DECAY = 1e-3, (0.9, 0.95), 1e-8, 0.1
ALLOCATORS = {  # environment of both processes
    "default": {},
    # Keep freed memory instead of returning it after each step and faulting it in again page by page.
    "keep": {
        "GLIBC_TUNABLES": "glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=68719476736:glibc.malloc.hugetlb=1"
    },
}


def run(argv: list[str]) -> dict[str, Any]:
    """Runs the benchmark and returns its figures: see `measure.report`; losses, seconds and CPU seconds are details."""
    arguments = _parser().parse_args(argv)
    if arguments.worker:
        _work(arguments)
        return {}
    module, environment = "jaxslm.benchmarks.lm_step", ALLOCATORS[arguments.allocator]
    sides = {name: Side(module, [*argv, f"--worker={name}"], environment) for name in ("ours", "peer")}
    measured: dict[str, list[dict]] = {name: [] for name in sides}
    for _ in range(arguments.warmup + arguments.steps):
        for name, side in sides.items():
            measured[name].append(side.step())
    results, tokens = {}, arguments.batch * arguments.length
    for name, side in sides.items():
        timed = measured[name][arguments.warmup :]
        seconds = statistics.median(step["seconds"] for step in timed)
        results[name] = dict(
            seconds=seconds,
            cpu_seconds=statistics.median(step["cpu_seconds"] for step in timed),
            peak_memory_mib=side.finish(),
            losses=[step["loss"] for step in measured[name]],
        )
    ours, peer = results["ours"], results["peer"]
    return report(
        "lm_step",
        ours=tokens / ours["seconds"],
        peer=tokens / peer["seconds"],
        unit=f"tokens/s of a training step, float32, median of {arguments.steps}",
        peak_memory_mib={name: result.pop("peak_memory_mib") for name, result in results.items()},
        shapes={k: v for k, v in vars(arguments).items() if k != "worker"},
        packages=("jax", "flax", "optax", "torch", "transformers"),
        sides=results,
        cpu_ratio=peer["cpu_seconds"] / ours["cpu_seconds"],
        largest_loss_difference=max(abs(a - b) for a, b in zip(ours["losses"], peer["losses"], strict=True)),
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("lm_step", description=__doc__)
    for name, default in dict(
        d_model=512, n_layers=8, n_heads=8, n_kv_heads=8, d_ff=1408, vocab_size=32_512, batch=4, length=512,
        segments=4, warmup=2, steps=7, threads=os.cpu_count(), n_chunks=4, scan_unroll=1,
    ).items():  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--remat", default="dots")
    parser.add_argument("--attention", default="auto")
    parser.add_argument("--peer_adamw", choices=("default", "fused"), default="fused")
    parser.add_argument("--allocator", choices=tuple(ALLOCATORS), default="default")
    parser.add_argument("--worker", choices=("ours", "peer"), help=argparse.SUPPRESS)
    return parser


def _work(arguments: argparse.Namespace) -> None:
    step = {"ours": _our_step, "peer": _peer_step}[arguments.worker](arguments)
    serve((lambda batch=batch: dict(loss=step(*batch))) for batch in _batches(arguments))


def _batches(arguments: argparse.Namespace) -> Iterator[tuple[np.ndarray, ...]]:
    """(tokens, targets, positions, segment_ids), each int32 [batch, length]: rows of `segments` equal documents."""
    rng = np.random.default_rng(0)
    shape, document = (arguments.batch, arguments.length), arguments.length // arguments.segments
    column = np.arange(arguments.length)
    positions = np.broadcast_to(column % document, shape).astype(np.int32)
    segment_ids = np.broadcast_to(column // document + 1, shape).astype(np.int32)
    while True:
        tokens = rng.integers(0, arguments.vocab_size, (shape[0], shape[1] + 1)).astype(np.int32)
        yield tokens[:, :-1], tokens[:, 1:], positions, segment_ids


def _decoder_config(arguments: argparse.Namespace):
    from jaxslm.models.decoder import DecoderConfig

    names = ("vocab_size", "d_model", "n_layers", "n_heads", "n_kv_heads", "d_ff", "remat", "attention", "scan_unroll")
    return DecoderConfig(**{name: getattr(arguments, name) for name in names})


def _our_step(arguments: argparse.Namespace) -> Callable[..., float]:
    import jax
    import jax.numpy as jnp

    from jaxslm.benchmarks.llama_weights import load_llama, random_llama_state
    from jaxslm.models.decoder import Decoder
    from jaxslm.sharding import make_partitioner
    from jaxslm.tasks.lm_program import make_loss
    from jaxslm.training.optimizer import make_optimizer
    from jaxslm.training.state import TrainState
    from jaxslm.training.step import make_train_step

    config = _decoder_config(arguments)
    abstract = jax.eval_shape(lambda key: Decoder(config, key), jax.random.key(0))
    model = load_llama(abstract, random_llama_state(config, seed=0))
    adamw = dict(peak_lr=LEARNING_RATE, final_lr=LEARNING_RATE, schedule="constant", warmup_steps=0, clip_norm=0.0)
    adamw |= dict(b1=BETAS[0], b2=BETAS[1], eps=EPS, weight_decay=WEIGHT_DECAY, moment_dtype="float32")
    optimizer, schedule = make_optimizer(adamw, arguments.warmup + arguments.steps)
    partitioner = make_partitioner({}, jax.devices()[:1])
    settings = dict(loss_chunks=arguments.n_chunks, optimizer=dict(z_loss=0.0))
    loss = make_loss(settings, config.vocab_size, 1, partitioner)
    compiled = make_train_step(loss, optimizer, schedule, objectives=["text"])
    key = jax.random.key_data(jax.random.key(0))
    counters = (jnp.zeros((), jnp.int32) for _ in range(2))  # the state is donated: no two of its buffers may be one
    state = [TrainState(model, jax.jit(optimizer.init)(model), jnp.zeros((), jnp.int32), key, *counters)]
    del model

    def step(*arrays: np.ndarray) -> float:
        batch = dict(zip(("tokens", "targets", "positions", "segment_ids"), arrays, strict=True))
        batch["loss_weights"] = np.ones(batch["tokens"].shape, np.float32)
        batch["objective"] = np.zeros(batch["tokens"].shape, np.int32)
        state[0], metrics = jax.block_until_ready(compiled(state[0], batch))
        return float(metrics["loss"])

    return step


def _peer_step(arguments: argparse.Namespace) -> Callable[..., float]:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from jaxslm.benchmarks.llama_weights import random_llama_state

    torch.set_num_threads(arguments.threads)
    config = _decoder_config(arguments)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=config.vocab_size,
            hidden_size=config.d_model,
            intermediate_size=config.d_ff,
            num_hidden_layers=config.n_layers,
            num_attention_heads=config.n_heads,
            num_key_value_heads=config.n_kv_heads,
            rms_norm_eps=config.norm_eps,
            max_position_embeddings=arguments.length,
        )
    ).train()
    model.load_state_dict({name: torch.from_numpy(x) for name, x in random_llama_state(config, seed=0).items()})
    # One segment: no position ids, and so no mask, which is the fast path of scaled_dot_product_attention.
    packed, fused = arguments.segments > 1, arguments.peer_adamw == "fused"
    matrices, norms = ([p for p in model.parameters() if (p.ndim > 1) == is_matrix] for is_matrix in (True, False))
    groups = [dict(params=matrices, weight_decay=WEIGHT_DECAY), dict(params=norms, weight_decay=0.0)]
    optimizer = torch.optim.AdamW(groups, lr=LEARNING_RATE, betas=BETAS, eps=EPS, fused=fused or None)

    def step(*batch: np.ndarray) -> float:
        tokens, targets, positions, _ = (torch.from_numpy(x.copy()).long() for x in batch)
        optimizer.zero_grad(set_to_none=True)
        logits = model(tokens, position_ids=positions if packed else None, use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(logits.view(-1, config.vocab_size), targets.reshape(-1))
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


if __name__ == "__main__":
    result = run(sys.argv[1:])
    if result:
        print(json.dumps(result))
