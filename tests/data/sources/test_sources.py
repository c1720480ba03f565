import subprocess
import sys

import pytest

from jaxslm.data.report import Report
from jaxslm.data.sources import read_source, split_of


def test_unknown_kind_names_the_known():
    with pytest.raises(ValueError, match="'manifets'.*manifest, librispeech"):
        read_source(dict(kind="manifets"), Report())


def test_limit_takes_the_first(tmp_path):
    (tmp_path / "a.txt").write_text("one\ntwo\nthree\n")
    raws = read_source(dict(kind="text", path=tmp_path / "a.txt", limit=2), Report())
    assert [raw.text for raw in raws] == ["one", "two"]


def test_split_is_a_fraction_and_a_function_of_the_id_alone():
    splits = [split_of(f"id{i}", 0.1) for i in range(5000)]
    assert 0.085 < splits.count("heldout") / 5000 < 0.115
    assert [split_of(f"id{i}", 0.1) for i in range(100)] == splits[:100]
    assert all(split_of(f"id{i}", 0.2) == "heldout" for i in range(5000) if splits[i] == "heldout")
    assert {split_of(f"id{i}", 0.0) for i in range(100)} == {"train"}


def test_a_kind_imports_only_its_own_module():
    code = (
        "import sys; from jaxslm.data.report import Report; from jaxslm.data.sources import read_source;"
        "read_source(dict(kind='text', path='x'), Report());"
        "print(sorted(m for m in sys.modules if m.startswith('jaxslm.data.sources.')), 'jax' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    modules = [f"jaxslm.data.sources.{name}" for name in ("lines", "manifest", "text")]  # manifest: it decides splits
    assert out.strip() == f"{modules} False"
