"""The project's own commands, run as a user runs them, at sizes that take seconds."""

import os
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SMALL = (
    "--config.model.d_model=64 --config.model.d_ff=128 --config.model.n_layers=2 --config.data.context_length=448 "
    "--config.data.batch_size=4 --config.samples.speech_tokens=20 --config.samples.text_tokens=20 "
    "--config.samples.utterances=2 --config.samples.voice= --config.data.units.clusters=20"
).split()


def run(command: str, *arguments: object, check: bool = True) -> subprocess.CompletedProcess:
    """`python launch/COMMAND ARGUMENTS` in the repository, stdout and stderr as text."""
    words = [sys.executable, f"launch/{command}", *map(str, arguments)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=600)
    if check:
        assert done.returncode == 0, f"{' '.join(words)}\n{done.stdout[-3000:]}\n{done.stderr[-6000:]}"
    return done


def train(
    workdir: Path, cache: Path, *arguments: object, recipe: str = "spiritlm_7b", check: bool = True
) -> subprocess.CompletedProcess:
    """A run of configs/RECIPE.py:tiny, smaller still."""
    given = [f"--config=configs/{recipe}.py:tiny", f"--workdir={workdir}", f"--config.data.cache={cache}", *SMALL]
    return run("train.py", *given, *arguments, check=check)


def together(count: int) -> list[dict[str, str]]:
    """The environments of `count` processes of one run on this host's CPU."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    common = dict(JAX_PLATFORMS="cpu", JAX_COORDINATOR_ADDRESS=address, JAX_NUM_PROCESSES=str(count))
    return [os.environ | common | dict(JAX_PROCESS_ID=str(index)) for index in range(count)]
