"""The recipes of speech alone: their published sizes, a short run of each, and what a model without text refuses."""

import importlib
import json
import math

import pytest

from jaxslm.models.decoder import DecoderConfig, parameter_count
from jaxslm.tokenizer import load_tokenizer
from jaxslm.vocabulary import build_vocabulary
from tests.end_to_end.commands import run, train

RECIPES = {"slam_358m": 358e6, "twist_350m": 315e6, "gslm_150m": 151e6}  # parameters; of TWIST: with SmolLM2's body
SHORT = (
    "--config.data.sources.speech.utterances=40 --config.steps=6 --config.log_every=2 --config.eval.every=6 "
    "--config.eval.batches=1 --config.samples.utterances=1"
).split()


def config_of(recipe: str, size: str = ""):
    return importlib.import_module(f"configs.{recipe}").get_config(size)


@pytest.mark.parametrize("recipe", RECIPES)
def test_parameters_of_the_full_recipe(recipe):
    config = config_of(recipe)
    vocabulary = build_vocabulary(load_tokenizer(config.data.tokenizer), config.data.units.clusters, "b" * 64)
    count = parameter_count(DecoderConfig(vocab_size=vocabulary.padded_size, **config.model))
    assert math.isclose(count, RECIPES[recipe], rel_tol=0.01)


@pytest.mark.parametrize("recipe", RECIPES)
def test_tiny_differs_only_in_sizes_and_data(recipe):
    full, tiny = config_of(recipe), config_of(recipe, "tiny")
    assert full.data.mixture == tiny.data.mixture and full.data.tokenizer == tiny.data.tokenizer == "none"
    assert set(full.model) == set(tiny.model) and tiny.init_from == ""
    assert full.data.batch_size % full.optimizer.accumulate_steps == 0
    with pytest.raises(ValueError, match="tiny"):
        config_of(recipe, "small")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    pytest.importorskip("espeakng_loader", reason="the demo extra is not installed")
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def slam(cache, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("slam") / "run"
    return workdir, train(workdir, cache, *SHORT, recipe="slam_358m")


def check_run(workdir, done) -> None:
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    steps = [row for row in rows if "loss" in row]
    assert [row["step"] for row in steps] == list(range(1, 7)) and steps[-1]["loss"] < steps[0]["loss"]
    assert abs(steps[0]["loss"] - math.log(23)) < 0.3  # three ids and 20 units
    assert any("heldout/loss/speech" in row for row in rows)
    assert "speech continued" in done.stdout
    assert not any(name in done.stdout for name in ("transcript (ASR)", "spoken (TTS)", "text continued"))
    vocabulary = json.loads((workdir / "vocabulary.json").read_text())
    assert [(block["name"], block["size"]) for block in vocabulary["blocks"]] == [("text", 3), ("units", 20)]


def test_slam_trains(slam):
    check_run(*slam)


@pytest.mark.parametrize("recipe", [name for name in RECIPES if name != "slam_358m"])
def test_the_others_train(cache, tmp_path, recipe):
    check_run(tmp_path / "run", train(tmp_path / "run", cache, *SHORT, recipe=recipe))


def test_speech_is_continued_and_text_refused(slam):
    workdir, _ = slam
    audio = f"--audio={next((workdir / 'samples').glob('**/*.flac'))}"
    done = run("generate.py", f"--workdir={workdir}", audio, "--to=speech", "--max_new_tokens=12")
    assert "[Hu" in done.stdout
    for wrong in ([audio, "--to=text"], ["--text=a cat", "--to=speech"]):
        done = run("generate.py", f"--workdir={workdir}", *wrong, check=False)
        assert done.returncode == 2 and "data.tokenizer='none'" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("objective", ["text", "asr", "tts", "interleaved"])
def test_a_mixture_with_text_is_refused(objective):
    from jaxslm.data.loader import check_text

    mixture = config_of("slam_358m").data.mixture
    check_text(mixture, load_tokenizer("none"))
    mixture[objective] = 0.5
    check_text(mixture, load_tokenizer("byte"))
    cure = f"data.mixture asks for {objective}.*set data.tokenizer.*--config.data.mixture.{objective}=0"
    with pytest.raises(ValueError, match=cure):
        check_text(mixture, load_tokenizer("none"))


def test_the_command_refuses_it_before_it_reads_anything(cache, tmp_path):
    arguments = ("--config.data.mixture.asr=0.5", "--config.data.sources.speech.kind=manifest")
    done = train(tmp_path / "run", cache, *SHORT, *arguments, recipe="slam_358m", check=False)
    last = done.stderr.splitlines()[-1]
    assert done.returncode and "data.mixture asks for asr" in last and "data.tokenizer" in last
