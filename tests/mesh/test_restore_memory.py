"""A state in shards over four processes is restored by each process reading its own shards: no host sees the rest."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.end_to_end.commands import ROOT, together

PROCESSES, MEGABYTES = 4, 100  # of parameters; with the moments of Adam the state is three times as large


def run(what: str, folder: Path) -> list[dict]:
    command = [sys.executable, "-m", "tests.mesh.run_restore", what, str(folder), str(MEGABYTES)]
    started = [
        subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for environment in together(PROCESSES)
    ]
    said = [process.communicate(timeout=300) for process in started]
    assert [process.returncode for process in started] == [0] * PROCESSES, "\n".join(err[-2000:] for _, err in said)
    return [json.loads(out.splitlines()[-1]) for out, _ in said if what == "read"]


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux tells the peak of a process's memory")
def test_no_process_reads_or_holds_more_than_its_shards(tmp_path):
    run("write", tmp_path)
    for found in run("read", tmp_path):
        assert found["whole"] > 2.9 * MEGABYTES * 2**20
        assert found["here"] < 1.01 * found["whole"] / PROCESSES
        assert found["read"] < found["here"] + 2**20  # with Orbax's notes
        # The devices are CPUs, so the shards themselves are in this, and once more as buffers they are copied from.
        assert found["grown"] < 2.5 * found["here"]
