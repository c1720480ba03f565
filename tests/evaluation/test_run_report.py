"""Pages of runs, made of workdirs that are whole, young, broken or hostile."""

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from jaxslm.audio.io import write_wav
from jaxslm.evaluation.run_reading import read_run
from jaxslm.evaluation.run_report import report
from jaxslm.evaluation.run_samples import samples_section

ROOT = Path(__file__).parents[2]
VOID = {"meta", "rect", "path", "use", "br", "link"}


class Page(HTMLParser):
    """Sections, tables, addresses and labels of a page; every tag is closed, or this fails."""

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.links, self.addresses, self.labels, self.tags, self.text = [], [], [], [], [], [], ""
        self.rows = []
        self.feed(text)
        assert not self.open, self.open

    def handle_startendtag(self, tag, attributes):
        self.note(tag, dict(attributes))

    def handle_starttag(self, tag, attributes):
        if tag not in VOID:
            self.open.append(tag)
        self.note(tag, dict(attributes))

    def note(self, tag, attributes):
        self.tags.append(tag)
        self.ids += [attributes["id"]] if "id" in attributes else []
        self.labels += [attributes["aria-label"]] if "aria-label" in attributes else []
        for name in ("src", "href"):
            value = attributes.get(name, "")
            (self.links if value.startswith("#") else self.addresses).extend([value] if value else [])
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data


def rows_of(n, *, slower=1.0, restart=0):
    """Rows of `n` steps with two objectives; seconds begin anew after step `restart`."""
    rows = []
    for step in range(1, n + 1):
        loss, since = 3.0 / step, step - restart if step > restart else step
        row = {"step": step, "loss": loss, "loss/asr": loss, "loss/tts": 2 * loss, "tokens/asr": 1, "tokens/tts": 1}
        row |= {"tokens_per_s": None if since == 1 else 100 / slower, "mfu": None, "goodput": 0.5}
        row |= {"seconds/step": 2.0 * since, "seconds/compile": 1.0, "seconds/other": 1.0 * since}
        rows.append(row)
        if step % 10 == 0:
            held = {
                "loss": loss,
                "loss/asr": loss,
                "loss/tts": loss,
                "suite/storycloze/mode=T->S/mean": 0.5 + step / 100,
            }
            held |= {"suite/storycloze/all/mean": 0.75, "suite/storycloze/not_a_number": 3.0}
            held |= {f"suite/storycloze/{name}": n for name, n in dict(chance=0.25, choices=9.0, left_out=2.0).items()}
            rows.append({"step": step} | {f"heldout/{name}": value for name, value in held.items()})
    return rows


def write_run(folder, rows, config=None, **files):
    folder.mkdir(parents=True)
    config = {"task": "speech_text_lm", "steps": 40, "model": {"d_model": 64}} if config is None else config
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


@pytest.fixture
def run(tmp_path):
    hardware = [{"step": 0, "started": "2026-01-01", "device_kind": "TPU v5e", "device_count": 8, "host": "pod-0"}]
    folder = write_run(tmp_path / "run", rows_of(40, restart=20), hardware=hardware * 2)
    (folder / "evaluations").mkdir()
    table = {"mean": {"all": {"value": 0.69375, "items": 800}, "mode=T": {"value": None, "items": 0}}}
    result = {"suite": "storycloze", "protocol": "means", "choices": 800, "accuracy": table}
    result |= {"judge": {"asr": "hear <{list}>"}, "ceiling": ["recordings"], "normalizer": None}
    (folder / "evaluations" / "storycloze.json").write_text(json.dumps(result))
    (folder / "evaluations" / "other.json").write_text("[1]")
    (folder / "samples").mkdir()
    for name in ("0-spoken", "1-spoken"):
        write_wav(folder / "samples" / f"{name}.wav", np.sin(np.arange(16_000) / 9), 16_000)
    answers = [{"id": f"s/{i}", "text": "a <b>", "spoken (TTS)": "[Hu1][Hu2][Hu2]"} for i in range(2)]
    (folder / "samples" / "answers.json").write_text(json.dumps(answers))
    return folder


