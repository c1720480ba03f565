"""launch/generate.py from the outside: an answer from a workdir, and every mistake with exit code 2."""

import importlib.util
import re
from pathlib import Path

import jax
import numpy as np
import pytest
import soundfile

from jaxslm.models.decoder import Decoder, DecoderConfig
from jaxslm.tasks import opening
from jaxslm.tasks.export import load_vocabulary
from jaxslm.tokenizer import load_tokenizer
from jaxslm.training.checkpoint import restore_model
from jaxslm.units.inventory import UnitInventory
from tests.tiny_run import SHAPE, write_run


def launch():
    path = Path(__file__).parents[2] / "launch" / "generate.py"
    spec = importlib.util.spec_from_file_location("launch_generate", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """A working directory without the runs/ that README's first command makes, where runs are looked for by default."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """What a training run leaves behind, as far as generation reads it."""
    folder = tmp_path_factory.mktemp("run")
    write_run(folder, samples=dict(text_tokens=50, speech_tokens=50))
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
    assert run(monkeypatch, f"--workdir={workdir}", "--text=a cat", "--to=speech", few, "--seed=1", f"--out={out}") == 0
    spoken = capsys.readouterr().out
    assert out.read_text() == spoken
    units = [int(unit) for unit in re.findall(r"\[Hu(\d+)\]", spoken)]
    assert spoken == "".join(f"[Hu{unit}]" for unit in units) + "\n"
    assert len(units) > 3 and max(units) < 20  # the inventory has 20
    audio = f"--audio={workdir / 'noise.wav'}"
    assert run(monkeypatch, f"--workdir={workdir}", audio, "--to=text", few, "--temperature=0", "--step=3") == 0
    said = capsys.readouterr()
    assert said.out == f"{transcript(workdir, 12)}\n"
    assert said.err.startswith("units ...\nlanguage model ...\n")  # of what it is at, as it begins


def transcript(workdir, n: int) -> str:
    """The greedy answer by running the whole model, without cache or sampler, once for every token."""
    vocabulary, tokenizer = load_vocabulary(workdir), load_tokenizer("byte")
    config = DecoderConfig(vocabulary.padded_size, **SHAPE)
    model, _ = restore_model(
        workdir / "checkpoints", jax.eval_shape(lambda key: Decoder(config, key), jax.random.key(0))
    )
    units = UnitInventory.load(workdir / "units").encode(soundfile.read(workdir / "noise.wav", dtype="float32")[0]).ids
    ids = [1, vocabulary.id("[Speech]"), *(vocabulary.block("units").first + units), vocabulary.id("[ASR]")]
    answer = []
    for _ in range(n):
        tokens = np.array([ids + answer], np.int32)
        hidden = model(
            tokens, positions_BxT=np.arange(tokens.size, dtype=np.int32)[None], segment_ids_BxT=np.ones_like(tokens)
        )
        logits_V = np.asarray(model.logits(hidden[0, -1]))
        answer.append(int(np.where(vocabulary.modality_mask("text", stop=True), logits_V, -np.inf).argmax()))
    assert len(set(answer)) > 1 and min(answer) > 2 and max(answer) < 259, answer  # bytes all, and no end
    return tokenizer.decode(answer)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--text=a", "--to=text"], "--workdir"),
        (["--workdir=WORKDIR", "--to=text"], "one of the arguments --text --audio --batch is required"),
        (["--workdir=WORKDIR", "--text=a", "--audio=b.wav", "--to=text"], "not allowed with"),
        (["--workdir=WORKDIR", "--text=a", "--to=song"], "invalid choice"),
        (["--workdir=WORKDIR", "--text=?!", "--to=text"], "no words"),
        (["--workdir=WORKDIR", "--text=", "--to=text"], "no words"),
        (["--workdir=WORKDIR/none", "--text=a", "--to=text"], "no config.json"),
        (["--workdir=WORKDIR", "--text=a", "--to=text", "--step=7"], "no checkpoint of step 7; there are 3"),
        (["--workdir=WORKDIR", "--text=a", "--to=text", "--top_p=3"], "top_p"),
        (["--workdir=WORKDIR", "--audio=WORKDIR/broken.wav", "--to=text"], "broken.wav"),
        (["--workdir=WORKDIR", "--audio=WORKDIR/missing.wav", "--to=text"], "missing.wav"),
        (["--workdir=WORKDIR", "--text=a", "--to=text", "--out=a.wav"], "the answer is a text"),
        (["--workdir=WORKDIR", "--text=a", "--out=a.wav"], "nothing to speak with"),
        (
            ["--workdir=WORKDIR", "--text=a", "--voice=WORKDIR/noise.wav"],
            "needs an acoustic stage (--acoustic=WORKDIR)",
        ),
        (["--workdir=WORKDIR", "--audio=WORKDIR/noise.wav", "--to=voice"], "needs an acoustic stage"),
        (["--workdir=WORKDIR", "--acoustic=WORKDIR", "--text=a"], "is no run that speaks"),
        (["--workdir=WORKDIR", "--batch=WORKDIR/config.json"], "--batch needs a folder"),
    ],
)
def test_mistakes_are_named_with_exit_code_2(workdir, monkeypatch, capsys, arguments, message):
    assert run(monkeypatch, *[a.replace("WORKDIR", str(workdir)) for a in arguments]) == 2
    assert message in capsys.readouterr().err


def test_the_run_of_another_task_is_named(monkeypatch, capsys, tmp_path):
    (tmp_path / "config.json").write_text('{"task": "codec"}')
    assert run(monkeypatch, f"--workdir={tmp_path}", "--text=a", "--to=text") == 2
    assert "is a run of the task 'codec'" in capsys.readouterr().err


@pytest.mark.parametrize("file", ["vocabulary.json", "units", "checkpoints"])
def test_a_workdir_with_a_part_missing_is_named(workdir, monkeypatch, capsys, tmp_path, file):
    for path in workdir.iterdir():
        if path.name != file:
            (tmp_path / path.name).symlink_to(path)
    assert run(monkeypatch, f"--workdir={tmp_path}", f"--audio={workdir / 'noise.wav'}", "--to=text") == 2
    assert str(tmp_path) in capsys.readouterr().err


def test_what_is_not_named_is_opened_only_where_it_fits(workdir, monkeypatch, capsys, tmp_path):
    broken = tmp_path / "soundstorm"
    broken.mkdir()
    monkeypatch.setattr(opening, "ACOUSTIC", broken)
    few = ("--text=a cat", "--max_new_tokens=4")
    assert run(monkeypatch, f"--workdir={workdir}", *few, "--to=text") == 0  # nothing is to be heard
    assert "left out" not in capsys.readouterr().err
    assert run(monkeypatch, f"--workdir={workdir}", *few, f"--out={tmp_path / 'a.wav'}") == 2
    said = capsys.readouterr().err
    assert f"{broken} is left out: {broken} is no run that speaks" in said and "nothing to speak with" in said
    monkeypatch.setattr(opening, "WORKDIR", tmp_path / "none")
    assert run(monkeypatch, *few, "--to=text") == 2
    assert "name the run of a language model by --workdir" in capsys.readouterr().err
