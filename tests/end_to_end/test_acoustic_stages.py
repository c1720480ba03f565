"""From a codec to codes of held-out clips, by the commands of a user: both stages on the demo data."""

import json

import numpy as np
import pytest

from jaxslm.acoustic.autoregressive import Prompt, coarse_to_fine
from jaxslm.data.records import Records
from jaxslm.tasks.acoustic_stage import load_stage
from tests.codec.codecs import write_run
from tests.end_to_end.commands import run

SHORT = (
    "--config.data.sources.speech.utterances=40 --config.steps=6 --config.log_every=2 --config.eval.every=6 "
    "--config.eval.batches=1 --config.samples.utterances=1 --config.data.units.clusters=20 --config.data.batch_size=2 "
    "--config.model.d_model=32 --config.model.d_ff=64 --config.model.n_layers=1 --config.data.acoustic.coarse_levels=2 "
    "--config.data.acoustic.seconds=0.05 --config.data.acoustic.prompt_seconds=0.005"
).split()


def test_a_stage_without_a_codec_names_the_commands(tmp_path):
    done = run("train.py", "--config=configs/audiolm_fine.py:tiny", f"--workdir={tmp_path / 'run'}", check=False)
    assert done.returncode and "configs/small_16k.py:tiny --workdir=runs/codec" in done.stderr.splitlines()[-1]
    assert "--config.data.codec=runs/codec" in done.stderr.splitlines()[-1] and "Traceback" not in done.stderr


@pytest.mark.slow
def test_both_stages_train_and_make_codes(tmp_path):
    pytest.importorskip("espeakng_loader", reason="the demo extra is not installed")
    codec, cache = write_run(tmp_path / "codec"), tmp_path / "cache"  # 2,000 frames of 3 codes a second
    given = [f"--config.data.cache={cache}", f"--config.data.codec={codec}", *SHORT]
    done = run("prepare.py", "--config=configs/audiolm_coarse.py:tiny", *given)
    assert "codes: " in done.stdout and "(codec, " in done.stdout
    for stage in ("coarse", "fine"):
        workdir = tmp_path / stage
        done = run("train.py", f"--config=configs/audiolm_{stage}.py:tiny", f"--workdir={workdir}", *given)
        assert f"{stage} codes like the clip's own" in done.stdout and "held-out  loss" in done.stdout
        rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
        steps = [row for row in rows if "loss" in row]
        assert len(steps) == 6 and any(f"heldout/loss/{stage}" in row for row in rows)
        assert (
            list((workdir / "samples" / "generated").rglob("*.wav")) and (workdir / "samples" / "index.html").is_file()
        )
        again = run("train.py", f"--config=configs/audiolm_{stage}.py:tiny", f"--workdir={workdir}", *given)
        done = run("generate.py", f"--workdir={workdir}", "--text=a", "--to=speech", check=False)
        assert done.returncode == 2 and "is a run of an acoustic stage" in done.stderr
        assert "6 steps done" in again.stdout and "was" not in again.stderr.partition("config.")[2]
    stages = [load_stage(tmp_path / stage) for stage in ("coarse", "fine")]
    vocabulary = stages[0].vocabulary
    (folder,) = cache.glob("audio-*/manifest.json")
    utterance = Records(folder.parent, vocabulary.unit_inventory_sha256, vocabulary.codec_sha256)[0]
    units = utterance.units[vocabulary.unit_inventory_sha256].expand()
    codes = utterance.codes[vocabulary.codec_sha256].ids
    # 40 frames of codes a unit, crops of 100
    (made,) = coarse_to_fine(*stages, [units[1:4]], [Prompt(units[:1], codes[:40])])
    assert made.shape == (120, 3) and np.ptp(made) > 0
