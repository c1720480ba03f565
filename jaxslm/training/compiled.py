"""Compiled programs are kept between runs."""

from pathlib import Path

import jax


def keep_programs(cache: str | Path) -> None:
    """Programs that take a second or more to compile are kept in `cache`/compiled, where a restarted run finds them,
    unless JAX_COMPILATION_CACHE_DIR names another folder or JAX_ENABLE_COMPILATION_CACHE=0 forbids it.

    Not in the workdir: these files are machine code that runs unseen, and a workdir may come from another person.
    Process 0 writes for all. On TPU and GPU the others find its programs if they see the folder; on CPU they compile:
    JAX tells the CPUs of processes apart. A file that is damaged or cannot be written costs a warning, and compiling.
    """
    if not jax.config.jax_compilation_cache_dir:
        jax.config.update("jax_compilation_cache_dir", str(Path(cache).expanduser() / "compiled"))
