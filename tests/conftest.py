"""What every test file leaves behind is freed: compiled programs of some 1,800 tests fill gigabytes and memory maps."""

import gc

import jax
import pytest


@pytest.fixture(scope="module", autouse=True)
def _forget_compiled_programs():
    yield
    jax.clear_caches()
    gc.collect()
