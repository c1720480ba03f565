"""The codec as a task: a run that stops and goes on, what it leaves behind, and what it refuses."""

import json

import jax
import numpy as np
import pytest

from jaxslm.benchmarks.resume import first_difference
from jaxslm.codec.model import Codec, CodecConfig
from jaxslm.configure import load_config
from jaxslm.tasks import codec as task
from jaxslm.tasks.codec_files import import_codec
from jaxslm.training import loop
from jaxslm.training.metrics import read_rows
from tests.codec import tiny_codec
from tests.data import tones


def config(folder, **changes):
    tones.write_corpus(folder / "tones", count=8)
    made = load_config("configs/soundstream_16k.py:tiny")
    with made.unlocked():
        network = tiny_codec.NETWORK
        made.model = dict(dim=8, encoder=network, decoder=network, quantizer=dict(n_levels=2, codebook_size=8))
        made.losses.spectral = tiny_codec.losses()["spectral"]
        made.discriminators.kinds = dict(stft=dict(windows=(64,), channels=2))
        made.data.sources = tones.config(folder / "tones")["sources"]
        made.data.update(cache=str(folder / "cache"), seconds=0.1, batch_size=2)
        made.losses.adversarial.update(start=1, delay=1)
        made.checkpoint.every, made.eval.every = 2, 2
        made.steps = 4
        made.update(changes)
    return made


def test_a_run_of_a_codec_stopped_half_way_ends_as_one_that_was_not(tmp_path):
    whole = config(tmp_path)
    made = task.make(whole, tmp_path / "whole")
    loop.run(made, whole, tmp_path / "whole")
    half = config(tmp_path, steps=2)
    loop.run(made, half, tmp_path / "parts")
    assert [row["step"] for row in read_rows(tmp_path / "parts" / "metrics.jsonl")] == [1, 2, 2]
    loop.run(made, whole, tmp_path / "parts")
    rows, again = (read_rows(tmp_path / name / "metrics.jsonl") for name in ("whole", "parts"))
    assert first_difference(again, rows) == ""
    assert [("loss/discriminators" in row) for row in rows if "loss" in row] == [False, True, True, True]
    held = rows[-1]
    assert held["heldout/loss"] == pytest.approx(
        2 * held["heldout/loss/mel"] + 0.1 * held["heldout/loss/waveform"], 1e-5
    )
    assert 0 < held["heldout/usage"] <= 1 and (tmp_path / "whole" / "loss.png").is_file()

    codec = task.load_run(tmp_path / "whole")
    saved = json.loads((tmp_path / "whole" / task.CODEC_FILE).read_text())
    assert isinstance(codec, Codec) and codec.config.to_json() == saved
    state = loop_state(made, whole, tmp_path / "whole")
    clip = np.random.default_rng(0).normal(size=(1, 700)).astype(np.float32)
    expected = task.trained(state.model)
    np.testing.assert_array_equal(codec.encode(clip), expected.encode(clip))
    np.testing.assert_allclose(codec.decode(codec.encode(clip)), expected.decode(expected.encode(clip)), atol=1e-6)
    different = state.model["codec"].decode(expected.encode(clip)) - expected.decode(expected.encode(clip))
    assert np.abs(different).max() > 1e-4  # the mean of the weights is not the last of them


def loop_state(made, config, workdir):
    state, step = loop._starting_state(made, config, workdir, loop.Checkpoints(workdir / "checkpoints", 3))
    assert step == config.steps
    return state


def test_what_cannot_be_trained_is_refused_by_name(tmp_path):
    base = config(tmp_path)

    def refused(message: str, **changes):
        with base.unlocked():
            changed = base.copy_and_resolve_references()
            for key, value in changes.items():
                *parents, last = key.split("__")
                node = changed
                for parent in parents:
                    node = node[parent]
                with node.unlocked(), node.ignore_type():
                    node[last] = value
        with pytest.raises(ValueError, match=message):
            task.make(changed, tmp_path / "refused")

    refused(r"encoder.kind='seenet' is not one of seanet, dac", model__encoder={"kind": "seenet"})
    refused(r"encoder has no field 'ration'. Did you mean ratios\?", model__encoder={"kind": "seanet", "ration": (2,)})
    refused("frame of 320 samples and the decoder 20 of one", model__encoder={"kind": "seanet"})
    refused(
        "losses.spectral.mel.form is 'soundstreem'.*Did you mean soundstream", losses__spectral__mel__form="soundstreem"
    )
    refused("data.sample_rate=1: choose 4000 to 192000 Hz", data__sample_rate=1)


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match="has no codec.json: name the workdir of a run with task='codec'"):
        task.load_run(tmp_path)


def test_training_begins_with_a_codec_of_hugging_face(tmp_path):
    hf = pytest.importorskip("jaxslm.hf.codec")
    config = load_config("configs/encodec_24k.py:tiny")
    fields = config.model.to_dict()
    plain = dict(fields, **{part: dict(fields[part], norm="none") for part in ("encoder", "decoder")})
    plain["quantizer"] = dict(plain["quantizer"], kmeans_iterations=0)
    theirs = Codec(CodecConfig(sample_rate=24_000, **plain), jax.random.key(0))
    hf.save_codec(theirs, tmp_path / "hf")
    own = Codec(CodecConfig(sample_rate=24_000, **fields), jax.random.key(1))
    model = {"codec": own, "student": None, "discriminators": None, "average": own.with_codebooks(None)}
    taken = import_codec(model, tmp_path / "hf")
    clip = 0.3 * np.random.default_rng(0).normal(size=(1, 5000)).astype(np.float32)
    codes = theirs.encode(clip)
    np.testing.assert_array_equal(taken["codec"].encode(clip), codes)
    np.testing.assert_allclose(task.trained(taken).decode(codes), theirs.decode(codes), atol=1e-5)
    with pytest.raises(ValueError, match="for decoder/layers/0/bias.*give `model` the settings of that codec"):
        smaller = Codec(tiny_codec.config(), jax.random.key(0))
        import_codec(dict(model, codec=smaller), tmp_path / "hf")
