"""How much host memory and how many bytes of files it takes a process to restore a state that lies in shards over
processes of one CPU device each; run by test_restore_memory.py in several at once.

`write FOLDER MEGABYTES` makes the checkpoint, `read FOLDER MEGABYTES` prints what reading took: JSON on stdout.
"""

import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
from flax import nnx

from jaxslm.sharding import make_partitioner
from jaxslm.training import distributed
from jaxslm.training.checkpoint import Checkpoints
from jaxslm.training.optimizer import make_optimizer
from jaxslm.training.state import make_init
from tests.training.tiny_task import get_config

LAYERS, WIDTH = 6, 1024


class Stack(nnx.Module):
    """Layers of `megabytes` in all; with Adam's two moments a state is three times as large."""

    def __init__(self, megabytes: int, key: jax.Array):
        shape = (LAYERS, WIDTH, megabytes * 2**18 // (LAYERS * WIDTH))
        noise = jax.random.normal(key, shape)
        self.weight = nnx.Param(noise, logical_axes=("embed", "ffn"))


def peak() -> int:
    """Most bytes of memory this process ever had in use, since the last `forget_peak`."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def bytes_read() -> int:
    return int(Path("/proc/self/io").read_text().split("rchar:")[1].split()[0])


def main(what: str, folder: Path, megabytes: int) -> None:
    distributed.start()
    partitioner = make_partitioner(dict(data=1, fsdp=jax.process_count()))
    adamw, _ = make_optimizer(get_config().optimizer, 10)
    init, abstract = make_init(lambda key: Stack(megabytes, key), adamw, partitioner)
    checkpoints = Checkpoints(folder / "checkpoints", 1)
    if what == "write":
        checkpoints.save(1, init(jax.random.key(0)))
        checkpoints.finish()
        return
    jnp.ones(3).block_until_ready()
    step = checkpoints.newest()  # checks the files
    Path("/proc/self/clear_refs").write_text("5")  # the peak is now what is in use
    before, read = peak(), bytes_read()
    state = jax.block_until_ready(checkpoints.restore(step, abstract))
    grown, read = peak() - before, bytes_read() - read
    leaves = jax.tree.leaves(state)
    whole = sum(leaf.nbytes for leaf in leaves)
    here = sum(shard.data.nbytes for leaf in leaves for shard in leaf.addressable_shards)
    print(json.dumps(dict(whole=whole, here=here, grown=grown, read=read)))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
