"""Benchmarks of language models where only jax, flax, optax, orbax-checkpoint, transformers and torch are installed."""

import json
import os
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
THERE = ("jax", "flax", "optax", "orbax-checkpoint", "transformers", "torch")
HIDING = """
import sys
from importlib.machinery import PathFinder

class Bare(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.split(".")[0] in {hidden} else PathFinder.find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Bare
"""
SHAPE = "--d_model=32 --n_layers=2 --n_heads=2 --n_kv_heads=1 --d_ff=64 --batch=2".split()


def normal(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


def needed(distribution: str, found: set[str]) -> set[str]:
    """`found` with the installed distributions that this one needs, extras left out."""
    found.add(normal(distribution))
    try:
        lines = requires(distribution) or []
    except PackageNotFoundError:  # of another platform
        return found
    for line in lines:
        name = normal(re.match(r"[\w.-]+", line)[0])
        if "extra ==" not in line and name not in found:
            needed(name, found)
    return found


@pytest.fixture(scope="module")
def bare(tmp_path_factory) -> dict[str, str]:
    """An environment in which processes find no other package than those in THERE and what those need."""
    for name in THERE:
        pytest.importorskip(name.partition("-")[0])
    there = set.union(*(needed(name, set()) for name in THERE))
    modules = packages_distributions()
    hidden = {name for name, owners in modules.items() if not there & set(map(normal, owners))} - {"jaxslm"}
    assert {"grain", "librosa", "ml_collections", "tensorflow_datasets", "soundfile", "tensorboardX"} <= hidden
    folder = tmp_path_factory.mktemp("bare")
    (folder / "sitecustomize.py").write_text(HIDING.format(hidden=hidden))
    return dict(os.environ, PYTHONPATH=f"{folder}{os.pathsep}{ROOT}", JAX_PLATFORMS="cpu", CUDA_VISIBLE_DEVICES="")


def run(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / "launch/bench.py"), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def figures(environment: dict[str, str], *arguments: str) -> dict:
    done = run(environment, *arguments)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_names_are_those_that_can_run(bare):
    done = run(bare)
    assert done.returncode == 1 and "lm_step" in done.stderr and "decode" in done.stderr, done.stderr
    assert "loader" not in done.stderr  # it needs grain


def test_both_sides_of_lm_step_do_the_same_work(bare):
    result = figures(bare, "lm_step", *SHAPE, "--vocab_size=96", "--length=64", "--warmup=1", "--steps=2")
    assert result["details"]["largest_loss_difference"] < 1e-4
    assert result["ratio"] == pytest.approx(result["ours"] / result["peer"]) and result["versions"]["grain"]
    assert min(result["peak_memory_mib"].values()) > 50


def test_a_size_that_takes_turns(bare):
    small = [*SHAPE, "--vocab_size=96", "--length=64", "--warmup=1", "--steps=1", "--peer_compile=none"]
    result = figures(bare, "lm_step", "--size=7b", *small)
    assert result["shapes"]["dtype"] == "bfloat16" and result["shapes"]["remat"] == "query,key,value,context,attended"
    assert result["details"]["sides"]["ours"]["drift"] > 0 and "drift" not in result["details"]["sides"]["peer"]


def test_decode_of_a_size(bare):
    result = figures(bare, "decode", "--size=7b", *SHAPE, "--prompt=8", "--new=4", "--repeats=1")
    assert result["shapes"]["dtype"] == "bfloat16" and min(result["details"]["tokens_per_s"].values()) > 0
    layer = 32 * (2 * 32 + 2 * 16) + 3 * 32 * 64 + 2 * 32  # query, output, key, value; feed-forward; norms
    weights = 2 * layer + 32 + 32 * 32_512  # the norm and the unembedding, not the embedding
    cached = 2 * 2 * 16 * 2 * (8 + 4 / 2)  # keys and values of 2 layers, 1 head of 16, 2 rows
    assert result["details"]["step_bytes"] == 2 * (weights + cached)
