import os
import subprocess
import sys

from jaxslm.locking import held

HOLD = """
import sys, time
from pathlib import Path
from jaxslm.locking import held
with held(Path(sys.argv[1])) as mine:
    print(mine, flush=True)
    sys.stdin.read()
"""


def test_a_folder_is_held_by_one_process_until_it_ends(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    ) as other:
        assert other.stdout.readline() == "True\n"
        with held(tmp_path) as mine:
            assert not mine
        other.kill()
    with held(tmp_path) as mine:
        assert mine
        with held(tmp_path) as twice:
            assert not twice
    with held(tmp_path) as again:
        assert again


def test_a_folder_that_is_not_there_cannot_be_held(tmp_path):
    with held(tmp_path / "gone") as mine:
        assert not mine
