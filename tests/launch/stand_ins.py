"""Programs of clusters, played by shell scripts that write down how they were called."""

import os
import shlex
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ARGUMENTS = [
    "--config=configs/spiritlm_7b.py:tiny",
    "--workdir=/mnt/run/a b",
    "--config.x={'a': (1, 2)}",
    '--y=$HOME "q" #',
]
HEAD = """#!/bin/bash
printf '%s\\0' "$(basename "$0")" "$@" $'\\n' >>"$CALLS"
"""
needs_git = pytest.mark.skipif(
    subprocess.run(["git", "-C", str(ROOT), "ls-files"], capture_output=True).returncode != 0,
    reason="launch/tpu_pod.sh copies what git lists, and this is no git checkout",
)


class StandIns:
    """`folder` comes first on the PATH of whatever is `launch`ed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bin = folder / "bin"
        self.bin.mkdir()
        self.environment = os.environ | {"PATH": f"{self.bin}:{os.environ['PATH']}", "CALLS": str(folder / "calls")}
        for name in ("DRY_RUN", "XLA_FLAGS", "LIBTPU_INIT_ARGS", "PYTHON", "SLURM_JOB_ID"):
            self.environment.pop(name, None)

    def add(self, name: str, script: str = "") -> None:
        (self.bin / name).write_text(HEAD + script)
        (self.bin / name).chmod(0o755)

    def launch(self, script: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
        """`bash launch/SCRIPT ARGUMENTS` in another folder than the repository."""
        return subprocess.run(
            ["bash", str(ROOT / "launch" / script), *arguments],
            cwd=self.folder, env=self.environment | environment, capture_output=True, text=True, timeout=60,
        )  # fmt: skip

    def calls(self) -> list[list[str]]:
        """Each call's words, the program's name first."""
        path = self.folder / "calls"
        text = path.read_text() if path.exists() else ""
        return [call.split("\0")[:-1] for call in text.split("\n\0")[:-1]]


def commands(output: str) -> list[list[str]]:
    """The lines of a dry run as a shell would split them."""
    return [shlex.split(line) for line in output.splitlines() if not line.startswith("#")]
