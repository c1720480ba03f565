import argparse
import json

import pytest

from jaxslm.data.report import Report
from jaxslm.evaluation.auto_bleu import auto_bleu
from jaxslm.evaluation.normalizers import normalizer
from jaxslm.evaluation.spoken_qa import judge, read_questions
from jaxslm.suites import qa

pytest.importorskip("whisper_normalizer", reason="pip install 'jaxslm[evaluate]'")


def test_matching():
    normalize = normalizer("whisper-english")
    assert judge("Paris.", ["paris"], normalize) == dict(exact=True, contains=True)
    assert judge("It's Paris, of course", ["paris"], normalize) == dict(exact=False, contains=True)
    assert judge("Parisian", ["paris"], normalize) == dict(exact=False, contains=False)
    assert judge("twenty one", ["21"], normalize) == dict(exact=True, contains=True)
    assert judge("", ["...", "yes"], normalize) == dict(exact=False, contains=False)


def lines(tmp_path, *rows) -> Report:
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path / "q.jsonl"


def test_files_of_the_evalkit(tmp_path):
    (tmp_path / "a.wav").write_bytes(b"")
    (tmp_path / "sub").mkdir()
    path = lines(
        tmp_path,
        dict(index=3, audio_path="a.wav", question="Who?", answer='["Tom", "Thomas"]', subset="trivia_qa"),
        dict(index=4, answer=["Ben", 7], prediction="Ben"),
        dict(index=3, answer="again"),
        dict(index=5, answer=""),
        dict(index=6, answer="x", audio_path="/etc/passwd"),
        dict(index=7, answer="x", audio_path="b.wav"),
        dict(index=8, answer="x", prediction=["x"]),
    )
    report = Report(log=False)
    first, second = read_questions(path, report)
    assert (first.id, first.answers, first.subset, first.audio) == (
        "3",
        ("Tom", "Thomas"),
        "trivia_qa",
        tmp_path / "a.wav",
    )
    assert (second.answers, second.prediction, second.audio) == (("Ben", "7"), "Ben", None)
    causes = [e["cause"] for e in report.entries]
    assert causes[0] == "the index '3' is that of an earlier line" and causes[1] == "no answer"
    assert "lies outside" in causes[2] and causes[3].startswith("no file 'b.wav'") and "prediction is" in causes[4]


def flags(*words):
    parser = argparse.ArgumentParser()
    qa.add_arguments(parser)
    return parser.parse_args(list(map(str, words)))


def test_predictions_are_scored_by_subset(tmp_path):
    rows = [dict(index=i, answer=a, prediction=p, subset=s) for i, (a, p, s) in enumerate(
        [("Tom", "tom", "a"), ("Ben", "I think Ben did", "a"), ("Sara", "Anna", "b"), ("Sara", None, "b")]
    )]  # fmt: skip
    said = qa.run(flags(f"--questions={lines(tmp_path, *rows)}", f"--out={tmp_path / 'out'}"))
    whole = json.loads((tmp_path / "out" / "qa.json").read_text())
    assert whole["accuracy"]["all"] == dict(questions=3, exact=1 / 3, contains=2 / 3) and whole["without"] == 1
    assert whole["accuracy"]["a"] == dict(questions=2, exact=0.5, contains=1.0)
    assert whole["judge"] == "match" and whole["normalizer"] == "whisper-english" and "contains" in said


def test_questions_without_predictions_need_a_model(tmp_path):
    with pytest.raises(ValueError, match="none of 1 questions has prediction"):
        qa.run(flags(f"--questions={lines(tmp_path, dict(answer='x'))}", f"--out={tmp_path / 'out'}"))


def test_auto_bleu_by_hand():
    assert auto_bleu("a b a b c".split()) == 2 / 4  # ab, ba, ab, bc
    assert auto_bleu("a a a".split()) == 1.0
    assert auto_bleu(["a"]) == 0.0
    assert auto_bleu("a b c a b c".split(), n=3) == 2 / 4
