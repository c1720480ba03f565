"""Moves a training state through checkpoints from mesh to mesh; run by test_checkpoint_devices.py in a process of its
own for each number of devices.

`train FOLDER MESH` makes a state by three steps and saves it, `move FOLDER OTHER MESH` reads the one in FOLDER and
saves it in OTHER. The last line is JSON: the number of devices that hold parts of each array, and a digest of its bits.
"""

import hashlib
import json
import sys
from pathlib import Path

import jax
import numpy as np

from jaxslm.naming import parameter_name
from jaxslm.training.checkpoint import Checkpoints
from jaxslm.training.step import put_batch
from tests.training import tiny_task


def task_on(mesh: dict):
    config = tiny_task.get_config()
    config.mesh.update(mesh)
    config.optimizer.moment_dtype = "bfloat16"  # of the first moment: types come back, too
    return tiny_task.make(config)


def trained(task):
    state = task.init(jax.random.key(0))
    for n in range(3):
        state, _ = task.step(state, put_batch(tiny_task.batch_of(0, n), task.batch_sharding))
    return state


def described(state) -> dict[str, list]:
    found = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        parts = len({str(shard.index) for shard in leaf.global_shards})
        bits = np.asarray(leaf)
        found[parameter_name(path)] = [parts, f"{bits.dtype} {hashlib.sha256(bits.tobytes()).hexdigest()}"]
    return found


def main(what: str, *arguments: str) -> None:
    *folders, mesh = arguments
    task = task_on(json.loads(mesh))
    if what == "train":
        state = trained(task)
    else:
        source = Checkpoints(Path(folders[0]), 1)
        state = source.restore(source.newest(), task.abstract_state())
    made = Checkpoints(Path(folders[-1]), 1)
    made.save(3, state)
    made.finish()
    print(json.dumps(described(state)))


if __name__ == "__main__":
    main(*sys.argv[1:])
