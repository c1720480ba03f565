import json

import pytest

from jaxslm.evaluation.stsp import preservation
from jaxslm.suites import stsp


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_emotions_count_as_their_sentiments(tmp_path):
    references = [dict(id=1, emotion="happy"), dict(id="2", emotion="sad"), dict(id=3, sentiment="neutral")]
    references += [dict(id=4, emotion="angry", sentiment="negative"), dict(id=5, emotion="amused")]
    predictions = [(5, "positive"), (1, "amused"), (2, "positive"), (3, "default"), ("4", "negative")]
    files = [
        write(tmp_path / "ref", references),
        write(tmp_path / "pred", [dict(id=i, pred=p) for i, p in predictions]),
    ]
    found = preservation(*files)
    assert found.accuracy == 4 / 5 and found.by_sentiment == dict(positive=1.0, negative=0.5, neutral=1.0)
    assert found.confusion["negative->positive"] == 1


@pytest.mark.parametrize(
    "references, predictions, message",
    [
        ([dict(id=1, emotion="sad")], [dict(id=2, pred="sad")], "pred has no line for 1 ids .* such as '1'"),
        ([dict(id=1, emotion="sad")], [dict(id=1, pred="sad"), dict(id=2, pred="sad")], "ref has no line for 1 ids"),
        ([dict(id=1, emotion="sad")] * 2, [dict(id=1, pred="sad")], "line 2: the id '1' is that of an earlier line"),
        ([dict(id=1, emotion="bored")], [dict(id=1, pred="sad")], "line 1: the label 'bored' is not one of positive"),
        ([dict(id=1, emotion="sad")], [dict(id=1, pred=3)], "the label 3 is not one of"),
        ([dict(id=1)], [dict(id=1, pred="sad")], "line 1 is no"),
        ([], [dict(id=1, pred="sad")], "ref has no lines"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, references, predictions, message):
    with pytest.raises(ValueError, match=message):
        preservation(write(tmp_path / "ref", references), write(tmp_path / "pred", predictions))


def test_another_encoding_is_named(tmp_path):
    (tmp_path / "ref").write_bytes('{"id": 1, "emotion": "glücklich"}'.encode("latin-1"))
    with pytest.raises(ValueError, match="ref is no UTF-8"):
        preservation(tmp_path / "ref", tmp_path / "ref")


def test_the_table_has_judge_and_ceiling(tmp_path):
    import argparse

    files = [write(tmp_path / "r", [dict(id=1, emotion="sad")]), write(tmp_path / "p", [dict(id=1, pred="sad")])]
    parser = argparse.ArgumentParser()
    stsp.add_arguments(parser)
    both = ["--direction", "S-T", *map(str, files), "--direction", "T-T", *map(str, files)]
    said = stsp.run(parser.parse_args([*both, "--judge=wav2vec2-base", f"--out={tmp_path}"]))
    assert "S-T: accuracy 1.000 of 1" in said and "T-T: accuracy" in said
    whole = json.loads((tmp_path / "stsp.json").read_text())
    assert whole["judge"] == "wav2vec2-base" and whole["directions"]["T-T"]["accuracy"] == 1.0
    assert whole["ceiling"] is None and whole["no_ceiling"]
    with pytest.raises(ValueError, match="two of --direction are called 'S-T'"):
        stsp.run(parser.parse_args([*both[:4], *both[:4], f"--out={tmp_path}"]))
