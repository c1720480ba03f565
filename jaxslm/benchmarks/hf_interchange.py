"""Import and export of a 1B model against `from_pretrained` and `save_pretrained` of transformers.

A random model in the shape of Llama-3.2-1B or, with fewer layers, of Llama-2-7B. Import: a bfloat16 folder to float32
parameters in memory. Export: float32 weights to a bfloat16 folder, ours from a training checkpoint on disk, theirs from
the model in memory. Every run is a process of its own, so that its peak memory is its own; the two sides alternate.
`ratio` is the lower of the two speeds. What an import needs beside the parameters does not grow with the layers.

    python launch/bench.py hf_interchange
    python launch/bench.py hf_interchange --shape=7b --layers=8 --rounds=1
"""

import argparse
import json
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from jaxslm.benchmarks.measure import own_peak_memory_mib, report

COMMON = dict(
    model_type="llama",
    architectures=["LlamaForCausalLM"],
    num_attention_heads=32,
    rms_norm_eps=1e-5,
    torch_dtype="bfloat16",
)
SHAPES = {
    "1b": dict(
        hidden_size=2048,
        num_hidden_layers=16,
        num_key_value_heads=8,
        head_dim=64,
        intermediate_size=8192,
        vocab_size=128_256,
        rope_theta=500_000.0,
        max_position_embeddings=131_072,
        tie_word_embeddings=True,
    ),
    "7b": dict(
        hidden_size=4096,
        num_hidden_layers=32,
        num_key_value_heads=32,
        head_dim=128,
        intermediate_size=11_008,
        vocab_size=32_000,
        rope_theta=10_000.0,
        max_position_embeddings=4096,
        tie_word_embeddings=False,
    ),
}
MAX_FILE_BYTES = 5 * 10**9


def run(argv: list[str]) -> dict:
    """Measures all four; see `measure.report`; details have seconds and peak memory of each."""
    parser = argparse.ArgumentParser(prog="bench.py hf_interchange")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--shape", choices=tuple(SHAPES), default="1b")
    parser.add_argument("--layers", type=int, help="instead of the shape's own number")
    parser.add_argument("--folder", type=Path, help="where about 13 GB are free; a temporary folder by default")
    flags = parser.parse_args(argv)
    config = COMMON | SHAPES[flags.shape]
    config |= {"num_hidden_layers": flags.layers or config["num_hidden_layers"]}
    measured: dict[str, list[tuple[float, float]]] = {stage.__name__.strip("_"): [] for stage in STAGES}
    with tempfile.TemporaryDirectory(dir=flags.folder) as folder:
        n_bytes = _alone(_write_base, Path(folder), config)
        _alone(_write_checkpoint, Path(folder))
        for _ in range(flags.rounds):
            for stage in STAGES:
                measured[stage.__name__.strip("_")].append(_alone(stage, Path(folder)))
    seconds = {name: statistics.median(s for s, _ in runs) for name, runs in measured.items()}
    memory = {name: max(m for _, m in runs) for name, runs in measured.items()}
    ratios = {kind: seconds[f"their_{kind}"] / seconds[f"our_{kind}"] for kind in ("import", "export")}
    worst = min(ratios, key=ratios.get)
    return report(
        "hf_interchange",
        ours=n_bytes / seconds[f"our_{worst}"] / 1e9,
        peer=n_bytes / seconds[f"their_{worst}"] / 1e9,
        unit=f"GB of the bfloat16 folder a second, {worst}, median of {flags.rounds}",
        peak_memory_mib={"ours": memory[f"our_{worst}"], "peer": memory[f"their_{worst}"]},
        shapes=config | {"folder_bytes": n_bytes, "parameter_mib": 2 * n_bytes / 2**20},
        packages=("jax", "safetensors", "torch", "transformers"),
        ratios=ratios,
        seconds=seconds,
        memory_mib=memory,
        import_mib_beside_parameters=memory["our_import"] - 2 * n_bytes / 2**20,
        memory_ratios={kind: memory[f"our_{kind}"] / memory[f"their_{kind}"] for kind in ratios},
    )


def _alone(work: Callable, *arguments):
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


def _model_config(folder: Path):
    from jaxslm.hf.load import open_source
    from jaxslm.models.decoder import DecoderConfig

    source = open_source(folder / "base")
    return source, DecoderConfig(vocab_size=source.config["vocab_size"], **source.fields)


