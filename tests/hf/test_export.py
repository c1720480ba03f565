"""A run to a folder that stock transformers loads: trained, exported, verified, in an interpreter without jaxslm."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from jaxslm.configure import read_config
from jaxslm.hf.architectures import ARCHITECTURES, architecture_of, write_config
from jaxslm.hf.architectures import read_config as read_their_config
from jaxslm.hf.tensors import TensorWriter
from jaxslm.models.decoder import DecoderConfig
from jaxslm.tasks.export import export_run, exported_step
from jaxslm.tasks.verify import verify_export
from tests.end_to_end import commands
from tests.hf.families import FAMILIES, random_model
from tests.hf.smollm2 import write_smollm2

SHORT = {"steps": 4, "checkpoint.every": 2, "eval.every": 2, "log_every": 1}
SHORT |= {"data.sources.speech.utterances": 60, "data.sources.text.utterances": 60}


@pytest.fixture(scope="module")
def train(tmp_path_factory):
    """`train(workdir, key=value...)`: a run of a few small steps."""
    cache = tmp_path_factory.mktemp("cache")

    def run(workdir: Path, **overrides):
        settings = SHORT | overrides
        commands.train(workdir, cache, *(f"--config.{name}={value}" for name, value in settings.items()))

    return run


@pytest.fixture(scope="module")
def run(train, tmp_path_factory):
    """A run that exports while it trains."""
    workdir = tmp_path_factory.mktemp("run")
    train(workdir, **{"export.every": 2, "export.dtype": "float32"})
    return workdir


def test_exports_of_a_running_job(run):
    folders = sorted(path.name for path in (run / "exports").iterdir())
    assert folders == ["2", "4"]
    assert exported_step(run / "exports" / "4") == 4
    report = verify_export(run, read_config(run), run / "exports" / "4", 4)
    assert report.equal, str(report)
    assert max(report.differences.values()) < 1e-3 and not report.own_errors
    assert report.greedy_tokens == 128 and report.round_trips == 2 + 20 + 2


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_smaller_types_and_several_files(dtype, run, tmp_path):
    out = tmp_path / "out"
    export_run(run, read_config(run), out, dtype=dtype, max_file_gb=1e-4, progress=False)
    assert len(list(out.glob("model-0*.safetensors"))) > 1
    report = verify_export(run, read_config(run), out, 4)
    assert report.equal, str(report)


def test_nothing_of_ours_is_needed(run, tmp_path):
    """transformers alone, in an interpreter that cannot import jaxslm or jax, generates from the folder."""
    script = """
