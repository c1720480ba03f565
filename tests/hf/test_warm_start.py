"""A Hugging Face model into a run and out again: transformers -> init_from -> checkpoint -> export -> transformers."""

import importlib
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from jaxslm.configure import read_config
from jaxslm.tasks import speech_text_lm
from jaxslm.tasks.export import export_run
from jaxslm.tasks.verify import verify_export
from jaxslm.tokenizer import load_tokenizer
from jaxslm.units.inventory import UnitInventory
from jaxslm.vocabulary import build_vocabulary
from tests.hf.families import random_model, write_byte_tokenizer, write_qwen2_tokenizer, write_random
from tests.hf.smollm2 import write_smollm2
from tests.hf.test_load import BROKEN

FEW = {"eval.every": 0, "samples.utterances": 1, "samples.text_tokens": 2, "samples.speech_tokens": 2}
UNTRAINED = FEW | {"steps": 1, "optimizer.peak_lr": 0.0, "optimizer.final_lr": 0.0}


FAMILIES = {  # family: (tokenizer, model_type of the export)
    "llama3.2": (write_byte_tokenizer, "llama"),
    "mistral": (write_byte_tokenizer, "mistral"),
    "qwen2": (write_byte_tokenizer, "llama"),
    "qwen2.5": (write_qwen2_tokenizer, "qwen2"),
    "qwen3": (write_qwen2_tokenizer, "qwen3"),
    "gemma": (write_byte_tokenizer, "gemma"),
}


@pytest.fixture(scope="module", params=FAMILIES)
def started(request, train, tmp_path_factory):
    """(family, folder with `base`, `run` and `out`): one step at learning rate 0, exported in float32."""
    folder = tmp_path_factory.mktemp("started")
    base, run, out = (folder / name for name in ("base", "run", "out"))
    base.mkdir()
    theirs, size = random_model(request.param), FAMILIES[request.param][0](base)
    theirs.resize_token_embeddings(size, mean_resizing=False)
    theirs.save_pretrained(base)
    train(run, init_from=base, **UNTRAINED)
    export_run(run, read_config(run), out, dtype="float32", progress=False)
    return request.param, folder


def test_families_there_and_back(started):
    """The very weights of the text rows and the body, and the same function in transformers."""
    family, folder = started
    run, out = folder / "run", folder / "out"
    before, after = (load_file(folder / name / "model.safetensors") for name in ("base", "out"))
    zeros = set(after) - set(before)
    assert not set(before) - set(after) and not any(after[name].any() for name in zeros)
    assert len(zeros) == (3 if family == "qwen2" else 0) and all(name.endswith("o_proj.bias") for name in zeros)
    size = len(before["model.embed_tokens.weight"])
    for name, value in before.items():
        rows = slice(size) if name in ("model.embed_tokens.weight", "lm_head.weight") else slice(None)
        np.testing.assert_allclose(after[name][rows], value, atol=1e-6, err_msg=name)
    report = verify_export(run, read_config(run), out, 1)
    assert report.equal, str(report)
    assert json.loads((out / "config.json").read_text())["model_type"] == FAMILIES[family][1]


def test_in_transformers_4(started):
    """The same ids and logits as in the version installed."""
    packages = os.environ.get("JAXSLM_TRANSFORMERS4")
    if not packages:
        pytest.skip("JAXSLM_TRANSFORMERS4 names no folder with transformers 4 (.ci/run makes one)")
    out = started[1] / "out"
    script = """
import json, sys, torch, transformers
model = transformers.AutoModelForCausalLM.from_pretrained(".", torch_dtype=torch.float32).eval()
tokenizer = transformers.AutoTokenizer.from_pretrained(".")
ids = [tokenizer.encode(text) for text in json.loads(sys.argv[1])]
with torch.inference_mode():
    logits = [model(torch.tensor([row])).logits[0, -1].tolist() for row in ids]
print(json.dumps([transformers.__version__, len(tokenizer), tokenizer.pad_token_id, ids, logits]))
"""
    texts = json.dumps(["[Text]naïve 東京 12", "[Speech][Hu3][Hu19][Text]the cat's[TTS]", "don't  stop\n"])
    said = []
    for path in (packages, ""):
        done = subprocess.run(
            [sys.executable, "-c", script, texts],
            cwd=out,
            capture_output=True,
            text=True,
            env=os.environ | {"PYTHONPATH": path},
        )
        assert done.returncode == 0, done.stderr[-2000:]
        assert "incorrect regex" not in done.stderr and "not used" not in done.stderr
        said.append(json.loads(done.stdout.splitlines()[-1]))
    old, new = said
    assert old[0].startswith("4.") and not new[0].startswith("4.") and old[1:4] == new[1:4]
    for logits, expected in zip(old[4], new[4], strict=True):
        np.testing.assert_allclose(logits, expected, atol=1e-4)


