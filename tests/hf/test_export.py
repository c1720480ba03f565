"""A run to a folder that stock transformers loads: trained, exported, verified, in an interpreter without jaxslm."""

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys

import pytest
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer, normalizers

from jaxslm.configure import read_config
from jaxslm.hf.architectures import ARCHITECTURES, architecture_of, write_config
from jaxslm.hf.architectures import read_config as read_their_config
from jaxslm.hf.export import exported_as
from jaxslm.hf.tensors import TensorWriter
from jaxslm.models.decoder import DecoderConfig
from jaxslm.tasks.export import export_run, exported_step
from jaxslm.tasks.verify import verify_export
from jaxslm.training.checkpoint import CheckpointError
from jaxslm.units.inventory import UnitInventory
from tests.hf.families import FAMILIES, random_model


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
    assert max(report.differences.values()) < 1e-3 and not report.exact
    assert report.greedy_tokens == 128 and report.round_trips == 2 + 20 + 2


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_smaller_types_and_several_files(dtype, run, tmp_path):
    out = tmp_path / "out"
    export_run(run, read_config(run), out, dtype=dtype, max_file_gb=1e-4, progress=False)
    assert len(list(out.glob("model-0*.safetensors"))) > 1
    report = verify_export(run, read_config(run), out, 4)
    assert report.equal, str(report)


def test_attention_of_another_machine(run):
    """What a run was trained with on a TPU or GPU is of no account where it is verified."""
    config = read_config(run)
    with config.unlocked():
        config.model.attention = "splash"
    report = verify_export(run, config, run / "exports" / "4", 4)
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


def test_the_card_names_the_base_model_but_not_its_place(run, tmp_path):
    config = read_config(run)
    with config.unlocked():
        config.init_from = "/mnt/mine/Base-1B/"
    export_run(run, config, tmp_path / "out", progress=False)
    card = (tmp_path / "out" / "README.md").read_text()
    assert 'base_model: "Base-1B"\n' in card.split("---")[1] and "It started from Base-1B." in card
    assert "/mnt" not in card
    assert "base_model" not in (run / "exports" / "4" / "README.md").read_text()


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


def test_a_damaged_checkpoint_is_not_exported(run, tmp_path, caplog):
    """A changed byte is seen while weights are written; a file that is cut is before, and an older step taken."""
    shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("exports", "samples"))
    largest = max((tmp_path / "run/checkpoints/4/model").rglob("*"), key=lambda path: path.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    largest.write_bytes(content)
    with pytest.raises(CheckpointError, match="checkpoint .*4 is damaged .* has changed"):
        export_run(tmp_path / "run", read_config(run), tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.incomplete" / "config.json").exists()
    largest.write_bytes(content[:-1])
    with caplog.at_level("WARNING"):
        assert export_run(tmp_path / "run", read_config(run), tmp_path / "out", progress=False) == 2
    assert "checkpoint 4 is damaged" in caplog.text
    with pytest.raises(CheckpointError, match="checkpoint 4 in .* is damaged .*bytes.: export another step"):
        export_run(tmp_path / "run", read_config(run), tmp_path / "again", step=4, progress=False)
    with pytest.raises(CheckpointError, match="has no checkpoint 3: it has 4, 2"):
        export_run(tmp_path / "run", read_config(run), tmp_path / "again", step=3, progress=False)


def test_too_little_room_is_seen_before(run, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 10, 0))
    with pytest.raises(OSError, match="GB are free: make room"):
        export_run(run, read_config(run), tmp_path / "out", progress=False)


def multiply(folder, name, row, factor):
    state = load_file(folder / "model.safetensors")
    state[name][row] *= factor
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def nudge(folder):
    """By less than the rounding to the type that config.json names."""
    multiply(folder, "model.layers.0.mlp.down_proj.weight", slice(None), 1.001)
    say(folder, torch_dtype="bfloat16")


def say(folder, file="config.json", **changes):
    content = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps(content | changes))


def take_other_units(folder):
    """A whole inventory, but not that of the run."""
    inventory = UnitInventory.load(folder / "speech_tokenizer")
    dataclasses.replace(inventory, deduplicated=False).save(folder / "speech_tokenizer")


