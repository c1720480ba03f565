"""One training step of a language model against `transformers.LlamaForCausalLM` with `torch.optim.AdamW`.

Each side runs in a process of its own, so that peak memory is its own and neither's idle threads disturb the other.
Both see the same packed rows. Small ones start from the same weights and take steps in turn, and their losses are
compared, so that the faster one is known to have done the same work. `--size=1b|7b` draw their weights on the device,
each side its own; the first loss of either must be that of a model that knows nothing. What does not fit one device
together (7b) runs in turns, ours, the peer, ours again: `drift` is the second of ours over the first.

Our step is the one that trains (`make_program`): float32 weights, gradients and moments, computing in --dtype. The peer
has float32 weights, too, under torch.autocast. On a GPU its attention is FlashAttention over the documents' lengths: of
flash_attn if that is installed, else torch's own. `mfu` counts causal attention inside documents alone, `mfu_context`
over whole rows, as published figures do; recomputation is never counted.

On one H200, each command within 10 minutes:

    python launch/bench.py lm_step --size=1b --n_layers=2 --steps=3   # 1: a minute or two; does everything run?
    python launch/bench.py lm_step --size=1b                          # 2: 3 to 5 minutes
    python launch/bench.py lm_step --size=7b                          # 3: 6 to 9 minutes, most of it compilation
    python launch/bench.py lm_step --size=7b --sides=ours --remat=... # 4: 2 minutes a choice of --remat, --batch

with `bash launch/with_flags.sh gpu_h100` before them for the compiler flags that training has. --peer_attention, then
--peer_compile=none, are for a torch in which something of the peer's fails.
"""

import argparse
import json
import math
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from jaxslm.benchmarks.measure import Side, jax_device, peak_memory_mib, report, same_device, serve, torch_device
from jaxslm.benchmarks.sizes import SIZES, VOCABULARY

LEARNING_RATE, BETAS, EPS, WEIGHT_DECAY = 1e-3, (0.9, 0.95), 1e-8, 0.1
STD = 0.02  # of random weights, there as here
ALLOCATORS = {  # environment of both processes
    "default": {},
    # Keep freed memory instead of returning it after each step and faulting it in again page by page.
    "keep": {
        "GLIBC_TUNABLES": "glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=68719476736:glibc.malloc.hugetlb=1"
    },
}
LARGE = dict(length=4096, segments=8, dtype="bfloat16", weights="own", peer_compile="model", warmup=3, steps=10)
PRESETS = {
    "1b": SIZES["1b"] | LARGE | dict(batch=4, remat="query,key,value,context,attended,gate,up"),
    # 27 GB each of weights, gradients and two moments leave some 30 of 141 GB for what the backward pass keeps.
    "7b": SIZES["7b"]
    | LARGE
    | dict(batch=2, remat="query,key,value,context,attended", together=0, peer_checkpointing=1, n_chunks=8),
}
FLASH = ("flash_attention_2", "torch_varlen")  # attention over rows joined to one, by the lengths of documents


