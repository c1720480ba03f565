import pytest

from jaxslm.data.report import Report
from jaxslm.data.sources.text import read


def test_documents_of_a_folder(tmp_path):
    (tmp_path / "b.txt").write_bytes("\ufeffA first line.\r\n\n  \nÉté à Paris\n".encode())
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.jsonl").write_text('{"text": "two\\nlines", "other": 1}\n')
    report = Report()
    raws = list(read(dict(path=tmp_path, heldout=0.0, language="fr"), report))
    assert [(raw.id, raw.text) for raw in raws] == [
        ("b.txt:1", "A first line."),
        ("b.txt:4", "Été à Paris"),
        ("sub/a.jsonl:1", "two\nlines"),
    ]
    assert {(raw.audio, raw.language, raw.split) for raw in raws} == {(None, "fr", "train")}
    assert not report.entries


def test_bad_lines_are_reported_and_the_rest_is_used(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"good one\n--- ... !\n\xff\xfe\ngood two\n")
    (tmp_path / "b.jsonl").write_text(
        '{"text": "good three"}\nnot json\n{"txt": "x"}\n{"text": 5}\n[1]\n{"text": "\\ud800"}\n{"text": "?"}\n'
    )
    report = Report()
    assert [raw.text for raw in read(dict(path=tmp_path), report)] == ["good one", "good two", "good three"]
    found = {(entry["where"].split("/")[-1], entry["cause"].split("(")[0].strip()) for entry in report.entries}
    assert found == {
        ("a.txt:2", "no words in the text"),
        ("a.txt:3", "not UTF-8"),
        ("b.jsonl:2", "not JSON"),
        ("b.jsonl:3", "no field 'text' that holds a string"),
        ("b.jsonl:4", "no field 'text' that holds a string"),
        ("b.jsonl:5", "a JSON list, not an object"),
        ("b.jsonl:6", "half a UTF-16 surrogate pair, which is no character"),
        ("b.jsonl:7", "no words in the text"),
    }
    assert all(entry["cure"] and entry["what"] == "document" for entry in report.entries)


def test_no_such_path(tmp_path):
    with pytest.raises(ValueError, match="no text there"):
        list(read(dict(path=tmp_path / "none"), Report()))
