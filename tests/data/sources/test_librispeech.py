import pytest

from jaxslm.data.report import Report
from jaxslm.data.sources.librispeech import read


@pytest.fixture
def corpus(tmp_path):
    for subset, speaker, chapter in (("train-clean-100", "19", "198"), ("dev-clean", "84", "121")):
        folder = tmp_path / "LibriSpeech" / subset / speaker / chapter
        folder.mkdir(parents=True)
        for number in range(3):
            (folder / f"{speaker}-{chapter}-{number:04d}.flac").write_bytes(b"x")
        lines = "".join(f"{speaker}-{chapter}-{number:04d} WORD NUMBER {number}\n" for number in range(2))
        (folder / f"{speaker}-{chapter}.trans.txt").write_text(lines + f"{speaker}-{chapter}-0009 LOST\n")
    return tmp_path / "LibriSpeech"


def test_layout_and_report(corpus):
    report = Report()
    raws = list(read(dict(path=corpus), report))
    assert [(raw.id, raw.text, raw.speaker, raw.split) for raw in raws] == [
        ("84-121-0000", "WORD NUMBER 0", "84", "heldout"),
        ("84-121-0001", "WORD NUMBER 1", "84", "heldout"),
        ("19-198-0000", "WORD NUMBER 0", "19", "train"),
        ("19-198-0001", "WORD NUMBER 1", "19", "train"),
    ]
    assert raws[0].audio.name == "84-121-0000.flac" and raws[0].language == "en"
    causes = [entry["cause"] for entry in report.entries]
    assert causes[:2] == ["no audio file '84-121-0009' beside the transcript", "no line for it in '84-121.trans.txt'"]
    assert report.entries[0]["where"].endswith("84-121.trans.txt:3") and len(causes) == 4


def test_one_subset_by_path_or_name(corpus):
    one = list(read(dict(path=corpus / "train-clean-100", heldout=1.0), Report()))
    assert [raw.split for raw in one] == ["heldout"] * 2
    assert [raw.id for raw in read(dict(path=corpus, subsets=["train-clean-100"], heldout=1.0), Report())] == [
        raw.id for raw in one
    ]
    inside = list(read(dict(path=corpus / "dev-clean" / "84" / "121"), Report()))
    assert [raw.split for raw in inside] == ["heldout"] * 2


def test_nothing_there(tmp_path):
    with pytest.raises(ValueError, match="trans.txt"):
        list(read(dict(path=tmp_path), Report()))
