"""Results are whole, or those that were there."""

import json

import pytest

from jaxslm.evaluation.results import write_result


def test_numbers_that_are_none_are_null(tmp_path):
    rows = [dict(id="a", nll=float("inf")), dict(id="b", nll=1.5)]
    write_result(tmp_path / "out", "x", dict(wer=float("nan"), by=[dict(v=float("-inf")), (0.5,)]), rows)
    assert json.loads((tmp_path / "out" / "x.json").read_text()) == dict(wer=None, by=[dict(v=None), [0.5]])
    found = [json.loads(line) for line in (tmp_path / "out" / "x.jsonl").read_text().splitlines()]
    assert found == [dict(id="a", nll=None), dict(id="b", nll=1.5)]


def test_what_cannot_be_written_leaves_the_earlier_result(tmp_path):
    write_result(tmp_path, "x", dict(n=1), [dict(n=1)])
    with pytest.raises(TypeError):
        write_result(tmp_path, "x", dict(n=2), [dict(n=2), dict(n=object())])
    with pytest.raises(TypeError):
        write_result(tmp_path, "x", dict(n=object()))
    assert json.loads((tmp_path / "x.json").read_text()) == dict(n=1)
    assert (tmp_path / "x.jsonl").read_text() == '{"n": 1}\n'