def test_page_of_a_run(run):
    out = report([run])
    assert out == run / "report.html"
    page = Page(text := out.read_text())
    assert {"#losses", "#suites-over-time", "#samples", "#hardware", "#where-the-time-went"} <= set(page.links)
    assert all(link.removeprefix("#") in page.ids for link in page.links)
    assert len(set(page.ids)) == len(page.ids)
    assert all(address.startswith("data:") for address in page.addresses) and "script" not in page.tags
    assert not re.search(r"https?://", re.sub(r'xmlns\S*="[^"]*"', "", text))
    assert page.tags.count("audio") == 2
    assert ["loss/tts", "0.1701", "0.075", "0.075 at step 40"] in page.rows
    assert ["all", "0.6937 (800)"] in page.rows and ["mode=T", "none"] in page.rows
    assert ["0", "2026-01-01 and 1 more", "8", "TPU v5e", "?", "?", "pod-0", "?", "?", "?", "?"] in page.rows
    assert "3 items of storycloze have no score" in page.text
    assert "2 choices, rows or recordings of storycloze are left out" in page.text
    assert ["judge / asr", "hear <{list}>"] in page.rows and ["ceiling", "recordings"] in page.rows
    assert ["normalizer", "none"] in page.rows
    assert any(label.startswith("storycloze, mean, by mode. all 0.75, T->S 0.9") for label in page.labels)
    assert "other.json: holds no JSON object" in page.text
    # two starts of 20 steps: 2 x (40 + 1 + 20) seconds
    assert ["step", "80.0", "65.6 %"] in page.rows and ["all", "122.0", "100 %"] in page.rows


def test_chance_is_that_of_the_suite(run):
    found = read_run(run)
    assert set(found.suites) == {("storycloze", "mean")}
    assert found.chance("storycloze") == 0.25 and found.chance("older") == 0.5


def test_training_losses_are_means_by_tokens_over_log_every_steps(run):
    steps = np.arange(31, 41)
    assert read_run(run).mean_losses()["loss/tts"] == pytest.approx(np.mean(6 / steps))


def test_sounds_are_bounded_and_what_is_left_out_is_said(run):
    one = len(samples_section(run / "samples", 10**6)) // 2
    some = samples_section(run / "samples", most_bytes=one)
    assert some.count("<audio") == 1 and "1 of 2 clips are left out" in some and "s/1" in some
    (run / "samples" / "1-spoken.wav").write_bytes(b"RIFF")
    assert "1-spoken.wav cannot be read" in samples_section(run / "samples")


def test_sounds_in_folders_by_kind(tmp_path):
    for kind in ("generated", "original"):
        write_wav(tmp_path / kind / "book" / "7.wav", np.zeros(800), 16_000)
    text = samples_section(tmp_path)
    assert "<h3>book/7</h3>" in text and text.index("original") < text.index("generated") and text.count("<audio") == 2


