"""Before JAX starts: most of the tests' time is compilation, of programs that run for a moment; they are not optimized.

What every test file leaves behind is freed: compiled programs of some 1,800 tests fill gigabytes and memory maps.
"""

import gc
import os

flags = "--xla_backend_optimization_level=0" if os.environ.get("JAX_PLATFORMS", "cpu") == "cpu" else ""
os.environ["XLA_FLAGS"] = f"{flags} {os.environ.get('XLA_FLAGS', '')}"  # the last one wins

import jax  # noqa: E402
import pytest  # noqa: E402


@pytest.fixture(scope="module", autouse=True)
def _forget_compiled_programs():
    yield
    jax.clear_caches()
    gc.collect()
