"""A codec from its config to a folder of Hugging Face, by the commands of the README."""

import json

import numpy as np
import pytest
import soundfile

from jaxslm.hf.codec import load_codec
from jaxslm.tasks.codec import load_run
from tests.data import tones
from tests.end_to_end.commands import run

SMALL = (
    "--config.steps=3 --config.eval.every=3 --config.checkpoint.every=3 --config.data.batch_size=2 "
    "--config.data.seconds=0.1 --config.losses.adversarial.start=1 --config.losses.adversarial.delay=1 "
    "--config.model.dim=8 --config.model.quantizer.n_levels=2 --config.model.quantizer.codebook_size=16 "
    "--config.samples.utterances=1 --config.export.every=3"
).split() + [f"--config.model.{part}.n_filters=2" for part in ("encoder", "decoder")]


def test_training_encoding_decoding_and_export(tmp_path):
    tones.write_corpus(tmp_path / "tones", count=8)
    sources = json.dumps({"speech": {"kind": "manifest", "path": str(tmp_path / "tones")}})
    workdir, codes = tmp_path / "run", tmp_path / "codes"
    given = [
        "--config=configs/encodec_24k.py:tiny",
        f"--workdir={workdir}",
        f"--config.data.cache={tmp_path / 'cache'}",
    ]
    done = run("train.py", *given, f"--config.data.sources={sources}", *SMALL)
    assert "3 steps done" in done.stdout and "held-out  loss" in done.stdout and "STOI" in done.stdout
    page = (workdir / "samples" / "index.html").read_text()
    assert "<audio" in page and "data:image/png" in page

    run("encode_audio.py", tmp_path / "tones" / "audio", f"--codec={workdir}", f"--out={codes}")
    run("decode_audio.py", codes, f"--codec={workdir}", f"--out={tmp_path / 'wavs'}")
    samples, rate = soundfile.read(tmp_path / "wavs" / "u0.wav")
    assert rate == 24_000 and len(samples) == 0.8 * rate and np.isfinite(samples).all()

    assert load_codec(workdir / "exports" / "3").n_codebooks == 2  # by the run itself
    done = run("export_hf.py", f"--workdir={workdir}", f"--out={tmp_path / 'hf'}", "--verify")
    assert "read back, it is the same codec" in done.stdout and "100.00 % of" in done.stdout
    done = run("export_hf.py", f"--workdir={workdir}", f"--out={workdir / 'exports' / '3'}", "--verify")
    assert "is compared, not written" in done.stdout
    given = ("--suite=codec", f"--codec={tmp_path / 'hf'}", f"--out={tmp_path / 'scores'}")
    done = run("evaluate.py", *given, check=False)
    assert done.returncode == 2 and "name clips by --records=FOLDER or --audio=FOLDER" in done.stderr
    clip = 0.3 * np.sin(np.arange(4000, dtype=np.float32) / 9)[None]
    np.testing.assert_array_equal(load_codec(tmp_path / "hf").encode(clip), load_run(workdir).encode(clip))


RECIPES = "soundstream", "dac", "mimi", "speechtokenizer", "wavtokenizer", "bigcodec", "small"


@pytest.mark.slow  # to compile
@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_trains_evaluates_and_is_heard(recipe, tmp_path):
    tones.write_corpus(tmp_path / "tones", count=8)
    sources = json.dumps({"speech": {"kind": "manifest", "path": str(tmp_path / "tones")}})
    rate = "24k" if recipe in ("mimi", "wavtokenizer") else "16k"
    kept = ("model", "seconds", "export", "adversarial" if recipe == "mimi" else "nothing")  # mimi has no other loss
    few = [word for word in SMALL if not any(part in word for part in kept)]
    few.append("--config.steps=9")  # so that all levels have started
    given = [f"--config=configs/{recipe}_{rate}.py:tiny", f"--workdir={tmp_path / 'run'}", *few]
    done = run("train.py", *given, f"--config.data.cache={tmp_path / 'cache'}", f"--config.data.sources={sources}")
    assert "9 steps done" in done.stdout and "held-out  loss" in done.stdout and "STOI" in done.stdout
    if recipe in ("dac", "mimi"):
        done = run("export_hf.py", f"--workdir={tmp_path / 'run'}", f"--out={tmp_path / 'hf'}", "--verify")
        assert "read back, it is the same codec" in done.stdout
