import json

import pytest

from jaxslm.data.report import Report
from jaxslm.evaluation.choices import Choice, Part
from jaxslm.evaluation.suites.jsonl import read
from tests.evaluation.suites.recordings import causes, record

PAIR = {"positive": "wet", "negative": "dry"}
QUESTION = {"question": "Which is a town?", "choices": ["Rhine", "Rome", "Alps"]}


@pytest.fixture
def suite(tmp_path):
    folder = tmp_path / "mine"
    record(folder, "a", "b")
    record(tmp_path, "secret")
    (folder / "link.wav").symlink_to(tmp_path / "secret.wav")

    def write(*lines, encoding="utf-8"):
        text = "\n".join(line if isinstance(line, str) else json.dumps(line, ensure_ascii=False) for line in lines)
        (folder / "own.jsonl").write_text(text + "\n", encoding=encoding)
        report = Report()
        return list(read(folder / "own.jsonl", report)), report

    write.folder = folder
    return write


def test_options_of_parts(suite):
    line = {
        "id": 7,
        "options": [["It rained. ", {"audio": "a.wav"}], {"audio": ["a.wav", "b.wav"]}, [{"units": [3, 3, 5, 3]}]],
        "answer": 2,
        "context": ["Listen:", {"units": [1]}],
        "item": "rain",
        "tags": {"voice": "A", "year": 2021},
    }
    (choice,), report = suite(line)
    a, b = suite.folder / "a.wav", suite.folder / "b.wav"
    assert choice == Choice(
        id="7",
        options=(
            (Part(text="It rained. "), Part(audio=(a,))),
            (Part(audio=(a, b)),),
            (Part(units=(3, 3, 5, 3)),),
        ),
        answer=2,
        context=(Part(text="Listen:"), Part(units=(1,))),
        item="rain",
        tags={"voice": "A", "year": "2021"},
    )
    assert not report.entries


def test_positive_and_negative(suite):
    choices, report = suite(PAIR, "", {"positive": ["a", "b"], "negative": {"text": "c"}})
    assert choices == [
        Choice("own.jsonl:1", ((Part(text="wet"),), (Part(text="dry"),))),
        Choice("own.jsonl:3", ((Part(text="a"), Part(text="b")), (Part(text="c"),))),
    ]
    assert not report.entries


@pytest.mark.parametrize("answer", [1, "B", "Rome", " Rome "])
def test_multiple_choice(suite, answer):
    (choice,), _ = suite(QUESTION | {"answer": answer, "context": "Geography."})
    assert choice.context == (Part(text="Geography."), Part(text="Question: Which is a town?\nAnswer:"))
    assert choice.options == ((Part(text=" Rhine"),), (Part(text=" Rome"),), (Part(text=" Alps"),))
    assert choice.answer == 1


