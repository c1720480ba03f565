"""Compiler flags of launch/flags: none that jaxlib, or libtpu where it is installed, does not know."""

import importlib.util
import os
import subprocess
import sys

import pytest

from tests.launch.stand_ins import ROOT

FILES = {file.stem for file in (ROOT / "launch/flags").glob("*.sh")}
TPUS = {"tpu_v5e": "v5e:2x2", "tpu_v5p": "v5p:2x2x1", "tpu_v6e": "v6e:2x2"}
GPU = "import jax; print(int(jax.jit(lambda x: x + 1)(1)))"
# Gathers and a product, so that flags are not only read but used.
TPU = """
import sys, jax, jax.numpy as jnp, numpy as np
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec as P
devices = topologies.get_topology_desc(platform="tpu", topology_name=sys.argv[1]).devices
mesh = Mesh(np.array(devices), ("fsdp",), axis_types=(AxisType.Auto,))
def layers(x, weights_LxDxD):
    return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, weights_LxDxD)[0].sum()
def array(shape, *spec):
    return jax.ShapeDtypeStruct(shape, jnp.bfloat16, sharding=NamedSharding(mesh, P(*spec)))
step = jax.jit(jax.grad(layers, argnums=1), out_shardings=NamedSharding(mesh, P(None, "fsdp")))
step.lower(array((2048, 1024), "fsdp"), array((4, 1024, 1024), None, "fsdp")).compile()
print("compiled")
"""


def started(hardware, code, *arguments, **environment):
    command = ["bash", str(ROOT / "launch/with_flags.sh"), hardware, sys.executable, "-c", code, *arguments]
    clean = {name: x for name, x in os.environ.items() if name not in ("XLA_FLAGS", "LIBTPU_INIT_ARGS", "DRY_RUN")}
    environment = clean | dict(JAX_PLATFORMS="cpu", ALLOW_MULTIPLE_LIBTPU_LOAD="1") | environment
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize("hardware", sorted(FILES - TPUS.keys()))
def test_jaxlib_knows_the_gpu_flags(hardware):
    done = started(hardware, GPU)
    assert done.stdout == "2\n", done.stderr[-2000:]
    wrong = started(hardware, GPU, XLA_FLAGS="--xla_gpu_no_such_flag=1")
    assert wrong.returncode != 0 and "xla_gpu_no_such_flag" in wrong.stderr


@pytest.mark.skipif(not importlib.util.find_spec("libtpu"), reason="libtpu (the tpu extra) is not installed")
@pytest.mark.parametrize("hardware", sorted(TPUS))
def test_libtpu_compiles_with_the_tpu_flags(hardware):
    done = started(hardware, TPU, TPUS[hardware])
    assert done.stdout.endswith("compiled\n"), done.stderr[-2000:]
    wrong = started(hardware, TPU, TPUS[hardware], LIBTPU_INIT_ARGS="--xla_tpu_no_such_flag=1")
    assert wrong.returncode != 0 and "xla_tpu_no_such_flag" in wrong.stderr


def test_every_tpu_file_is_compiled_with():
    assert {name for name in FILES if name.startswith("tpu_")} == TPUS.keys()


def test_unknown_hardware_is_named():
    done = started("tpu_v9", GPU)
    assert done.returncode == 2 and "--hardware=tpu_v9 must be one of: gpu_h100 tpu_v5e" in done.stderr