def run(argv: list[str]) -> dict[str, Any]:
    """Runs the benchmark and returns its figures: see `measure.report`; losses, seconds and CPU seconds are details.

    Raises RuntimeError if a first loss is not that of random weights, or the sides ran on two devices.
    """
    arguments = _parse(argv)
    if arguments.worker:
        _work(arguments)
        return {}
    measured, said = _measure(arguments, argv)
    results, tokens = {}, arguments.batch * arguments.length
    for name, turns in measured.items():
        timed = [[step["seconds"] for step in turn[arguments.warmup :]] for turn in turns]
        losses = [step["loss"] for step in turns[0]]
        _check_first_loss(name, losses[0], arguments)
        results[name] = seconds = dict(
            seconds=statistics.median(sum(timed, [])),
            cpu_seconds=statistics.median(step["cpu_seconds"] for turn in turns for step in turn[arguments.warmup :]),
            first_seconds=turns[0][0]["seconds"],  # compilation included
            losses=losses,
        )
        if len(turns) > 1:
            seconds["drift"] = statistics.median(timed[-1]) / statistics.median(timed[0])
    ours, peer = results["ours"], results.get("peer")
    details = {}
    if peer:
        same_device(said["ours"], said["peer"])
        details["cpu_ratio"] = peer["cpu_seconds"] / ours["cpu_seconds"]
        if arguments.weights == "shared":
            pairs = zip(ours["losses"], peer["losses"], strict=True)
            details["largest_loss_difference"] = max(abs(a - b) for a, b in pairs)
    if peak := said["ours"]["peak_flops"]:
        for kind in ("mfu", "mfu_context"):
            flops = said["ours"]["flops" + kind.removeprefix("mfu")]
            details[kind] = {name: flops / (result["seconds"] * peak) for name, result in results.items()}
    return report(
        "lm_step",
        ours=tokens / ours["seconds"],
        peer=tokens / peer["seconds"] if peer else None,
        unit=f"tokens/s of a training step, {arguments.dtype}, median of {arguments.steps}",
        peak_memory_mib={name: peak_memory_mib(side) for name, side in said.items()},
        shapes={k: v for k, v in vars(arguments).items() if k != "worker"} | {"parameters": said["ours"]["parameters"]},
        packages=("jax", "flax", "optax") + (("torch", "transformers") if peer else ()),
        device=said["ours"]["device"],
        sides=results,
        **details,
    )


