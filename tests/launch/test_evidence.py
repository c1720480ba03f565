"""The commands that launch/evidence.py gives: which arms, in which order, from what."""

import argparse
import importlib.util
import json
import sys
from pathlib import Path

import pytest

from jaxslm.configure import load_config
from jaxslm.evaluation.evidence_runs import RUNS

ROOT = Path(__file__).parents[2]


@pytest.fixture
def evidence():
    spec = importlib.util.spec_from_file_location("launch_evidence", ROOT / "launch" / "evidence.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def calls(evidence, tmp_path, monkeypatch):
    """Runs main() with arguments in a folder of 500 stories without sound; the programs it calls, which do nothing."""
    called = []

    def call(program, *words):
        called.append((program, *words))
        if "--suite=storycloze" in words and not any(word.startswith("--name") for word in words):
            workdir = Path(next(w for w in words if w.startswith("--workdir=")).partition("=")[2])
            (workdir / "evaluations").mkdir(parents=True)
            (workdir / "evaluations" / "storycloze.json").write_text("{}")

    monkeypatch.setattr(evidence, "call", call)
    monkeypatch.setattr(evidence, "write_cloze", lambda folder, stories, voices: write_stories(folder, stories))
    monkeypatch.setattr(evidence, "fetch_prompts", lambda folder, languages: called.append(("prompts", *languages)))
    monkeypatch.setattr(evidence, "halves_of", lambda out, workdir, source: out / "halves" / source)

    def run(*words):
        called.clear()
        monkeypatch.setattr(sys, "argv", ["evidence.py", f"--out={tmp_path}", *words])
        evidence.main()
        return list(called)

    return run


def write_stories(folder, stories):
    for n in range(stories):
        for part in ("mutual", "correct", "incorrect"):
            (folder / f"{n}_{part}.txt").write_text(f"{part} {n}.\n")


def test_arms_are_trained_once_and_warm_ones_begin_from_the_text_model_of_their_seed(calls, tmp_path):
    found = calls("--runs=C,D", "--seeds=3", "--config.steps=5")
    trained = [words for words in found if words[0] == "train.py"]
    arms = [next(w for w in words if w.startswith("--config=")).rpartition(":")[2] for words in trained]
    assert arms == ["text", "cold", "warm", "twist", "replay_0", "replay_10", "replay_30"]
    begun = [f"--config.init_from={tmp_path / 'text-3'}" in words for words in trained]
    assert begun == [False, False, True, False, True, True, True]
    (twist,) = (words for words in trained if words[1].endswith(":twist"))
    export = ("export_hf.py", f"--workdir={tmp_path / 'text-3'}", f"--out={tmp_path / 'text-3' / 'hf'}")
    assert found[found.index(twist) - 1] == export and f"--config.init_from={tmp_path / 'text-3' / 'hf'}" in twist
    assert all({"--config.seed=3", "--config.steps=5"} < set(words) for words in trained)
    meters = [words for words in found if "--suite=forgetting" in words]
    assert len(meters) == 4 and all(f"--base={tmp_path / 'text-3'}" in words for words in meters)
    again = calls("--runs=C,D", "--seeds=3")
    assert not [words for words in again if words[0] == "train.py"]
    first = json.loads((tmp_path / "domain" / "choices.jsonl").read_text().splitlines()[0])
    assert first == dict(context=["mutual 0."], options=[" correct 0.", " incorrect 0."], answer=0)


def test_a_try_is_not_taken_for_the_run_that_is_asked_for(calls, tmp_path, capsys):
    arguments = ("--runs=A", "--seeds=0")
    for arm in RUNS["A"].arms:
        config = load_config(f"{ROOT / 'configs' / 'evidence.py'}:{arm}", [("steps", "5"), ("data.max_seconds", "9.0")])
        (tmp_path / f"{arm}-0").mkdir(exist_ok=True)
        (tmp_path / f"{arm}-0" / "config.json").write_text(config.to_json_best_effort())
    with pytest.raises(SystemExit, match="interleaved-0 was made with config.data.max_seconds=9.0, not 60.0"):
        calls(*arguments, "--config.steps=5")
    with pytest.raises(SystemExit, match="interleaved-0 was made with config.steps=5, not 1500: remove that folder"):
        calls(*arguments, "--config.data.max_seconds=9.0")
    found = calls(*arguments, "--config.steps=5", "--config.data.max_seconds=9.0", "--config.eval.batches=1")
    assert len([words for words in found if words[0] == "train.py"]) == 2
    with pytest.raises(SystemExit, match="config.model.n_layers=4, not 1"):
        calls(*arguments, "--config.steps=5", "--config.data.max_seconds=9.0", "--config.model.n_layers=1")
    for wrong, said in (("--whispr=x", "--whispr=x is neither an option"), ("--seeds=a", "'a' is no whole number")):
        with pytest.raises(SystemExit):
            calls("--runs=A", wrong)
        assert said in capsys.readouterr().err


def test_errors_are_counted_on_both_kinds_of_speech(calls, tmp_path):
    found = [words for words in calls("--runs=B", "--seeds=0", "--judge=hear {list}") if "--suite=tts" in words]
    assert all("--asr=hear {list}" in words for words in found)
    given = {tuple(w for w in words if w.startswith(("--workdir", "--prefix"))) for words in found}
    arms, sources = (tmp_path / "asr_tts-0", tmp_path / "interleaved-0"), ("stories", "prompts")
    assert given == {(f"--workdir={arm}", f"--prefix={source}/") for arm in arms for source in sources}
    assert sorted(w for words in found for w in words if w.startswith("--prompt=")) == [
        *["--prompt=interleaved"] * 2,
        *["--prompt=task"] * 2,
    ]


def test_what_needs_weights_asks_for_them(calls, tmp_path, capsys):
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "config.json").write_text("{}")
    with pytest.raises(SystemExit):
        calls("--runs=R", f"--whisper={tmp_path / 'w'}")
    assert "--smollm=FOLDER" in capsys.readouterr().err
    found = calls("--runs=R", "--seeds=0", f"--whisper={tmp_path / 'w'}", f"--smollm={tmp_path / 'w'}")
    assert found[0] == ("prompts", "en", "es", "fr", "it", "ru")
    cold, warm = (words for words in found if words[0] == "train.py")
    (tmp_path / "real_cold-0").mkdir()
    (tmp_path / "real_cold-0" / "metrics.jsonl").write_text('{"step": 150, "loss": 1.0}\n')
    (tmp_path / "real_cold-0" / "config.json").write_text('{"steps": 150}')
    again = calls("--runs=R", "--seeds=0", f"--whisper={tmp_path / 'w'}", f"--smollm={tmp_path / 'w'}")
    assert [words[1:3] for words in again if words[0] == "train.py"] == [warm[1:3]]
    assert f"--config.init_from={tmp_path / 'w'}" in warm and not any("init_from" in word for word in cold)
    with pytest.raises(SystemExit):
        calls("--runs=Z")


