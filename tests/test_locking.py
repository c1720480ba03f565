import os
import subprocess
import sys

import pytest

from jaxslm.locking import held, whole_folder

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


def test_a_folder_is_there_whole_or_not_at_all(tmp_path):
    folder = tmp_path / "made" / "folder"
    with pytest.raises(KeyError), whole_folder(folder) as new:
        (new / "a").write_text("half")
        raise KeyError
    assert list(folder.parent.iterdir()) == []
    with whole_folder(folder) as new:
        (new / "a").write_text("first")
        assert not folder.exists()
    with whole_folder(folder) as new:
        (new / "a").write_text("second")
    assert (folder / "a").read_text() == "first" and list(folder.parent.iterdir()) == [folder]


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(OSError), whole_folder(tmp_path / "taken") as new:
        (new / "a").write_text("")
    assert (tmp_path / "taken").read_text() == "a file" and len(list(tmp_path.iterdir())) == 1