def _measure(arguments: argparse.Namespace, argv: list[str]) -> tuple[dict[str, list[list[dict]]], dict[str, dict]]:
    """(steps of each turn of each side, what each side says of itself)."""
    names = ("ours", "peer") if arguments.sides == "both" else ("ours",)
    environment = dict(ALLOCATORS[arguments.allocator])
    if arguments.together:
        turns = [names]
        environment["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # a GPU's memory is for both
    else:
        turns = [(name,) for name in (*names, "ours")[: 2 * len(names) - 1]]
        environment["XLA_PYTHON_CLIENT_MEM_FRACTION"] = "0.95"
    measured, said = {name: [] for name in names}, {}
    with tempfile.TemporaryDirectory() as compiled:
        environment["JAX_COMPILATION_CACHE_DIR"] = compiled  # the second turn compiles nothing
        for turn in turns:
            sides = {name: Side("jaxslm.benchmarks.lm_step", [*argv, f"--worker={name}"], environment) for name in turn}
            steps = {name: [] for name in turn}
            for _ in range(arguments.warmup + arguments.steps):
                for name, side in sides.items():
                    steps[name].append(side.step())
            for name, side in sides.items():
                measured[name].append(steps[name])
                said[name] = side.finish()
    return measured, said


def _check_first_loss(name: str, loss: float, arguments: argparse.Namespace) -> None:
    """A logit is normal, of variance std^2 d_model, whatever the tokens: the mean of log sum exp less the target's."""
    expected = math.log(arguments.vocab_size) + STD**2 * arguments.d_model / 2
    if not abs(loss - expected) < 0.1:
        raise RuntimeError(f"the first loss of {name} is {loss:.3f}, of random weights it is {expected:.3f}")


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("lm_step", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--size", choices=tuple(PRESETS), help="defaults of the other options")
    for name, default in dict(
        d_model=512, n_layers=8, n_heads=8, n_kv_heads=8, d_ff=1408, vocab_size=VOCABULARY, batch=4, length=512,
        segments=4, warmup=2, steps=7, threads=os.cpu_count(), n_chunks=4, scan_unroll=1, together=1,
        peer_checkpointing=0,
    ).items():  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--moment_dtype", choices=("float32", "bfloat16"), default="float32", help="ours, of the first")
    parser.add_argument("--weights", choices=("shared", "own"), default="shared")
    parser.add_argument("--remat", default="dots")
    parser.add_argument("--attention", default="auto")
    parser.add_argument("--sides", choices=("both", "ours"), default="both")
    parser.add_argument("--peer_adamw", choices=("default", "fused"), default="fused")
    parser.add_argument("--peer_attention", choices=("auto", "sdpa", "flex_attention", *FLASH), default="auto")
    parser.add_argument("--peer_compile", choices=("none", "layers", "model"), default="none")
    parser.add_argument("--allocator", choices=tuple(ALLOCATORS), default="default")
    parser.add_argument("--worker", choices=("ours", "peer"), help=argparse.SUPPRESS)
    parser.set_defaults(**PRESETS.get(parser.parse_args(argv).size, {}))
    return parser.parse_args(argv)


def _work(arguments: argparse.Namespace) -> None:
    step, about = {"ours": _ours, "peer": _peer}[arguments.worker](arguments)
    serve(((lambda batch=batch: dict(loss=step(*batch))) for batch in _batches(arguments)), about)


def document_lengths(arguments: argparse.Namespace) -> np.ndarray:
    """int [batch, segments]: each row cut into documents at random places, the same in every step."""
    rng, n_cuts = np.random.default_rng(1), arguments.segments - 1
    cuts = [np.sort(rng.permutation(arguments.length - 1)[:n_cuts] + 1) for _ in range(arguments.batch)]
    return np.diff(np.stack(cuts), axis=1, prepend=0, append=arguments.length)


def _batches(arguments: argparse.Namespace) -> Iterator[tuple[np.ndarray, ...]]:
    """(tokens, targets, positions, segment_ids), each int32 [batch, length]."""
    rng, lengths = np.random.default_rng(0), document_lengths(arguments)
    positions = np.stack([np.concatenate([*map(np.arange, row)]) for row in lengths]).astype(np.int32)
    segment_ids = np.stack([np.repeat(np.arange(1, len(row) + 1), row) for row in lengths]).astype(np.int32)
    while True:
        tokens = rng.integers(0, arguments.vocab_size, (arguments.batch, arguments.length + 1)).astype(np.int32)
        yield tokens[:, :-1], tokens[:, 1:], positions, segment_ids


Worker = tuple[Callable[..., float], Callable[[], dict[str, Any]]]  # (one step, its loss; what the side says of itself)


def _ours(arguments: argparse.Namespace) -> Worker:
    import dataclasses

    import jax

    from jaxslm.benchmarks.llama_weights import load_llama, random_llama_state
    from jaxslm.models.decoder import flops_per_token, parameter_count
    from jaxslm.sharding import make_partitioner
    from jaxslm.tasks.lm_program import make_program

    names = ("d_model", "n_layers", "n_heads", "n_kv_heads", "d_ff", "dtype", "remat", "attention", "scan_unroll")
    adamw = dict(peak_lr=LEARNING_RATE, final_lr=LEARNING_RATE, schedule="constant", warmup_steps=0, clip_norm=0.0)
    adamw |= dict(b1=BETAS[0], b2=BETAS[1], eps=EPS, weight_decay=WEIGHT_DECAY, moment_dtype=arguments.moment_dtype)
    config = dict(
        model={name: getattr(arguments, name) for name in names} | {"initializer_range": STD},
        optimizer=adamw | dict(z_loss=0.0, accumulate_steps=1),
        steps=arguments.warmup + arguments.steps,
        loss_chunks=arguments.n_chunks,
        data=dict(batch_size=arguments.batch, context_length=arguments.length),
    )
    program = make_program(
        config,
        vocab_size=arguments.vocab_size,
        padded_size=arguments.vocab_size,
        objectives=["text"],
        partitioner=make_partitioner({}, jax.devices()[:1]),
    )
    state = [program.init(jax.random.key(0))]
    if arguments.weights == "shared":
        model = load_llama(program.abstract_state.model, random_llama_state(program.model_config, seed=0))
        model = jax.device_put(model, jax.tree.map(lambda x: x.sharding, program.abstract_state.model))
        state[0] = dataclasses.replace(state[0], model=model)
        del model

    def step(*arrays: np.ndarray) -> float:
        batch = dict(zip(("tokens", "targets", "positions", "segment_ids"), arrays, strict=True))
        batch["loss_weights"] = np.ones(batch["tokens"].shape, np.float32)
        batch["objective"] = np.zeros(batch["tokens"].shape, np.int32)
        state[0], metrics = jax.block_until_ready(program.step(state[0], batch))
        return float(metrics["loss"])

    def about() -> dict[str, Any]:
        lengths, shape = document_lengths(arguments), program.model_config
        flops = sum(int(n) * flops_per_token(shape, int(n)) for n in lengths.flat)
        facts = dict(flops=flops, flops_context=program.flops_per_step, parameters=parameter_count(shape))
        return jax_device() | facts

    return step, about


def _peer(arguments: argparse.Namespace) -> Worker:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    attention = arguments.peer_attention if arguments.peer_attention != "auto" else fastest_attention(device.type)
    if attention == "torch_varlen":
        register_torch_varlen()
    shape = LlamaConfig(
        vocab_size=arguments.vocab_size,
        hidden_size=arguments.d_model,
        intermediate_size=arguments.d_ff,
        num_hidden_layers=arguments.n_layers,
        num_attention_heads=arguments.n_heads,
        num_key_value_heads=arguments.n_kv_heads,
        rms_norm_eps=1e-5,
        initializer_range=STD,
        max_position_embeddings=arguments.length,
        attn_implementation=attention,
    )
    with device:
        model = LlamaForCausalLM(shape).train()
    if arguments.weights == "shared":
        from jaxslm.benchmarks.llama_weights import random_llama_state
        from jaxslm.models.decoder import DecoderConfig

        names = ("vocab_size", "d_model", "n_layers", "n_heads", "n_kv_heads", "d_ff")
        config = DecoderConfig(**{name: getattr(arguments, name) for name in names})
        model.load_state_dict({name: torch.from_numpy(x) for name, x in random_llama_state(config, seed=0).items()})
    if arguments.peer_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=dict(use_reentrant=False))
    fused = arguments.peer_adamw == "fused"
    matrices, norms = ([p for p in model.parameters() if (p.ndim > 1) == is_matrix] for is_matrix in (True, False))
    groups = [dict(params=matrices, weight_decay=WEIGHT_DECAY), dict(params=norms, weight_decay=0.0)]
    optimizer = torch.optim.AdamW(groups, lr=LEARNING_RATE, betas=BETAS, eps=EPS, fused=fused or None)
    packing, lengths = {}, document_lengths(arguments).ravel()
    if attention in FLASH:
        ends = torch.from_numpy(np.concatenate([[0], np.cumsum(lengths)])).to(device, torch.int32)
        packing = dict(cu_seq_lens_q=ends, cu_seq_lens_k=ends)
        packing |= dict(max_length_q=int(lengths.max()), max_length_k=int(lengths.max()))

    def loss_of(tokens, targets, positions):
        with torch.autocast(device.type, torch.bfloat16, enabled=arguments.dtype == "bfloat16"):
            logits = model(tokens, position_ids=positions, use_cache=False, **packing).logits
            return torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())

    if arguments.peer_compile == "model":
        loss_of = torch.compile(loss_of)
    elif arguments.peer_compile == "layers":
        for layer in model.model.layers:
            layer.compile()

    def step(*batch: np.ndarray) -> float:
        tokens, targets, positions, _ = (torch.from_numpy(x.copy()).to(device).long() for x in batch)
        if attention in FLASH:
            tokens, targets, positions = (x.reshape(1, -1) for x in (tokens, targets, positions))
        elif arguments.segments == 1:  # no mask, which is the fast path of scaled_dot_product_attention
            positions = None
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(tokens, targets, positions)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step, torch_device


def fastest_attention(device: str) -> str:
    from importlib.util import find_spec

    if device == "cpu":
        return "sdpa"
    return "flash_attention_2" if find_spec("flash_attn") else "torch_varlen"


def register_torch_varlen() -> None:
    """The FlashAttention in torch itself, by the lengths of documents. Without "flash" in its name: transformers would
    look for such a one among its own."""
    import torch
    from transformers import AttentionInterface

    def attend(module, query, key, value, attention_mask, scaling, max_length_q, cu_seq_lens_q, **_):
        heads_last = (x[0].transpose(0, 1).to(torch.bfloat16) for x in (query, key, value))  # [T, H, C]
        ends, longest = (cu_seq_lens_q, cu_seq_lens_q), (max_length_q, max_length_q)
        context = torch.ops.aten._flash_attention_forward(*heads_last, *ends, *longest, 0.0, True, False, scale=scaling)
        return context[0][None], None

    AttentionInterface.register("torch_varlen", attend)


if __name__ == "__main__":
    result = run(sys.argv[1:])
    if result:
        print(json.dumps(result))