def read_otherwise(folder):
    made = Tokenizer.from_file(str(folder / "tokenizer.json"))
    made.normalizer = normalizers.NFKC()
    made.save(str(folder / "tokenizer.json"))


DIFFERENT = {
    "layer": (lambda f: multiply(f, "model.layers.1.mlp.up_proj.weight", slice(None), 2), "up/weight is not that"),
    "row": (lambda f: multiply(f, "model.embed_tokens.weight", 270, 2), "embedding/weight is not that"),
    "theta": (lambda f: say(f, rope_theta=1.1e4), "config.json means model.rope_theta=11000.0"),
    "epsilon": (lambda f: say(f, rms_norm_eps=2e-5), "config.json means model.norm_eps=2e-05"),
    "nudge": (nudge, "down/weight is not that"),
    "window": (lambda f: say(f, model_type="mistral", sliding_window=4), "(?s)in float64: .*logits of .* differ"),
    "begin": (lambda f: say(f, bos_token_id=7), "\n  config.json: bos_token_id is 7"),
    "end": (
        lambda f: say(f, "generation_config.json", eos_token_id=[2, 7]),
        r"generation_config.json: eos_token_id is \[",
    ),
    "padding": (lambda f: say(f, pad_token_id=7), "\n  config.json: pad_token_id is 7"),
    "eos": (lambda f: say(f, "tokenizer_config.json", eos_token="<s>"), "tokenizer_config.json: eos_token is 1"),
    "first unit": (lambda f: say(f, "speech_tokenizer/units.json", first_unit_id=1), "units.json: first_unit_id is 1"),
    "inventory": (lambda f: say(f, "speech_tokenizer/inventory.json", layer=7), "inventory was changed"),
    "units": (take_other_units, "speech_tokenizer/inventory.json: sha256 is"),
    "text": (read_otherwise, "the text .* has other ids"),
}


@pytest.mark.parametrize("what", DIFFERENT)
def test_an_export_that_differs_is_not_equal(what, run, tmp_path):
    """The check bites."""
    folder = tmp_path / "out"
    shutil.copytree(run / "exports" / "4", folder)
    change, message = DIFFERENT[what]
    change(folder)
    report = verify_export(run, read_config(run), folder, 4)
    assert not report.equal
    assert re.search(message, str(report)), report


def test_a_window_behind_all_rows_of_the_run(run, tmp_path):
    """It makes no difference, however long a row the exported config.json allows."""
    folder, config = tmp_path / "out", read_config(run)
    shutil.copytree(run / "exports" / "4", folder)
    window = config.data.context_length
    say(folder, model_type="mistral", sliding_window=window, max_position_embeddings=4 * window)
    report = verify_export(run, config, folder, 4)
    assert report.equal, str(report)
    assert list(report.differences)[-1] == f"a row of {window}"


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
    names += ("attention_bias", "sliding_window", "layer_types")
    assert {n: getattr(again, n, None) for n in names} == {n: getattr(theirs, n, None) for n in names}
    assert architecture_of(config) is ARCHITECTURES["llama" if family == "mistral" else architecture.model_type]


def test_qwen2_as_llama(tmp_path):
    """A Qwen2 whose tokenizer is not Qwen's: nothing of its sliding window, which a cache would take for Llama's."""
    import transformers

    base = random_model("qwen2").config.to_dict() | {"sliding_window": 16, "max_window_layers": 1}
    _, fields = read_their_config(base, "config.json")
    config = DecoderConfig(vocab_size=384, **fields)
    for qwen_tokenizer, model_type in ((True, "qwen2"), (False, "llama")):
        architecture, as_written = exported_as(config, base, qwen_tokenizer=qwen_tokenizer)
        (tmp_path / "config.json").write_text(json.dumps(write_config(architecture, as_written, base)))
        written = transformers.AutoConfig.from_pretrained(tmp_path)
        assert written.model_type == architecture.model_type == model_type
        assert (
            getattr(written, "attention_bias", False) is not qwen_tokenizer
            and getattr(written, "sliding_window", None) is None
        )
        assert exported_as(as_written, {}, qwen_tokenizer=False)[0].model_type == "llama"
