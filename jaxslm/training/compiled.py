"""How the programs of training are compiled, and that they are kept between runs."""

import os
from collections.abc import Sequence
from pathlib import Path

import jax

# Of libtpu 0.0.50, by its estimate of 4 layers of a 7B step (BUILD_NOTES.md). Gathering parameters inside the matrix
# products that need them, as is done by default on a v5p, takes twice the cycles; with more of the chip's fast memory
# for one fusion than the default, a v6e needs 16 % fewer, a v5e 8 %.
TPU_OPTIONS = {
    "xla_jf_spmd_threshold_for_windowed_einsum_mib": "1000000",
    "xla_tpu_scoped_vmem_limit_kib": "98304",
}
TUNED = ("TPU v5 lite", "TPU v5", "TPU v6 lite")  # device kinds with that much fast memory


def compiler_options(devices: Sequence[jax.Device]) -> dict[str, str] | None:
    """For `jax.jit` of a program that runs on `devices`. What LIBTPU_INIT_ARGS sets, stays."""
    if devices[0].device_kind not in TUNED:
        return None
    chosen = os.environ.get("LIBTPU_INIT_ARGS", "")
    return {name: value for name, value in TPU_OPTIONS.items() if f"--{name}=" not in chosen}


def keep_programs(cache: str | Path) -> None:
    """Programs that take a second or more to compile are kept in `cache`/compiled, where a restarted run finds them,
    unless JAX_COMPILATION_CACHE_DIR names another folder or JAX_ENABLE_COMPILATION_CACHE=0 forbids it.

    Not in the workdir: these files are machine code that runs unseen, and a workdir may come from another person.
    Process 0 writes for all. On TPU and GPU the others find its programs if they see the folder; on CPU they compile:
    JAX tells the CPUs of processes apart. A file that is damaged or cannot be written costs a warning, and compiling.
    """
    if not jax.config.jax_compilation_cache_dir:
        jax.config.update("jax_compilation_cache_dir", str(Path(cache).expanduser() / "compiled"))