def test_a_young_run_says_what_is_missing(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text('{"steps": 5}')
    page = Page(report([tmp_path / "run"]).read_text())
    for said in ("metrics.jsonl: not there yet", "There are no losses yet", "hardware.json: not there", "no times yet"):
        assert said in page.text
    assert "audio" not in page.tags


def test_half_rows_and_numbers_that_are_none(tmp_path):
    folder = write_run(tmp_path / "run", rows_of(3) + [{"step": 4, "loss": None, "loss/asr": 1.0, "loss/tts": 1.0}])
    with (folder / "metrics.jsonl").open("ab") as file:
        file.write(b'{"step": 5, "loss": NaN}\n{"step": 5, "loss": "x"}\n[3]\n7\n{"loss": 1}\n\xff\n{"step": 6, "lo')
    run, page = read_run(folder), Page(report([folder]).read_text())
    assert run.points("loss") == [(1, 3.0), (2, 1.5), (3, 1.0)] and run.last_step == 5
    assert "5 of 11 lines are not whole rows" in page.text and "loss is no finite number in 3 rows" in page.text


@pytest.mark.parametrize("broken", ["", "[]", "{", "\xff"])
def test_broken_files_beside_the_metrics(tmp_path, broken):
    folder = write_run(tmp_path / "run", rows_of(3))
    for name in ("config.json", "provenance.json", "hardware.json"):
        (folder / name).write_bytes(broken.encode("latin-1"))
    (folder / "samples").mkdir()
    (folder / "samples" / "answers.json").write_bytes(broken.encode("latin-1"))
    page = Page(report([folder]).read_text())
    assert "config.json" in page.text and "There are none yet" in page.text


def test_nothing_from_outside_is_markup(tmp_path):
    bad = '"><script>alert(1)</script>$x$\\frac'
    rows = [
        {
            "step": s,
            "loss": 1.0,
            f"loss/{bad}": 1.0,
            f"a{bad}": 2.0,
            f"heldout/suite/{bad}/g{bad}/mean": 0.4,
            "loss/b": 1,
        }
        for s in (1, 2)
    ]
    hardware = [{"device_kind": bad, "host": bad}]
    config = {"task": bad, bad: bad, "steps": bad, "log_every": bad}
    folder = write_run(tmp_path / "<b>run", rows, config, hardware=hardware, provenance={"command": bad, "commit": bad})
    (folder / "evaluations").mkdir()
    (folder / "evaluations" / "x<i>.json").write_text(json.dumps({"suite": bad, bad: {bad: 1.0}, "n": bad}))
    (folder / "samples").mkdir()
    (folder / "samples" / "answers.json").write_text(json.dumps([{"id": bad, "text": bad, bad: bad}]))
    write_wav(folder / "samples" / "<u>.wav", np.zeros(100), 16_000)
    for pages in ([folder], [folder, write_run(tmp_path / "other", rows)]):
        page = Page(report(pages).read_text())
        assert not {"script", "u"} & set(page.tags) and page.text.count("alert(1)") > 5
        assert "alert" not in " ".join(page.addresses + page.ids)


def test_comparison(run, tmp_path):
    other = write_run(tmp_path / "b" / "run", rows_of(30, slower=2), {"task": "speech_text_lm", "steps": 30, "new": 1})
    page = Page((out := report([run, other])).read_text())
    assert out == run / "comparison.html"
    names = [f"{tmp_path.name}/run", "b/run"]
    assert ["", *names] in page.rows
    settings = page.rows[page.rows.index(["setting", *names]) + 1 :][:3]
    assert settings == [["model.d_model", "64", "-"], ["new", "-", "1"], ["steps", "40", "30"]]
    assert "1 other settings are the same" in page.text
    assert ["tokens_per_s", "100", "50"] in page.rows and ["held-out loss", "0.075", "0.1"] in page.rows
    assert ["storycloze.json: accuracy / mean / all", "0.6937 (800)", "-"] in page.rows
    (label,) = [label for label in page.labels if label.startswith("loss/asr")]
    assert label.count("held-out") == 2 and all(name in label for name in names)


def suite_rows(*groups):
    values = {f"heldout/suite/swuggy/{group}/sum": 0.5 + i / 100 for i, group in enumerate(groups)}
    return [{"step": 10, "heldout/loss": 1.0, "heldout/suite/swuggy/chance": 0.5} | values]


def test_groups_of_a_suite_are_told_apart_by_tag(tmp_path):
    """What has more groups, or runs, than there are colours is a table."""
    rows = suite_rows("all", "vocabulary=in", "vocabulary=out", *(f"length={n}" for n in range(1, 10)))
    page = Page(report([write_run(tmp_path / "a", rows)]).read_text())
    labels = [label for label in page.labels if label.startswith("swuggy")]
    assert len(labels) == 1 and labels[0].startswith("swuggy, sum, by vocabulary. all 0.5, in 0.51, out 0.52")
    assert "swuggy, sum, by length" in page.text and ["9", "0.61"] in page.rows and ["all", "0.5"] in page.rows
    page = Page(report([tmp_path / "a", write_run(tmp_path / "b", rows)]).read_text())
    assert ["9", "0.61", "0.61"] in page.rows
    assert len([label for label in page.labels if label.startswith("swuggy, vocabulary=in, sum")]) == 1
    runs = [tmp_path / "a", tmp_path / "b", *(write_run(tmp_path / name, rows) for name in "cdefghi")]
    page = Page(report(runs).read_text())
    assert ["", *"abcdefghi"] in page.rows and ["in", *9 * ["0.51"]] in page.rows
    assert not any(label.startswith("swuggy") for label in page.labels)


def test_no_two_curves_of_a_panel_have_one_colour(tmp_path):
    frequencies = [f"frequency={band}" for band in ("oov", "1-5", "6-20", "21-100", ">100")]
    rows = suite_rows("all", *frequencies, "vocabulary=in", "vocabulary=out", *(f"length={n}" for n in range(3, 10)))
    text = report([write_run(tmp_path / "run", rows)]).read_text()
    keys = dict(re.findall(r"<b>swuggy, sum, by (\w+)</b>(.*?)</figcaption><svg", text))
    curves = {tag: re.findall(r"var\((--c\d)\)\"></i>(\S+)", key) for tag, key in keys.items()}
    assert [name for _, name in curves["frequency"]] == ["all", "oov", "1-5", "6-20", "21-100", "&gt;100"]
    assert {tag: len(set(dict(found))) for tag, found in curves.items()} == {
        "frequency": 6,
        "vocabulary": 3,
        "length": 8,
    }


def test_long_runs_make_small_pages(tmp_path):
    folder = write_run(tmp_path / "run", rows_of(20_000))
    assert report([folder]).stat().st_size < 600_000


def command(*arguments):
    return subprocess.run(
        [sys.executable, "launch/report.py", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120
    )


def test_the_command_names_what_is_wrong(tmp_path, run):
    for arguments, said in (
        ([f"--workdir={tmp_path}/none"], "there is no such folder"),
        ([f"--workdir={tmp_path}"], "is not the workdir of a run"),
        ([f"--workdir={run}", f"--workdir={run}"], "is given twice"),
        ([f"--workdir={run}", f"--out={tmp_path}"], "is a folder; name a file"),
    ):
        done = command(*arguments)
        assert done.returncode == 1 and said in done.stderr.splitlines()[-1], done.stderr
    done = command(f"--workdir={run}", f"--out={tmp_path}/new/page.html", "--most_mb=0")
    assert done.returncode == 0 and "2 of 2 clips are left out" in (tmp_path / "new" / "page.html").read_text()
