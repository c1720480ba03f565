"""A run that moves from 8 devices to 4, 2 and 1, under different shardings, against one that stays on 8."""

import json
import os
import subprocess
import sys

SCRIPT = """
import json, sys
from pathlib import Path
import jax
from jaxslm.training.loop import run
from jaxslm.training.metrics import read_rows
from tests.training import tiny_task

def legs(workdir, *legs):
    for steps, n, mesh in legs:
        config = tiny_task.get_config()
        config.update_from_flattened_dict({"steps": steps, "eval.every": 0, "checkpoint.every": 0})
        config.mesh.update(mesh)
        run(tiny_task.make(config, jax.devices()[:n]), config, workdir)
    return {row["step"]: row["loss"] for row in read_rows(workdir / "metrics.jsonl")}

folder = Path(sys.argv[1])
still = legs(folder / "still", (16, 8, {}))
moved = legs(
    folder / "moved", (4, 8, dict(fsdp=4)), (8, 4, dict(tensor=2, fsdp=2)), (12, 2, dict(fsdp=2)), (16, 1, {})
)
print(json.dumps([still, moved]))
"""


def test_from_8_devices_to_4_to_2_to_1(tmp_path):
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=8"
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", SCRIPT, str(tmp_path)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    still, moved = json.loads(result.stdout.splitlines()[-1])
    assert list(still) == list(moved) == [str(step) for step in range(1, 17)]
    assert max(abs(still[step] - moved[step]) for step in still) < 1e-5