def test_textless_runs(train, tmp_path):
    """A unit LM with TWIST's warm start: the body of a text LM, units for text."""
    random_model("smollm2").save_pretrained(tmp_path / "base")
    run, out = tmp_path / "run", tmp_path / "out"
    train(run, recipe="twist_350m", init_from=tmp_path / "base", steps=2, **{"model.rope_theta": 0.0})
    export_run(run, read_config(run), out, dtype="float32", progress=False)
    report = verify_export(run, read_config(run), out, 2)
    assert report.equal, str(report)
    table = load_file(out / "model.safetensors")["model.embed_tokens.weight"]
    assert len(table) == 3 + 20 and table.std(axis=0).min() > 0.005  # drawn one by one, not all the mean
    assert json.loads((out / "config.json").read_text())["eos_token_id"] == 2


def test_a_run_without_text_begins_with_the_body_of_an_export_that_has_text(train, tmp_path):
    first, out, second = tmp_path / "first", tmp_path / "out", tmp_path / "second"
    train(first, steps=1)
    export_run(first, read_config(first), out, dtype="float32", progress=False)
    never = {"optimizer.peak_lr": 0.0, "optimizer.final_lr": 0.0}
    train(second, recipe="twist_350m", init_from=out, steps=1, **{"model.rope_theta": 0.0} | never)
    assert read_config(second).data.tokenizer == "none"
    export_run(second, read_config(second), tmp_path / "again", dtype="float32", progress=False)
    old, new = (load_file(folder / "model.safetensors") for folder in (out, tmp_path / "again"))
    body = "model.layers.0.mlp.up_proj.weight"
    np.testing.assert_array_equal(new[body], old[body])
    table = new["model.embed_tokens.weight"]
    assert len(table) == 3 + 20 < len(old["model.embed_tokens.weight"]) and 0.01 < table.std() < 0.03


def test_smollm2_there_and_back(train, tmp_path, tmp_path_factory):
    """Real weights: extended by units, a few steps, exported; logits and greedy tokens equal; and the untouched model
    still says what it said."""
    folder = write_smollm2(tmp_path_factory.getbasetemp() / "smollm2")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    settings = {"init_from": str(folder), "data.context_length": 64, "data.batch_size": 2}
    settings |= FEW | {"data.units.clusters": 500, "checkpoint.every": 0}
    workdir, out = tmp_path / "run", tmp_path / "out"
    train(workdir, **settings | {"steps": 1, "optimizer.peak_lr": 0.0, "optimizer.final_lr": 0.0})
    export_run(workdir, read_config(workdir), out, dtype="float32", progress=False)
    texts = []
    for path in (folder, out):  # untouched: the same words
        model, tokenizer = (
            AutoModelForCausalLM.from_pretrained(path, dtype="float32"),
            AutoTokenizer.from_pretrained(path),
        )
        prompt = tokenizer("The capital of France is", return_tensors="pt")
        texts.append(tokenizer.decode(model.generate(**prompt, max_new_tokens=24, do_sample=False)[0]))
    assert texts[0] == texts[1] and "Paris" in texts[0] and len(tokenizer) == 49_152 + 2 + 500 + 2
    train(workdir, **settings | {"steps": 3, "optimizer.peak_lr": 1e-4, "optimizer.final_lr": 1e-4})
    shutil.rmtree(out)
    export_run(workdir, read_config(workdir), out, dtype="float32", progress=False)
    report = verify_export(workdir, read_config(workdir), out, 3)
    assert report.equal, str(report)
    assert report.greedy_tokens >= 64