def test_large_arms_are_asked_about_recordings_too(calls, tmp_path, capsys):
    weights, manifest = tmp_path / "w", tmp_path / "mine.jsonl"
    weights.mkdir()
    (weights / "config.json").write_text("{}")
    given = ("--runs=L", "--seeds=1", f"--whisper={weights}", f"--smollm={weights}", "--judge=hear {list}")
    with pytest.raises(SystemExit):
        calls(*given, f"--recordings={manifest}")
    assert "--recordings=FILE" in capsys.readouterr().err
    manifest.write_text("")
    with pytest.raises(SystemExit):
        calls(*given[:-1], f"--recordings={manifest}")
    assert "of another model than Whisper tiny.en" in capsys.readouterr().err
    found = calls(*given, f"--recordings={manifest}")
    trained = [words for words in found if words[0] == "train.py"]
    assert [words[1].rpartition(":")[2] for words in trained] == list(RUNS["L"].arms)
    sources = {f"--config.data.sources.{name}.path={manifest}" for name in ("recordings", "transcripts")}
    assert all(
        {*sources, f"--config.init_from={weights}", f"--config.data.tokenizer={weights}"} < {*w} for w in trained
    )
    paths = [w[3:5] for w in found if "--suite=storycloze" in w]
    folders = [tmp_path / "halves" / "prompts", tmp_path / "halves" / "recordings", tmp_path / "cloze"]
    assert [path for path, _ in paths] == [f"--path={folder}" for folder in folders] * 3
    counted = {(w[2], w[3]) for w in found if "--suite=asr" in w}
    runs = [f"--workdir={tmp_path / f'large_{arm}-1'}" for arm in ("interleaved", "asr_tts")]
    assert counted == {(run, f"--prefix={name}/") for run in runs for name in ("stories", "prompts", "recordings")}


def test_every_arm_is_a_config():
    for recipe in ("evidence", "evidence_twist", "evidence_large"):
        sources = load_config(f"{ROOT / 'configs' / recipe}.py:tiny").data.sources
        assert all(source.kind in ("demo", "demo_text") for source in sources.values())  # nothing to download
    budgets = {"evidence": {3072}, "evidence_twist": {1024}, "evidence_large": {16_384}}  # tokens a step
    for run in RUNS.values():
        configs = [load_config(f"{ROOT / 'configs' / run.recipe}.py:{arm}") for arm in run.arms]
        assert {c.data.context_length * c.data.batch_size for c in configs} == budgets[run.recipe]


def test_a_run_that_was_stopped_is_not_scored(evidence, tmp_path, monkeypatch):
    (tmp_path / "train.py").write_text("import os, sys\nsys.exit(int(os.environ['JAXSLM_STOPPED_STATUS']))")
    (tmp_path / "evaluate.py").write_text(f"open({str(tmp_path / 'scored')!r}, 'w')")
    monkeypatch.setattr(evidence, "HERE", tmp_path)
    (tmp_path / "halves").mkdir()
    with pytest.raises(SystemExit, match="goes on from there"):
        evidence.train(argparse.Namespace(out=tmp_path), "evidence", "control", 0, [])
    assert not (tmp_path / "scored").exists()


def test_halves_are_made_once_by_whoever_comes_first(evidence, tmp_path, monkeypatch):
    monkeypatch.setattr(evidence, "Records", lambda *_: [])
    monkeypatch.setattr(evidence, "records_of_run", lambda workdir: workdir)
    made = []

    def write(folder, clips):
        made.append(folder)
        (folder / "0_mutual.txt").write_text("first")
        if len(made) == 1:
            evidence.halves_of(tmp_path, tmp_path, "prompts")  # another process, meanwhile
            (folder / "0_mutual.txt").write_text("second")

    monkeypatch.setattr(evidence, "write_split_clips", write)
    folder = evidence.halves_of(tmp_path, tmp_path, "prompts")
    assert len(set(made)) == 2 and (folder / "0_mutual.txt").read_text() == "first"
    evidence.halves_of(tmp_path, tmp_path, "prompts")
    assert len(made) == 2 and [path.name for path in (tmp_path / "halves").iterdir()] == ["prompts"]
