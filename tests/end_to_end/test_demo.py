"""The README's first command, smaller: train, look, continue, answer; and what it refuses."""

import json
import math

import pytest
import soundfile

from tests.end_to_end.commands import ROOT, run, train

pytest.importorskip("espeakng_loader", reason="the demo extra is not installed")
OBJECTIVES = ("text", "speech", "asr", "tts", "interleaved")
DATA = ("--config.data.sources.speech.utterances=60", "--config.data.sources.text.utterances=80")


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    settings = (
        "--config.samples.voice=quick",
        "--config.steps=24",
        "--config.log_every=4",
        "--config.checkpoint.every=8",
        "--config.eval.every=12",
    )
    return folder, train(folder / "run", folder / "cache", *DATA, *settings)


def metrics(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def test_the_run_leaves_what_the_readme_says(demo):
    folder, _ = demo
    workdir = folder / "run"
    for name in ("config.json", "vocabulary.json", "metrics.jsonl", "loss.png", "checkpoints", "units/inventory.json"):
        assert (workdir / name).exists(), name
    assert list(workdir.glob("**/events.out.tfevents.*"))
    assert list((workdir / "samples").glob("**/index.html"))
    page = (workdir / "samples" / "index.html").read_text()
    for kind in ("units", "spoken", "speech-continued"):
        for i in range(2):
            path = workdir / "samples" / f"{i}-{kind}.wav"
            if kind == "units" or path.is_file():  # a model of 24 steps may say nothing
                assert len(soundfile.read(path)[0]) > 1000 and f'src="{path.name}"' in page
                assert f"to hear: {path}" in demo[1].stdout + demo[1].stderr


def test_metrics(demo):
    folder, _ = demo
    rows = metrics(folder / "run")
    steps = [row for row in rows if "loss" in row]
    assert [row["step"] for row in steps] == list(range(1, 25))
    for row in steps:
        assert {"loss", "tokens_per_s", "mfu", "grad_norm", "learning_rate"} <= set(row)
        parts = [(row[f"loss/{name}"], row[f"tokens/{name}"]) for name in OBJECTIVES]
        weight = sum(tokens for _, tokens in parts)
        mean = sum(loss * tokens for loss, tokens in parts if tokens) / weight
        assert math.isclose(row["loss"], mean, rel_tol=1e-5)
    first, last = steps[0]["loss"], steps[-1]["loss"]
    vocabulary = json.loads((folder / "run" / "vocabulary.json").read_text())
    assert abs(first - math.log(vocabulary["size"])) < 0.3  # nothing is known before the first step
    assert last < first - 1.0
    assert any(key.startswith("heldout/loss") for row in rows for key in row)


def test_it_says_what_it_learnt_and_where_everything_lies(demo):
    folder, done = demo
    said = done.stdout + done.stderr
    for name in ("transcript (ASR)", "spoken (TTS)", "speech continued", "text continued"):
        assert name in said
    assert "[Hu" in said and "(heldout)" in said and str(folder / "run") in said


def test_the_same_command_continues_and_steps_may_be_raised(demo):
    folder, _ = demo
    settings = ("--config.steps=28", "--config.log_every=4", "--config.checkpoint.every=8", "--config.eval.every=12")
    before = metrics(folder / "run")
    done = train(folder / "run", folder / "cache", *DATA, *settings)
    assert "continuing from step 24" in done.stdout + done.stderr
    rows = [row for row in metrics(folder / "run") if "loss" in row]
    assert [row["step"] for row in rows] == list(range(1, 29))
    assert rows[:24] == [row for row in before if "loss" in row]


def test_another_unit_inventory_is_refused(demo):
    folder, _ = demo
    done = train(
        folder / "run", folder / "cache", *DATA, "--config.steps=99", "--config.data.units.seed=7", check=False
    )
    assert done.returncode and "another unit inventory" in done.stderr and "vocabulary.json" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("to", ["text", "speech"])
def test_generate(demo, to):
    folder, _ = demo
    audio = next((folder / "run" / "samples").glob("**/*.flac"))
    for prompt in ("--text=Tom opens the door", f"--audio={audio}"):
        done = run("generate.py", f"--workdir={folder / 'run'}", prompt, f"--to={to}", "--max_new_tokens=12")
        assert done.stdout.strip()
        assert ("[Hu" in done.stdout) == (to == "speech")


@pytest.mark.parametrize(
    ("argument", "complaint"),
    [
        ("--config.optimizer.peek_lr=1", "optimizer.peak_lr"),
        ("--config.steps=many", "steps"),
        ("--config.data.mixture.asr=-1", "data.mixture"),
        ("--config.data.context_length=8", "context_length"),
        ("--config.mesh.fsdp=3", "mesh"),
        ("--config.data.tokenizer=/none/tokenizer.json", "/none/tokenizer.json"),
        ("--config.model.remat=some", "model.remat"),
        ("--config.data.sources.speech.kind=demmo", "demmo"),
    ],
)
def test_a_bad_setting_is_refused_in_one_line(demo, tmp_path, argument, complaint):
    done = train(tmp_path / "run", demo[0] / "cache", *DATA, argument, check=False)
    assert done.returncode and "Traceback" not in done.stderr
    assert complaint in done.stderr.splitlines()[-1]


def test_the_full_recipe_differs_only_in_sizes_and_data():
    import importlib.util

    spec = importlib.util.spec_from_file_location("recipe", ROOT / "configs" / "spiritlm_7b.py")
    recipe = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(recipe)
    full, tiny = recipe.get_config(), recipe.get_config("tiny")
    assert full.data.mixture == tiny.data.mixture and full.data.spans == tiny.data.spans
    model = full.model
    assert (model.d_model, model.n_layers, model.n_heads, model.d_ff) == (4096, 32, 32, 11_008)
    assert full.data.context_length * full.data.batch_size == 2**20 and full.optimizer.peak_lr == 3e-5
    assert full.data.units.clusters == 501 and set(full.model) == set(tiny.model)
    with pytest.raises(ValueError, match="tiny"):
        recipe.get_config("small")