def test_an_export_is_started_from_and_may_go_then(train, tmp_path):
    """Every row is taken over, those of units and markers too; a run that has begun needs the folder no more."""
    base, first, second = tmp_path / "base", tmp_path / "first", tmp_path / "second"
    base.mkdir()
    write_byte_tokenizer(base)
    random_model("llama2").save_pretrained(base)
    train(first, init_from=base, **FEW | {"steps": 1, "optimizer.warmup_steps": 0})
    out, again = tmp_path / "out", tmp_path / "again"
    export_run(first, read_config(first), out, dtype="float32", progress=False)
    shutil.rmtree(base)
    assert "continuing from step 1" in train(first, init_from=base, **FEW | {"steps": 2}).stderr
    train(second, init_from=out, **UNTRAINED)
    shutil.rmtree(first)
    before = load_file(out / "model.safetensors")
    shutil.rmtree(out)
    export_run(second, read_config(second), again, dtype="float32", progress=False)
    after = load_file(again / "model.safetensors")
    assert before.keys() == after.keys() and len(before["lm_head.weight"]) == 259 + 2 + 20 + 2
    for name, value in before.items():
        np.testing.assert_allclose(after[name], value, atol=1e-7, err_msg=name)
    assert "continuing from step 1" in train(second, init_from=out, **FEW | {"steps": 2}).stderr


def config_from(folder, **changes):
    config = importlib.import_module("configs.spiritlm_7b").get_config("tiny")
    config.update_from_flattened_dict({"init_from": str(folder), "data.units.clusters": 20} | changes)
    return config


@pytest.fixture
def no_preparation(monkeypatch):
    monkeypatch.setattr(speech_text_lm, "prepare", lambda *_, **__: pytest.fail("data was prepared"))


@pytest.mark.parametrize("kind", [kind for kind in BROKEN if kind != "nan"])
def test_what_headers_say_is_known_before_data_is_prepared(kind, tmp_path, no_preparation):
    base = tmp_path / "base"
    write_random("llama2", base)
    write_byte_tokenizer(base)
    damage, message = BROKEN[kind]
    damage(base)
    with pytest.raises(ValueError, match=message):
        speech_text_lm.make(config_from(base), tmp_path / "run")


def add_token(folder, token):
    path = folder / "tokenizer.json"
    made = Tokenizer.from_file(str(path))
    made.add_tokens([token])
    made.save(str(path))


def test_tokenizers_that_do_not_fit_are_known_before(tmp_path, no_preparation):
    base = tmp_path / "base"
    write_random("llama2", base)
    size = write_byte_tokenizer(base)
    for i in range(size, 301):
        add_token(base, f"<more {i}>")
    with pytest.raises(ValueError, match="the tokenizer has 301 ids and .* 300 rows"):
        speech_text_lm.make(config_from(base), tmp_path / "run")
    for token in ("[Hu7]", "[ASR]"):
        write_byte_tokenizer(base)
        add_token(base, token)
        with pytest.raises(ValueError, match=rf"has a token '\{token}' of its own.*before speech was added"):
            speech_text_lm.make(config_from(base), tmp_path / "run")


def test_an_export_with_other_units_is_refused(tmp_path, no_preparation):
    base, units = tmp_path / "base", tmp_path / "units"
    write_random("llama2", base)
    vocabulary = build_vocabulary(load_tokenizer("byte"), 20, "a" * 64)
    exported = {"step": 1, "dtype": "float32", "tokenizer": "byte", "vocabulary": vocabulary.to_json()}
    (base / "jaxslm.json").write_text(json.dumps(exported))
    UnitInventory("mfcc", 0, 100.0, np.zeros((20, 39)), 20).save(units)
    with pytest.raises(ValueError, match="exported with other units than data.units .*data.units.inventory empty"):
        speech_text_lm.make(config_from(base, **{"data.units.inventory": str(units)}), tmp_path / "run")
    with pytest.raises(ValueError, match="not a usable unit inventory"):  # the export's own, which is not there
        speech_text_lm.make(config_from(base), tmp_path / "run")
    (base / "jaxslm.json").write_text(json.dumps(exported | {"tokenizer": "none"}))
    with pytest.raises(ValueError, match="an export of speech alone: set data.tokenizer='none'"):
        speech_text_lm.make(config_from(base), tmp_path / "run")
