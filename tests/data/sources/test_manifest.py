import json

import numpy as np
import pytest

from jaxslm.data.report import Report
from jaxslm.data.sources.manifest import read
from jaxslm.units.alignment import Word


@pytest.fixture
def corpus(tmp_path):
    """A folder with files that need only exist, and a secret beside it."""
    (tmp_path / "corpus" / "audio").mkdir(parents=True)
    (tmp_path / "corpus" / "audio" / "a.b.flac").write_bytes(b"x")
    (tmp_path / "secret.flac").write_bytes(b"x")
    (tmp_path / "corpus" / "audio" / "link.flac").symlink_to(tmp_path / "secret.flac")
    return tmp_path / "corpus"


def read_lines(corpus, *lines, **spec):
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    (corpus / "manifest.jsonl").write_text(text + "\n")
    report = Report()
    return list(read(dict(path=corpus, **spec), report)), report


AUDIO = {"audio_filepath": "audio/a.b.flac", "text": "Hello there"}


def test_all_fields(corpus):
    line = AUDIO | dict(
        id=7,
        speaker="s",
        lang="de",
        split="dev",
        duration=1.0,
        words=[["Hello", 0, 0.5], {"word": "there", "start": 0.5, "end": 1}],
    )
    (raw,), report = read_lines(corpus, line)
    assert (raw.id, raw.text, raw.speaker, raw.language, raw.split) == ("7", "Hello there", "s", "de", "heldout")
    assert raw.where == f"{corpus / 'manifest.jsonl'}:1"
    assert raw.audio.read_bytes() == b"x"
    assert raw.words == (Word("Hello", 0.0, 0.5), Word("there", 0.5, 1.0))
    assert not report.entries


def test_word_times_may_lie_in_a_file_of_another_folder(corpus):
    (corpus / "all.ctm").write_text("a 1 0 0.5 hello\na 1 0.5 0.5 there\n")
    (raw,), report = read_lines(corpus, AUDIO | {"id": "a", "alignment_filepath": "all.ctm"})
    assert raw.alignment == (corpus / "all.ctm").resolve() and not report.entries


def test_defaults(corpus):
    (raw,), _ = read_lines(corpus, AUDIO, language="en", heldout=0.0)
    assert (raw.id, raw.words, raw.units, raw.language, raw.split) == ("audio/a.b", None, None, "en", "train")
    (raw,), _ = read_lines(corpus, AUDIO, heldout=1.0)
    assert raw.split == "heldout"


def test_ids_and_splits_stay_when_the_corpus_moves(corpus):
    lines = [
        AUDIO,
        dict(text="x", units=[1], frame_rate=50),
        {"audio_filepath": str(corpus / "audio" / "a.b.flac"), "text": "x"},
    ]
    raws, _ = read_lines(corpus, *lines, heldout=0.5)
    assert [raw.id for raw in raws] == ["audio/a.b", "manifest.jsonl:2", "manifest.jsonl:3"]
    moved = corpus.rename(corpus.parent / "moved")
    lines[2]["audio_filepath"] = str(moved / "audio" / "a.b.flac")
    again, _ = read_lines(moved, *lines, heldout=0.5)
    assert [(raw.id, raw.split) for raw in again] == [(raw.id, raw.split) for raw in raws]


def test_units(corpus):
    lines = [
        AUDIO | dict(id="a", units=[3, 1, 3], durations=[2, 1, 4], frame_rate=25),
        dict(id="b", text="", units="3 3 1", frame_rate=25),
    ]
    (a, b), report = read_lines(corpus, *lines)
    assert a.units.ids.tolist() == [3, 1, 3] and a.units.durations.tolist() == [2, 1, 4] and a.units.frame_rate == 25
    assert b.audio is None and b.units.ids.tolist() == [3, 1] and b.units.durations.tolist() == [2, 1]
    (raw,), _ = read_lines(corpus, dict(id="c", text="x", units=[1]), frame_rate=12.5)
    assert raw.units.frame_rate == 12.5 and raw.units.ids.dtype == np.int32
    assert not report.entries


