"""What is right and how it is averaged, against numbers by hand and the official evaluation of sWUGGY, written anew."""

import csv
import random

import numpy as np
import pytest
import soundfile

from jaxslm.data.report import Report
from jaxslm.evaluation.choices import Accuracy, Choice, Part, accuracies, correctness
from jaxslm.evaluation.suites.zerospeech import read, write_scores

PAIR = ((Part(text="a"),), (Part(text="b"),))
NAN = float("nan")


@pytest.mark.parametrize(
    "scores, answer, right",
    [
        ([-1.0, -2.0], 0, 1.0),
        ([-1.0, -2.0], 1, 0.0),
        ([-2.0, -2.0], 1, 0.5),
        ([-3.0, -1.0, -1.0], 1, 0.5),  # as likely as one of the others
        ([-1.0, -3.0, -3.0], 1, 0.0),  # a tie below the best is no tie
        ([-1.0, -2.0, -2.0], 0, 1.0),
        ([-5.0, -1.0, -2.0, -9.0], 1, 1.0),
    ],
)
def test_correctness(scores, answer, right):
    assert correctness(np.array(scores), answer) == right


@pytest.mark.parametrize("bad", [NAN, float("inf"), float("-inf")])
def test_no_answer_is_right_or_wrong_where_a_score_is_not_finite(bad):
    assert np.isnan(correctness(np.array([bad, -1.0]), 0))
    assert np.isnan(correctness(np.array([bad, -1.0]), 1))


def test_the_choices_of_an_item_are_averaged_first():
    choices = [Choice(f"a{i}", PAIR, item="a") for i in range(3)] + [Choice("b", PAIR)]
    assert accuracies(choices, [1.0, 1.0, 0.0, 0.0]) == {"all": Accuracy(pytest.approx(1 / 3), 2)}  # not 2 of 4


def test_what_is_not_a_number_is_counted_and_left_out():
    choices = [Choice("a1", PAIR, item="a"), Choice("a2", PAIR, item="a"), Choice("b", PAIR, tags={"part": "x"})]
    found = accuracies(choices, [0.5, NAN, NAN])
    assert found["all"] == Accuracy(0.5, 1, 2)
    assert np.isnan(found["part=x"].value) and (found["part=x"].items, found["part=x"].not_a_number) == (0, 1)


def test_tags_tell_accuracies_apart_in_the_order_of_the_suite():
    choices = [Choice("1", PAIR, tags={"t": "z", "u": "k"}), Choice("2", PAIR, tags={"t": "a"}), Choice("3", PAIR)]
    found = accuracies(choices, [1.0, 0.0, 0.5])
    assert found == {"all": Accuracy(0.5, 3), "t=z": Accuracy(1.0, 1), "u=k": Accuracy(1.0, 1), "t=a": Accuracy(0.0, 1)}
    assert list(found) == ["all", "t=z", "u=k", "t=a"]


def official(gold, submission):
    """zerospeech2021/lexical.py by its description: half a point for a tie, the mean over the voices of an id, then
    over ids; bands of frequency [0, 1), [1, 5), [5, 20), [20, 100), [100, ...), and lengths, of the word."""
    scores = {name: float(score) for name, score in (line.split(" ") for line in submission.read_text().splitlines())}
    words, others = {}, {}
    for row in csv.DictReader(gold.open(encoding="utf-8")):
        (words if row["correct"] == "1" else others)[row["id"], row["voice"]] = row
    by_id, groups = {}, {"all": []}
    for (id, voice), word in words.items():
        mine, its = scores[word["filename"]], scores[others[id, voice]["filename"]]
        by_id.setdefault(id, (word, []))[1].append(0.5 * (mine == its) + (mine > its))
    for word, points in by_id.values():
        count = int(word["frequency"])
        band = ["oov", "1-5", "6-20", "21-100", ">100"][(count >= 1) + (count >= 5) + (count >= 20) + (count >= 100)]
        for name in ("all", f"frequency={band}", f"length={word['length']}"):
            groups.setdefault(name, []).append(sum(points) / len(points))
    return {name: (sum(each) / len(each), len(each)) for name, each in groups.items()}


def test_agrees_with_the_official_evaluation(tmp_path):
    rng = random.Random(0)
    folder = tmp_path / "lexical" / "dev"
    folder.mkdir(parents=True)
    rows = []
    for id in range(60):
        frequency, length = rng.choice([0, 0, 1, 4, 5, 6, 19, 20, 21, 99, 100, 5000]), rng.randint(3, 6)
        for voice in "ABCD"[: rng.randint(1, 4)]:
            for correct in (1, 0):
                count, phones = (frequency, length) if correct else ("", length + 1)
                rows.append([id, f"w{len(rows):04}", voice, count, "word", "W ER D", phones, correct])
    rng.shuffle(rows)
    with (folder / "gold.csv").open("w", newline="") as file:
        csv.writer(file).writerows(
            [["id", "filename", "voice", "frequency", "word", "phones", "length", "correct"], *rows]
        )
    for row in rows:
        soundfile.write(folder / f"{row[1]}.wav", np.zeros(1600), 16000)
    scores = {row[1]: float(rng.randint(-3, 0)) / 3 for row in rows}  # many ties
    write_scores(tmp_path / "dev.txt", scores)

    report = Report()
    choices = list(read(tmp_path, report))
    right = [correctness(np.array([scores[name] for name in choice.names]), choice.answer) for choice in choices]
    found = accuracies(choices, right)
    expected = official(folder / "gold.csv", tmp_path / "dev.txt")
    assert 0.5 in right and not report.entries
    assert set(expected) == {name for name in found if not name.startswith("vocabulary")}
    for name, (value, items) in expected.items():
        assert found[name].value == pytest.approx(value, abs=1e-12) and found[name].items == items
    assert found["vocabulary=out"] == found["frequency=oov"]
    assert found["vocabulary=in"].items + found["vocabulary=out"].items == 60
