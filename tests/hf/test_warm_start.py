"""A Hugging Face model into a run and out again: transformers -> init_from -> checkpoint -> export -> transformers."""

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file

from jaxslm.configure import read_config
from jaxslm.tasks.export import export_run
from jaxslm.tasks.verify import verify_export
from tests.hf.families import random_model, write_byte_tokenizer, write_qwen2_tokenizer
from tests.hf.smollm2 import write_smollm2

FEW = {"eval.every": 0, "samples.utterances": 1, "samples.text_tokens": 2, "samples.speech_tokens": 2}
UNTRAINED = FEW | {"steps": 1, "optimizer.peak_lr": 0.0, "optimizer.final_lr": 0.0}


@pytest.mark.parametrize(
    ("family", "tokenizer", "exported"),
    [
        ("llama3.2", "byte", "llama"),
        ("mistral", "byte", "mistral"),
        ("qwen2", "byte", "llama"),
        ("qwen2.5", "qwen2", "qwen2"),
        ("qwen3", "qwen2", "qwen3"),
        ("gemma", "byte", "gemma"),
    ],
)
def test_families_there_and_back(family, tokenizer, exported, train, tmp_path):
    """Untrained: the very weights of the text rows and the body."""
    base, run, out = tmp_path / "base", tmp_path / "run", tmp_path / "out"
    base.mkdir()
    size = (write_qwen2_tokenizer if tokenizer == "qwen2" else write_byte_tokenizer)(base)
    theirs = random_model(family)
    theirs.resize_token_embeddings(size, mean_resizing=False)
    theirs.save_pretrained(base)
    train(run, init_from=base, **UNTRAINED)
    export_run(run, read_config(run), out, dtype="float32", progress=False)
    before, after = (load_file(f / "model.safetensors") for f in (base, out))
    zeros = set(after) - set(before)
    assert not set(before) - set(after) and not any(after[name].any() for name in zeros)
    assert len(zeros) == (3 if family == "qwen2" else 0) and all(name.endswith("o_proj.bias") for name in zeros)
    for name, value in before.items():
        rows = slice(size) if name in ("model.embed_tokens.weight", "lm_head.weight") else slice(None)
        np.testing.assert_allclose(after[name][rows], value, atol=1e-6, err_msg=name)
    report = verify_export(run, read_config(run), out, 1)
    assert report.equal, str(report)
    assert json.loads((out / "config.json").read_text())["model_type"] == exported


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


def test_smollm2_there_and_back(train, tmp_path, tmp_path_factory):
    """Real weights: extended by units, a few steps, exported; logits and greedy tokens equal; and the untouched model
    still says what it said."""
    folder = write_smollm2(tmp_path_factory.getbasetemp() / "smollm2")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    settings = {"init_from": str(folder), "data.context_length": 64, "data.batch_size": 2, "eval.every": 0}
    settings |= {"samples.text_tokens": 2, "samples.speech_tokens": 2, "samples.utterances": 1, "checkpoint.every": 0}
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
    assert texts[0] == texts[1] and "Paris" in texts[0]
    train(workdir, **settings | {"steps": 3, "optimizer.peak_lr": 1e-4, "optimizer.final_lr": 1e-4})
    shutil.rmtree(out)
    export_run(workdir, read_config(workdir), out, dtype="float32", progress=False)
    report = verify_export(workdir, read_config(workdir), out, 3)
    assert report.equal, str(report)
    assert report.greedy_tokens >= 64