BAD_LINES = {
    "not JSON": '{"audio_filepath": "audio/a.b.flac", "text": "cut off',
    "not UTF-8": None,
    "a JSON list": "[1, 2]",
    "no field 'text'": {"audio_filepath": "audio/a.b.flac"},
    "no field 'audio_filepath'": {"text": "x"},
    "'text' holds a int": {"audio_filepath": "audio/a.b.flac", "text": 5},
    "'audio_filepath' holds a list": {"audio_filepath": ["audio/a.b.flac"], "text": "x"},
    "no file 'audio/none.flac'": {"audio_filepath": "audio/none.flac", "text": "x"},
    "no file 'audio'": {"audio_filepath": "audio", "text": "x"},
    "'../secret.flac' lies outside": {"audio_filepath": "../secret.flac", "text": "x"},
    "'audio/link.flac' lies outside": {"audio_filepath": "audio/link.flac", "text": "x"},
    "'/etc/hostname' lies outside": {"audio_filepath": "/etc/hostname", "text": "x"},
    "cannot be a file": {"audio_filepath": "a" * 5000, "text": "x"},
    "unknown split 'holdout'": AUDIO | {"split": "holdout"},
    "'offset' marks a segment": AUDIO | {"offset": 3.5},
    "half a UTF-16": '{"audio_filepath": "audio/a.b.flac", "text": "\\ud800 x"}',
}


@pytest.mark.parametrize("cause", BAD_LINES)
def test_bad_line_is_reported_with_file_line_and_cure_and_the_rest_is_used(corpus, cause):
    path = corpus / "manifest.jsonl"
    bad = BAD_LINES[cause]
    data = b'{"text": "\xff"}' if bad is None else (bad if isinstance(bad, str) else json.dumps(bad)).encode()
    good = json.dumps(AUDIO).encode()
    path.write_bytes(good + b"\n\n" + data + b"\n" + good)
    report = Report()
    assert len(list(read(dict(path=path), report))) == 2
    (entry,) = report.entries
    assert cause in entry["cause"] and entry["where"] == f"{path}:3" and entry["cure"] and entry["what"] == "utterance"


@pytest.mark.parametrize(
    "what, fields, cause",
    [
        ("word times", {"words": [["Hello", 0, 0.5], ["there", 0.5]]}, "item 2 of 'words'"),
        ("word times", {"words": [["Hello", 0, float("nan")]]}, "item 1 of 'words'"),
        ("word times", {"words": "Hello there"}, "'words' holds a str"),
        ("word times", {"alignment_filepath": "mfa/a.TextGrid"}, "no file 'mfa/a.TextGrid'"),
        ("word times", {"alignment_filepath": "../secret.flac"}, "lies outside"),
        ("word times", {"alignment_filepath": "audio/a.b.flac"}, "'a.b.flac' holds no word times"),
        ("units", {"units": [1, 2]}, "without a frame rate"),
        ("units", {"units": [1, 2], "durations": [1], "frame_rate": 50}, "2 units but 1 durations"),
        ("units", {"units": [1, -2], "frame_rate": 50}, "'units' is not a list of whole numbers"),
        ("units", {"units": [1, 2.5], "frame_rate": 50}, "'units' is not a list of whole numbers"),
        ("units", {"units": [], "frame_rate": 50}, "'units' is not a list of whole numbers"),
        (
            "units",
            {"units": [1], "durations": [0], "frame_rate": 50},
            "'durations' is not a list of whole numbers from 1",
        ),
        ("units", {"units": "1 x", "frame_rate": 50}, "'units' is not a list of whole numbers"),
    ],
)
def test_bad_part_costs_only_that_part(corpus, what, fields, cause):
    (raw,), report = read_lines(corpus, AUDIO | fields)
    assert raw.words is None and raw.units is None and raw.audio
    (entry,) = report.entries
    assert cause in entry["cause"] and entry["what"] == what and entry["cure"] and entry["where"].endswith(":1")


def test_audio_root_allows_another_folder(corpus):
    spec = dict(audio_root=corpus.parent)
    lines = [
        {"audio_filepath": name, "text": "x"}
        for name in ("secret.flac", str(corpus.parent / "secret.flac"), "/etc/hostname")
    ]
    raws, report = read_lines(corpus, *lines, **spec)
    assert [raw.audio for raw in raws] == [(corpus.parent / "secret.flac").resolve()] * 2
    assert report.count() == 1


def test_missing_manifest(tmp_path):
    with pytest.raises(ValueError, match="no such manifest"):
        list(read(dict(path=tmp_path / "m.jsonl"), Report()))
