import json

import pytest

from jaxslm.data.report import Report
from jaxslm.evaluation.suites import SUITES, read_suite
from tests.evaluation.suites.recordings import record


@pytest.fixture
def own(tmp_path):
    path = tmp_path / "own.jsonl"
    path.write_text("".join(json.dumps({"positive": str(i), "negative": "x"}) + "\n" for i in range(5)))
    return path


def test_the_first_choices(own):
    assert len(read_suite(dict(kind="jsonl", path=own), Report())) == 5
    assert [c.id for c in read_suite(dict(kind="jsonl", path=own, limit=2), Report())] == ["own.jsonl:1", "own.jsonl:2"]
    assert len(read_suite(dict(kind="jsonl", path=str(own), limit=None), Report())) == 5


def test_words_and_sentences_are_read_by_their_kind(tmp_path):
    record(tmp_path, "0_a", "1_a", "0+b", "1+b")
    assert list(SUITES) == ["swuggy", "sblimp", "storycloze", "salmon", "jsonl"]
    for kind, name in (("swuggy", "0_a.wav"), ("sblimp", "0+b.wav"), ("storycloze", "0_a.wav")):
        (choice,) = read_suite(dict(kind=kind, path=tmp_path), Report())
        assert choice.options[0][0].audio[0].name == name


def test_options_reach_their_reader(tmp_path):
    record(tmp_path / "bg_alignment", "sample_0_0", "sample_0_1")
    record(tmp_path / "rir_consistency", "sample_0_0", "sample_0_1")
    spec = dict(kind="salmon", path=tmp_path, parts=["rir_consistency"])
    assert [c.id for c in read_suite(spec, Report())] == ["rir_consistency/0"]


@pytest.mark.parametrize(
    "change, cause",
    [
        (dict(kind="swugy"), "unknown kind of suite 'swugy': .* Did you mean swuggy"),
        (dict(kind=None), "unknown kind of suite None"),
        (dict(limits=3), "'jsonl' has no 'limits': it has kind, path, limit. Did you mean limit"),
        (dict(split="dev"), "'jsonl' has no 'split'"),
        (dict(path=""), "needs a path"),
        (dict(limit=0), "limit=0 of suite 'jsonl'"),
        (dict(limit=1.5), "limit=1.5 of suite 'jsonl'"),
        (dict(limit=True), "limit=True of suite 'jsonl'"),
    ],
)
def test_a_wrong_spec_is_refused(own, change, cause):
    with pytest.raises(ValueError, match=cause):
        read_suite(dict(kind="jsonl", path=own) | change, Report())


def test_a_suite_of_which_nothing_is_left_is_refused(own):
    own.write_text('{"positive": "a"}\n')
    with pytest.raises(
        ValueError, match="no choice of suite 'jsonl' can be used; 1 x choice left out: positive without"
    ):
        read_suite(dict(kind="jsonl", path=own), Report())