import sys
sys.modules["jaxslm"] = sys.modules["jax"] = None
from transformers import AutoModelForCausalLM, AutoTokenizer
model, tokenizer = AutoModelForCausalLM.from_pretrained("."), AutoTokenizer.from_pretrained(".")
prompt = tokenizer("[Speech][Hu3][Hu17][ASR]", return_tensors="pt")
out = model.generate(**prompt, max_new_tokens=5, do_sample=False)
print(prompt["input_ids"].tolist(), out.shape[1] > prompt["input_ids"].shape[1])
"""
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=run / "exports" / "4", capture_output=True, text=True, env=os.environ
    )
    assert result.returncode == 0, result.stderr[-2000:]
    vocabulary = json.loads((run / "vocabulary.json").read_text())
    first = {block["name"]: block["first"] for block in vocabulary["blocks"]}
    ids = [vocabulary["bos_id"], first["markers"] + 1, first["units"] + 3, first["units"] + 17, first["tasks"]]
    assert result.stdout.strip() == f"{[ids]} True"


def test_what_the_folder_says(run):
    folder = run / "exports" / "4"
    config = json.loads((folder / "config.json").read_text())
    vocabulary = json.loads((run / "vocabulary.json").read_text())
    state = load_file(folder / "model.safetensors")
    assert config["vocab_size"] == vocabulary["size"] == len(state["model.embed_tokens.weight"])  # no padding rows
    assert {"rope_theta", "rope_scaling", "torch_dtype"} <= set(config) and config["architectures"] == [
        "LlamaForCausalLM"
    ]
    generation = json.loads((folder / "generation_config.json").read_text())
    assert generation["eos_token_id"] == vocabulary["eos_id"] and generation["top_k"] == 0  # 50 without the key
    inventory = json.loads((folder / "speech_tokenizer" / "inventory.json").read_text())
    assert inventory["sha256"] == vocabulary["unit_inventory_sha256"] and inventory["deduplicated"]
    card = (folder / "README.md").read_text()
    assert "launch/train.py" in card and inventory["sha256"] in card and "heldout/loss" in card


def test_a_folder_that_is_there_is_not_overwritten(run, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match="is there already"):
        export_run(run, read_config(run), tmp_path / "out", progress=False)
    assert (tmp_path / "out" / "mine.txt").read_text() == "mine"


def test_a_disk_that_fills(run, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(TensorWriter, "write", full)
    with pytest.raises(OSError, match="No space left"):
        export_run(run, read_config(run), tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "out.incomplete" / "config.json").exists()
    with pytest.raises(ValueError, match="no finished export"):
        exported_step(tmp_path / "out.incomplete")
    monkeypatch.undo()
    export_run(run, read_config(run), tmp_path / "out", progress=False)  # what was half there is in nobody's way
    assert exported_step(tmp_path / "out") == 4 and not (tmp_path / "out.incomplete").exists()


def test_too_little_room_is_seen_before(run, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 10, 0))
    with pytest.raises(OSError, match="GB are free: make room"):
        export_run(run, read_config(run), tmp_path / "out", progress=False)


def test_an_export_that_differs_is_not_equal(run, tmp_path):
    """The check bites: one weight of one layer, one row of one unit."""
    from safetensors.numpy import save_file

    for name, row in (("model.layers.1.mlp.up_proj.weight", slice(None)), ("model.embed_tokens.weight", 270)):
        folder = tmp_path / name
        shutil.copytree(run / "exports" / "4", folder)
        state = load_file(folder / "model.safetensors")
        state[name][row] *= 2
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
        assert not verify_export(run, read_config(run), folder, 4).equal


@pytest.mark.parametrize("family", FAMILIES)
def test_config_round_trip(family, tmp_path):
    """config.json to ours and back means the same to transformers."""
    import transformers

    theirs = random_model(family).config
    architecture, fields = read_their_config(theirs.to_dict(), "config.json")
    config = DecoderConfig(vocab_size=384, **fields)
    written = write_config(architecture, config, theirs.to_dict()) | {"vocab_size": 300}
    (tmp_path / "config.json").write_text(json.dumps(written))
    again = transformers.AutoConfig.from_pretrained(tmp_path)
    names = ("hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim")
    names += ("intermediate_size", "rms_norm_eps", "rope_parameters", "hidden_act", "tie_word_embeddings", "vocab_size")
    assert {n: getattr(again, n, None) for n in names} == {n: getattr(theirs, n, None) for n in names}
    assert architecture_of(config) is ARCHITECTURES["llama" if family == "mistral" else architecture.model_type]


@pytest.mark.parametrize("family", ["qwen3", "gemma", "mistral", "llama3.2"])
def test_warm_started_families_there_and_back(family, train, tmp_path):
    """transformers -> init_from -> export, untrained: the very weights of the text rows and the body."""
    theirs = random_model(family)
    theirs.resize_token_embeddings(259, mean_resizing=False)
    theirs.save_pretrained(tmp_path / "base")
    _write_byte_tokenizer(tmp_path / "base")
    train(
        tmp_path / "run",
        init_from=str(tmp_path / "base"),
        steps=1,
        **{"optimizer.peak_lr": 0.0, "optimizer.final_lr": 0.0},
    )
    export_run(tmp_path / "run", read_config(tmp_path / "run"), tmp_path / "out", dtype="float32", progress=False)
    before, after = (load_file(tmp_path / f / "model.safetensors") for f in ("base", "out"))
    assert before.keys() == after.keys()
    for name, value in before.items():
        rows = slice(259) if name in ("model.embed_tokens.weight", "lm_head.weight") else slice(None)
        np.testing.assert_allclose(after[name][rows], value, atol=1e-6, err_msg=name)
    report = verify_export(tmp_path / "run", read_config(tmp_path / "run"), tmp_path / "out", 1)
    assert report.equal, str(report)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["model_type"] == theirs.config.model_type


def _write_byte_tokenizer(folder: Path) -> None:
    """A tokenizer.json of 259 ids, by our own export of bytes."""
    from jaxslm.hf.tokenizer_files import write_tokenizer
    from jaxslm.tokenizer import ByteTokenizer
    from jaxslm.vocabulary import Block, Vocabulary

    tokenizer = ByteTokenizer()
    text_only = Vocabulary((Block("text", 0, 259),), 1, 2, (0, 1, 2), tokenizer.sha256, "")
    write_tokenizer(folder, tokenizer, text_only, source=None)


def test_textless_runs(tmp_path_factory, tmp_path):
    """A unit LM with TWIST's warm start: the body of a text LM, units for text."""
    random_model("smollm2").save_pretrained(tmp_path / "base")
    workdir, out = tmp_path / "run", tmp_path / "out"
    settings = SHORT | {"init_from": tmp_path / "base", "steps": 2, "model.rope_theta": 0.0}
    given = (f"--config.{name}={value}" for name, value in settings.items() if ".text." not in name)
    commands.train(workdir, tmp_path_factory.mktemp("cache"), *given, recipe="twist_350m")
    export_run(workdir, read_config(workdir), out, dtype="float32", progress=False)
    report = verify_export(workdir, read_config(workdir), out, 2)
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
