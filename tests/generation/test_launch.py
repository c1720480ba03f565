"""launch/generate.py from the outside: an answer from a workdir, and every mistake with exit code 2."""

import importlib.util
import json
from pathlib import Path

import jax
import numpy as np
import pytest
import soundfile

from jaxslm.models.decoder import Decoder, DecoderConfig
from jaxslm.tokenizer import load_tokenizer
from jaxslm.training.checkpoint import Checkpoints
from jaxslm.units.inventory import UnitInventory
from jaxslm.vocabulary import build_vocabulary

SHAPE = dict(d_model=16, n_layers=1, n_heads=2, n_kv_heads=2, d_ff=32)


def launch():
    path = Path(__file__).parents[2] / "launch" / "generate.py"
    spec = importlib.util.spec_from_file_location("launch_generate", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """What a training run leaves behind, as far as generation reads it."""
    folder = tmp_path_factory.mktemp("run")
    centroids = np.random.default_rng(0).normal(size=(20, 39)).astype(np.float32)
    inventory = UnitInventory("mfcc", 0, 50.0, centroids, 20)
    vocabulary = build_vocabulary(load_tokenizer("byte"), 20, inventory.sha256)
    (folder / "config.json").write_text(json.dumps({"model": SHAPE, "data": {"tokenizer": "byte"}}))
    (folder / "vocabulary.json").write_text(json.dumps(vocabulary.to_json()))
    inventory.save(folder / "units")
    checkpoints = Checkpoints(folder / "checkpoints", keep=1)
    model = Decoder(DecoderConfig(vocabulary.padded_size, **SHAPE), jax.random.key(0))
    checkpoints.save(3, {"model": model, "step": np.int32(3)})
    checkpoints.finish()
    soundfile.write(folder / "noise.wav", np.random.default_rng(1).normal(size=8000) * 0.1, 16_000)
    (folder / "broken.wav").write_bytes(b"RIFF and no more")
    return folder


def run(monkeypatch, *arguments) -> int:
    monkeypatch.setattr("sys.argv", ["generate.py", *map(str, arguments)])
    try:
        launch().main()
    except SystemExit as end:
        return end.code
    return 0


def test_text_is_spoken_and_audio_transcribed(workdir, monkeypatch, capsys, tmp_path):
    few = "--max_new_tokens=12"
    out = tmp_path / "units.txt"
    assert run(monkeypatch, f"--workdir={workdir}", "--text=a cat", "--to=speech", few, f"--out={out}") == 0
    spoken = capsys.readouterr().out
    assert out.read_text() == spoken
    assert spoken.strip() == "" or spoken.startswith("[Hu")
    audio = f"--audio={workdir / 'noise.wav'}"
    assert run(monkeypatch, f"--workdir={workdir}", audio, "--to=text", few, "--temperature=0", "--step=3") == 0
    assert "[Hu" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--text=a", "--to=text"], "--workdir"),
        (["--workdir=WORKDIR", "--to=text"], "one of the arguments --text --audio is required"),
        (["--workdir=WORKDIR", "--text=a", "--audio=b.wav", "--to=text"], "not allowed with"),
        (["--workdir=WORKDIR", "--text=a", "--to=song"], "invalid choice"),
        (["--workdir=WORKDIR", "--text=?!", "--to=text"], "no words"),
        (["--workdir=WORKDIR", "--text=", "--to=text"], "no words"),
        (["--workdir=WORKDIR/none", "--text=a", "--to=text"], "no config.json"),
        (["--workdir=WORKDIR", "--text=a", "--to=text", "--step=7"], "no unharmed checkpoint"),
        (["--workdir=WORKDIR", "--text=a", "--to=text", "--top_p=3"], "top_p"),
        (["--workdir=WORKDIR", "--audio=WORKDIR/broken.wav", "--to=text"], "broken.wav"),
        (["--workdir=WORKDIR", "--audio=WORKDIR/missing.wav", "--to=text"], "missing.wav"),
    ],
)
def test_mistakes_are_named_with_exit_code_2(workdir, monkeypatch, capsys, arguments, message):
    assert run(monkeypatch, *[a.replace("WORKDIR", str(workdir)) for a in arguments]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("file", ["vocabulary.json", "units", "checkpoints"])
def test_a_workdir_with_a_part_missing_is_named(workdir, monkeypatch, capsys, tmp_path, file):
    for path in workdir.iterdir():
        if path.name != file:
            (tmp_path / path.name).symlink_to(path)
    assert run(monkeypatch, f"--workdir={tmp_path}", f"--audio={workdir / 'noise.wav'}", "--to=text") == 2
    assert str(tmp_path) in capsys.readouterr().err
