"""Tables and curves of arms, from metrics files written by hand."""

import json

import numpy as np
from matplotlib import pyplot

from jaxslm.evaluation.evidence import as_markdown, draw, read_arms, seeds_of

NAME = "suite/cloze/mode=S/sum"


def write(folder, arm, seed, values):
    rows = [{"step": 10 * (i + 1), "heldout/loss": 1.0, f"heldout/{NAME}": v} for i, v in enumerate(values)]
    (folder / f"{arm}-{seed}").mkdir()
    lines = [json.dumps({"step": 5, "loss": 2.0}), *map(json.dumps, rows), '{"step": 99, "heldou']
    (folder / f"{arm}-{seed}" / "metrics.jsonl").write_text("\n".join(lines))


def test_a_row_an_arm(tmp_path):
    write(tmp_path, "a", 0, [0.5, 0.7])
    write(tmp_path, "a", 1, [0.4, 0.8])
    write(tmp_path, "b", 0, [0.25, None])
    write(tmp_path, "a", 2, [0.1])  # in training
    curves = read_arms(tmp_path, ["a", "b", "c"], [0, 1, 2])
    assert as_markdown(curves, {NAME: "S", "loss": "loss"}).splitlines() == [
        "| arm | seeds | step | S | loss |",
        "|---|---|---|---|---|",
        "| a | 2 | 20 | 0.750 (0.700-0.800) | 1.000 (1.000-1.000) |",
        "| b | 1 | 20 | - | 1.000 |",
    ]


def test_a_panel_a_figure_and_a_curve_an_arm(tmp_path, monkeypatch):
    write(tmp_path, "a", 0, [0.5, 0.7])
    write(tmp_path, "a", 1, [0.4, 0.8])
    write(tmp_path, "b", 0, [0.25, None])
    drawn, close = [], pyplot.close
    monkeypatch.setattr(pyplot, "close", drawn.append)
    draw(read_arms(tmp_path, ["a", "b"], [0, 1]), {NAME: "S", "loss": "losses"}, tmp_path / "curves.svg")
    (drawing,) = drawn
    accuracy, loss = drawing.axes
    curves = [np.array(line.get_xydata()).tolist() for line in accuracy.lines[:2]]
    np.testing.assert_allclose(curves[0], [[10, 0.45], [20, 0.75]])  # means of the seeds
    assert curves[1] == [[10, 0.25]]
    spread = accuracy.collections[0].get_paths()[0].vertices[:, 1]
    assert (spread.min(), spread.max()) == (0.4, 0.8)
    assert accuracy.lines[2].get_ydata()[0] == 0.5 and len(loss.lines) == 2  # chance, of suites
    assert [axes.get_title() for axes in drawing.axes] == ["S", "losses"]
    assert [axes.get_ylabel() for axes in drawing.axes] == ["accuracy", "nats a token"]
    assert [text.get_text() for text in loss.get_legend().get_texts()] == ["a", "b"]
    assert (tmp_path / "curves.svg").read_text().count("<svg") == 1
    close(drawing)


def test_what_was_evaluated_after_the_run(tmp_path):
    write(tmp_path, "a", 0, [0.5, 0.7])
    (tmp_path / "a-0" / "evaluations").mkdir()
    table = dict(suite="storycloze", accuracy=dict(sum={"mode=S": dict(value=0.625, items=8, not_a_number=0)}))
    (tmp_path / "a-0" / "evaluations" / "storycloze.json").write_text(json.dumps(table))
    (tmp_path / "a-0" / "evaluations" / "prompts").mkdir()
    errors = dict(suite="tts", judge="J", spoken=dict(wer=0.375, words=8), recordings=dict(wer=None))
    (tmp_path / "a-0" / "evaluations" / "prompts" / "tts.json").write_text(json.dumps(errors))
    headings = {"storycloze/sum/mode=S": "S", "prompts/tts/spoken/wer": "TTS", "prompts/tts/recordings/wer": "ceiling"}
    assert "| 0.625 | 0.375 | - |" in as_markdown(read_arms(tmp_path, ["a"], [0]), headings)


def test_seeds_that_are_there(tmp_path):
    for name in ("a-0", "a-10", "b-3", "c-4", "cloze", "a-x"):
        (tmp_path / name).mkdir()
    assert seeds_of(tmp_path, ["a", "b"]) == [0, 3, 10]


def test_a_seed_without_the_figure_is_said(tmp_path):
    write(tmp_path, "a", 0, [0.5])
    write(tmp_path, "a", 1, [None])
    assert "| 0.500, 1 missing |" in as_markdown(read_arms(tmp_path, ["a"], [0, 1]), {NAME: "S"})
