import argparse
import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from jaxslm.audio.io import read_audio, write_wav
from jaxslm.data.report import Report
from jaxslm.evaluation.auto_bleu import auto_bleu
from jaxslm.evaluation.normalizers import normalizer
from jaxslm.evaluation.spoken_qa import judge, read_questions
from jaxslm.generation.chain import Chain
from jaxslm.generation.speech_text import Response
from jaxslm.suites import qa
from tests.suites.toys import VOCABULARY, Beeps, tiny_language

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


def test_several_accepted_answers(tmp_path):
    values = ["['a', \"b's\"]", '["c"]', "Dom; John Fox", float("nan"), ["d;e"], "[sic] no list"]
    path = lines(tmp_path, *(dict(index=i, answer=value, prediction="") for i, value in enumerate(values)))
    report = Report(log=False)
    found = {q.id: q.answers for q in read_questions(path, report, separator=";")}
    assert found == {"0": ("a", "b's"), "1": ("c",), "2": ("Dom", "John Fox"), "4": ("d;e",), "5": ("[sic] no list",)}
    assert [e["cause"] for e in report.entries] == ["no answer"]
    assert [q.answers for q in read_questions(path, report)][2] == ("Dom; John Fox",)


@pytest.mark.parametrize("name", ["a\0.wav", "a" * 300, "circle/a.wav"])
def test_a_name_that_no_file_can_have_costs_its_own_question(tmp_path, name):
    (tmp_path / "circle").symlink_to("circle")
    path = lines(tmp_path, dict(index=0, answer="x", audio_path=name), dict(index=1, answer="y", prediction="y"))
    report = Report(log=False)
    assert [q.id for q in read_questions(path, report)] == ["1"]
    (entry,) = report.entries
    assert f"'{name[:80]}" in entry["cause"] and "q.jsonl:1" in entry["where"]


def test_a_file_in_another_encoding(tmp_path):
    path, report = lines(tmp_path, dict(index=0, answer="x")), Report(log=False)
    path.write_text(path.read_text(), encoding="utf-16")
    with pytest.raises(ValueError, match="UTF-16.*not UTF-8"):
        list(read_questions(path, report))


def test_files_of_the_evalkit(tmp_path):
    (tmp_path / "a.wav").write_bytes(b"")
    (tmp_path / "sub").mkdir()
    path = lines(
        tmp_path,
        dict(index=3, audio_path=["a.wav"], question="Who?", answer='["Tom", "Thomas"]', subset="trivia_qa"),
        dict(index=4, answer=["Ben", 7], prediction="Ben"),
        dict(index=3, answer="again"),
        dict(index=5, answer=""),
        dict(index=6, answer="x", audio_path="/etc/passwd"),
        dict(index=7, answer="x", audio_path="b.wav"),
        dict(index=8, answer="x", prediction=["x"]),
        dict(index=9, answer="x", audio_path=["a.wav", "a.wav"]),
    )
    report = Report(log=False)
    first, second = read_questions(path, report, separator=";")
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
    assert causes[5] == "audio_path is ['a.wav', 'a.wav']"


def flags(*words):
    parser = argparse.ArgumentParser()
    qa.add_arguments(parser)
    return parser.parse_args(list(map(str, words)))


def test_predictions_are_scored_by_subset(tmp_path):
    rows = [dict(index=i, answer=a, prediction=p, subset=s) for i, (a, p, s) in enumerate(
        [("[Tom, Ben]", "tom", "a"),
         ("Tom", "tom", "a"), ("Ben", "I think Ben did", "a"), ("Sara", "Anna", "b"), ("Sara", None, "b")]
    )]  # fmt: skip
    said = qa.run(flags(f"--questions={lines(tmp_path, *rows)}", f"--out={tmp_path / 'out'}"))
    whole = json.loads((tmp_path / "out" / "qa.json").read_text())
    assert whole["accuracy"]["all"] == dict(questions=3, exact=1 / 3, contains=2 / 3) and whole["without"] == 2
    assert "nothing is left of the answer '[Tom, Ben]' once normalized" in said
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


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """(a file of two questions of which one has a broken recording, a chain whose answers are given below)."""
    write_wav(tmp_path / "a.wav", 0.1 * np.random.default_rng(0).normal(size=16_000).astype(np.float32), 16_000)
    (tmp_path / "b.wav").write_bytes(b"no sound")
    rows = [dict(index=i, answer="tom", audio_path=f"{name}.wav") for i, name in enumerate("ba")]
    chain = Chain(tiny_language(), Beeps())
    monkeypatch.setattr(qa, "open_named", lambda *_, **__: chain)
    return lines(tmp_path, *rows), chain


def test_a_model_writes_answers(asked, tmp_path, monkeypatch):
    path, chain = asked
    prompts = []

    def complete(model, vocabulary, tokenizer, given, *, to, sampling, key):
        prompts.extend(given)
        assert to == "text" and sampling.temperature == 0
        return [SimpleNamespace(text="Tom.") for _ in given]

    monkeypatch.setattr(qa, "complete", complete)
    said = qa.run(flags(f"--questions={path}", f"--out={tmp_path / 'out'}", "--workdir=w"))
    whole = json.loads((tmp_path / "out" / "qa.json").read_text())
    assert whole["accuracy"]["all"] == dict(questions=1, exact=1.0, contains=1.0) and whole["without"] == 1
    assert whole["decoding"]["temperature"] == 0 and whole["ceiling"] is None and whole["no_ceiling"]
    units = (
        chain.inventory.encode(read_audio(tmp_path / "a.wav", where="a").heard).ids + VOCABULARY.block("units").first
    )
    assert prompts == [(1, VOCABULARY.id("[Speech]"), *units.tolist(), VOCABULARY.id("[Text]"))]
    assert "1 x question left out" in said and "b.wav" in said


def test_spoken_answers_are_heard_and_old_ones_forgotten(asked, tmp_path, monkeypatch):
    path, chain = asked
    stale = tmp_path / "out" / "qa" / "0000.wav"
    stale.parent.mkdir(parents=True)
    stale.touch()
    judge = f"'{sys.executable}' -c 'print(\"It is Tom\")' {{wav}}"
    words = [f"--questions={path}", f"--out={tmp_path / 'out'}", "--workdir=w", "--to=speech"]
    with pytest.raises(ValueError, match="need a judge that hears them"):
        qa.run(flags(*words))
    for units, contains in (((3, 4), 1.0), ((), 0.0)):  # one that says nothing is not heard
        response = Response((1,), units, True, units=units)
        monkeypatch.setattr(chain, "_responses", lambda *_, response=response: [response])
        qa.run(flags(*words, f"--asr={judge}"))
        whole = json.loads((tmp_path / "out" / "qa.json").read_text())
        assert whole["accuracy"]["all"] == dict(questions=1, exact=0.0, contains=contains)
        assert not stale.exists() and (stale.parent / "0001.wav").exists() == bool(units)
    assert whole["judge"] == f"match, after {judge}"
