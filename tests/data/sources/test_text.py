import json

import pytest

from jaxslm.data.report import Report
from jaxslm.data.sources.manifest import read as read_manifest
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


@pytest.mark.parametrize("path", ["m.jsonl", "."])
def test_lines_are_held_out_as_the_manifest_source_holds_them_out(tmp_path, path):
    fields = [dict(id=f"u{i}") if i % 2 else {} for i in range(100)]
    for i, line in enumerate(fields):
        line |= dict(text=f"line {i}", units=[1], frame_rate=50)
        if i % 10 < 2:
            line["split"] = "test" if i % 10 else "train"
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in fields))
    spoken = read_manifest(dict(path=tmp_path / "sub" / "m.jsonl", heldout=0.3), Report())
    written = list(read(dict(path=tmp_path if path == "." else tmp_path / "sub" / path, heldout=0.3), Report()))
    heldout = {raw.text for raw in spoken if raw.split == "heldout"}
    assert {raw.text for raw in written if raw.split == "heldout"} == heldout and len(written) == 100
    assert 20 < len(heldout) < 60 and {f"line {i}" for i in range(1, 100, 10)} <= heldout
    assert len({raw.id for raw in written}) == 100


def test_unknown_split_is_reported(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "x", "split": "holdout"}\n{"text": "y", "audio_filepath": "."}\n')
    report = Report()
    assert [raw.text for raw in read(dict(path=tmp_path), report)] == ["y"]
    (entry,) = report.entries
    assert "unknown split 'holdout'" in entry["cause"] and entry["cure"] and entry["what"] == "document"


def test_no_such_path(tmp_path):
    with pytest.raises(ValueError, match="no text there"):
        list(read(dict(path=tmp_path / "none"), Report()))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32"])
def test_a_file_in_another_encoding_is_refused(tmp_path, encoding):
    (tmp_path / "a.txt").write_text("A line.\nAnother one.\n", encoding=encoding)
    with pytest.raises(ValueError, match="a.txt is UTF-.*not UTF-8; save the file as UTF-8"):
        list(read(dict(path=tmp_path / "a.txt"), Report()))
    (tmp_path / "b.txt").write_text("A good one.\n")
    report = Report()
    assert [raw.text for raw in read(dict(path=tmp_path), report)] == ["A good one."]
    (entry,) = report.entries
    assert entry["where"].endswith("a.txt") and "not UTF-8" in entry["cause"] and entry["what"] == "file"