@pytest.mark.parametrize(
    "line, cause",
    [
        (QUESTION | {"answer": 3}, "the answer is 3"),
        (QUESTION | {"answer": -1}, "the answer is -1"),
        (QUESTION | {"answer": True}, "the answer is True"),
        (QUESTION | {"answer": 1.0}, "the answer is 1.0"),
        (QUESTION | {"answer": "D"}, "the answer 'D' is none of the choices"),
        (QUESTION | {"answer": "b"}, "the answer 'b' is none of the choices"),
        (QUESTION | {"answer": "1"}, "the answer '1' is none of the choices"),  # from 0, or from 1?
        (QUESTION | {"answer": ""}, "the answer '' is none of the choices"),
        ({"question": "?", "choices": ["B", "A"], "answer": "A"}, "the answer 'A' is more than one of the choices"),
        ({"question": "?", "choices": ["x", "x"], "answer": "x"}, "the answer 'x' is more than one of the choices"),
        ({"question": "?", "choices": ["x"], "answer": 0}, "fewer than two options"),
        ({"question": "?", "choices": "xy", "answer": 0}, "fewer than two options"),
        ({"question": "?", "choices": ["x", " "], "answer": 0}, "a text is ' '"),
        ({"question": {"audio": "a.wav"}, "choices": ["x", "y"], "answer": 0}, "a text is {'audio': 'a.wav'}"),
        (QUESTION, "question without answer"),
        ({"options": ["a", "b"]}, "options without answer"),
        ({"options": ["a", "b"], "answer": "a"}, "the answer is 'a'"),
        ({"options": ["a", []], "answer": 0}, "an option or a context without parts"),
        ({"positive": "a"}, "positive without negative"),
        (PAIR | QUESTION, "positive and question in one line."),
        ({"positiv": "a", "negative": "b"}, "no question in one line. Did you mean positive?"),
        ({"positive": {"text": "a", "audio": "a.wav"}, "negative": "b"}, "a part that is not one text, audio or units"),
        ({"positive": None, "negative": "b"}, "a part that is not one text, audio or units"),
        ({"positive": {"unit": [1]}, "negative": "b"}, "a part has no 'unit'. Did you mean units?"),
        ({"positive": {"units": []}, "negative": "b"}, "units are not a list of whole numbers from 0 up"),
        ({"positive": {"units": [1, -1]}, "negative": "b"}, "units are not a list of whole numbers from 0 up"),
        ({"positive": {"units": [1, True]}, "negative": "b"}, "units are not a list of whole numbers from 0 up"),
        ({"positive": {"audio": []}, "negative": "b"}, "audio without a file"),
        ({"positive": {"audio": 3}, "negative": "b"}, "audio is 3"),
        ({"positive": "", "negative": "b"}, "a text is ''"),
        (PAIR | {"id": ["x"]}, "id is ['x']"),
        (PAIR | {"item": None}, "item is None"),
        (PAIR | {"tags": ["x"]}, "tags are not an object of strings"),
        (PAIR | {"tags": {"x": ["y"]}}, "tags are not an object of strings"),
        ("[1, 2]", "a JSON list, not an object"),
        ("{", "not JSON (Expecting property name enclosed in double quotes: line 1 column 2 (char 1))"),
    ],
)
def test_a_bad_line_costs_only_itself(suite, line, cause):
    choices, report = suite(PAIR, line, PAIR)
    assert [choice.id for choice in choices] == ["own.jsonl:1", "own.jsonl:3"]
    assert causes(report) == [("choice", cause)] and report.entries[0]["where"].endswith("own.jsonl:2")


@pytest.mark.parametrize("name", ["../secret.wav", "link.wav", "/etc/hostname", "sub/../../secret.wav"])
def test_audio_stays_in_its_folder(suite, name):
    choices, report = suite({"positive": {"audio": ["a.wav", name]}, "negative": "b"})
    assert not choices and causes(report) == [("choice", f"'{name}' lies outside '{suite.folder}'")]


@pytest.mark.parametrize(
    "name, cause",
    [
        ("c.wav", "no file 'c.wav' in"),
        (".", "no file"),
        ("a\0.wav", "cannot be a file"),
        ("a" * 300, "cannot be a file"),
        ("circle", "circle'"),
    ],
)
def test_audio_that_is_not_there(suite, name, cause):
    (suite.folder / "circle").symlink_to("circle")
    choices, report = suite({"positive": {"audio": name}, "negative": "b"}, PAIR)
    assert len(choices) == 1 and cause in causes(report)[0][1]


def test_ids_are_unique(suite):
    choices, report = suite(PAIR | {"id": "x"}, PAIR | {"id": "x"}, PAIR | {"id": "y"})
    assert [c.id for c in choices] == ["x", "y"]
    assert causes(report) == [("choice", "the id 'x' is that of an earlier line")]


def test_encodings(suite):
    line = {"positive": "naß", "negative": "trocken"}
    assert suite(line, encoding="utf-8-sig")[0][0].options[0] == (Part(text="naß"),)
    choices, report = suite(line, PAIR, encoding="latin-1")
    assert [c.id for c in choices] == ["own.jsonl:2"] and causes(report)[0][1].startswith("not UTF-8")
    with pytest.raises(ValueError, match="own.jsonl is UTF-16, not UTF-8; save the file as UTF-8"):
        suite(line, encoding="utf-16")


def test_a_folder_with_one_file(suite, tmp_path):
    suite(PAIR)
    assert [c.id for c in read(suite.folder, Report())] == ["own.jsonl:1"]
    (suite.folder / "other.jsonl").write_text("")
    for path, cause in [
        (suite.folder, "found other.jsonl, own.jsonl; give the file itself"),
        (tmp_path, "expected one .jsonl file there, found none"),
        (tmp_path / "nowhere", "no such file"),
    ]:
        with pytest.raises(ValueError, match=cause):
            list(read(path, Report()))