class _Random:
    """An array whose pieces are drawn when they are asked for."""

    def __init__(self, shape: tuple[int, ...]):
        self.shape = shape

    def __getitem__(self, index: slice | tuple[slice, ...]) -> np.ndarray:
        index = index if isinstance(index, tuple) else (index,)
        shape = [len(range(*i.indices(n))) for i, n in zip(index, self.shape, strict=False)]
        shape += self.shape[len(index) :]
        return 0.02 * np.random.default_rng(index[-1].start or 0).standard_normal(shape, np.float32)

    def pieces(self, axis: int, stop: int | None = None):
        step = 1 if len(self.shape) == 3 else 8192
        return (slice(i, min(i + step, self.shape[axis])) for i in range(0, self.shape[axis], step))


def _write_base(folder: Path, theirs: dict) -> int:
    """A random model folder; returns the bytes of its weights."""
    import jax

    from jaxslm.hf.architectures import ARCHITECTURES
    from jaxslm.hf.export import write_weights
    from jaxslm.models.decoder import Decoder
    from jaxslm.training.checkpoint import to_plain

    base = folder / "base"
    base.mkdir()
    (base / "config.json").write_text(json.dumps(theirs))
    _, config = _model_config(folder)
    plain = to_plain(jax.eval_shape(lambda: Decoder(config, jax.random.key(0))))
    paths = jax.tree_util.tree_leaves_with_path(plain)
    arrays = {"/".join(key.key for key in path): _Random(leaf.shape) for path, leaf in paths}
    options = dict(n_rows=config.vocab_size, dtype="bfloat16", max_file_bytes=MAX_FILE_BYTES)
    return write_weights(base, arrays, config, ARCHITECTURES["llama"], **options)


def _loaded(folder: Path):
    import jax
    import jax.numpy as jnp

    from jaxslm.hf.load import load_decoder
    from jaxslm.models.decoder import Decoder

    start = time.perf_counter()
    source, config = _model_config(folder)
    shapes = jax.eval_shape(lambda: Decoder(config, jax.random.key(0)))
    # As after the initialisation of a run; zeros, so that drawing random numbers is not part of the measurement.
    model = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    jax.block_until_ready(model)
    size = config.vocab_size
    model = load_decoder(source, model, text_size=size, size=size, new_rows="random", key=jax.random.key(0))
    return model, time.perf_counter() - start


def _write_checkpoint(folder: Path) -> None:
    from jaxslm.training.checkpoint import Checkpoints

    model, _ = _loaded(folder)
    checkpoints = Checkpoints(folder / "checkpoints", 1)
    checkpoints.save(1, {"model": model, "step": np.int32(1)})
    checkpoints.finish()


def _our_import(folder: Path) -> tuple[float, float]:
    _, seconds = _loaded(folder)
    return seconds, own_peak_memory_mib()


def _their_import(folder: Path) -> tuple[float, float]:
    import torch
    from transformers import AutoModelForCausalLM

    start = time.perf_counter()
    AutoModelForCausalLM.from_pretrained(folder / "base", dtype=torch.float32)
    return time.perf_counter() - start, own_peak_memory_mib()


def _our_export(folder: Path) -> tuple[float, float]:
    from jaxslm.hf.architectures import ARCHITECTURES
    from jaxslm.hf.export import finished_folder, write_weights
    from jaxslm.tasks.export import unharmed
    from jaxslm.training.stored import open_model

    _, config = _model_config(folder)
    start = time.perf_counter()
    with finished_folder(folder / f"ours{start}") as out, unharmed(folder / "checkpoints" / "1"):
        options = dict(n_rows=config.vocab_size, dtype="bfloat16", max_file_bytes=MAX_FILE_BYTES)
        write_weights(out, open_model(folder / "checkpoints" / "1"), config, ARCHITECTURES["llama"], **options)
    seconds = time.perf_counter() - start
    _remove(folder / f"ours{start}")
    return seconds, own_peak_memory_mib()


def _their_export(folder: Path) -> tuple[float, float]:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder / "base", dtype=torch.float32)
    start = time.perf_counter()
    model.to(torch.bfloat16).save_pretrained(folder / f"theirs{start}")
    seconds = time.perf_counter() - start
    _remove(folder / f"theirs{start}")
    return seconds, own_peak_memory_mib()


def _remove(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()


STAGES = (_our_import, _their_import, _our_export, _their_export)
