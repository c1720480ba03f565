import subprocess
import sys

import pytest

from jaxslm.benchmarks.units import run

ABSENT = ("grain", "array_record", "librosa", "soundfile", "soxr", "matplotlib", "tqdm")


def test_both_sides_give_the_same_units():
    for package in ("torch", "transformers", "sklearn"):
        pytest.importorskip(package)
    options = "--small --layers 1 --clips 2 --seconds 1 --clusters 20 --rounds 1".split()
    result = run(options)
    assert result["details"]["layer 1"]["equal_units"] == 1
    assert set(result["details"]["ratios"]) == {"peer, layer 1", "peer cut, layer 1"}
    assert result["ratio"] == pytest.approx(result["details"]["ratios"]["peer, layer 1"])


def test_what_only_reading_data_needs_may_be_absent():
    absent = f"import sys; sys.modules.update(dict.fromkeys({ABSENT}))"
    command = f"{absent}; import jaxslm.benchmarks.units"
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
