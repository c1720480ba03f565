import pytest

from jaxslm.data.report import Report
from jaxslm.data.sources.ljspeech import read


def test_layout_and_report(tmp_path):
    (tmp_path / "wavs").mkdir()
    for name in ("LJ001-0001", "LJ001-0002"):
        (tmp_path / "wavs" / f"{name}.wav").write_bytes(b"x")
    (tmp_path / "out.wav").write_bytes(b"x")
    (tmp_path / "metadata.csv").write_text(
        'LJ001-0001|Printed in 1455, "so" they say|Printed in fourteen fifty-five, "so" they say\n'
        "LJ001-0002|only one|\n"
        "LJ001-0003|a lost file|a lost file\n"
        "LJ001-0001\n"
        "../out|outside|outside\n"
    )
    report = Report()
    raws = list(read(dict(path=tmp_path, heldout=0.0), report))
    assert [(raw.id, raw.text, raw.speaker, raw.language, raw.split) for raw in raws] == [
        ("LJ001-0001", 'Printed in fourteen fifty-five, "so" they say', "LJ", "en", "train"),
        ("LJ001-0002", "only one", "LJ", "en", "train"),
    ]
    assert [entry["where"].rsplit(":", 1)[1] for entry in report.entries] == ["3", "4", "5"]


def test_nothing_there(tmp_path):
    with pytest.raises(ValueError, match="metadata.csv"):
        list(read(dict(path=tmp_path), Report()))
