"""The masked stage as a task: a run that stops and goes on, what it leaves behind, and what it refuses."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from jaxslm.audio.io import Clip, read_audio
from jaxslm.codec.identity import codec_sha256
from jaxslm.codec.runner import CodecRunner
from jaxslm.data.records import Records
from jaxslm.tasks import acoustic as task
from jaxslm.tasks.codec_files import KEPT_WEIGHTS, codebook_values, open_codec
from jaxslm.tasks.voices import open_voice
from jaxslm.training import loop
from jaxslm.training.metrics import read_rows
from jaxslm.units.units import UnitSequence
from tests.tasks import tiny_acoustic


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("acoustic")
    return folder, folder / "run", tiny_acoustic.train(folder, folder / "run", steps=4)


def test_a_run_stopped_half_way_ends_as_one_that_was_not(run):
    folder, whole, config = run
    half = tiny_acoustic.config(folder, steps=2)
    made = task.make(config, folder / "parts")
    loop.run(made, half, folder / "parts")
    loop.run(made, config, folder / "parts")
    both = [read_rows(w / "metrics.jsonl") for w in (whole, folder / "parts")]
    losses = [[row["loss"] for row in rows if "loss" in row] for rows in both]
    assert len(losses[0]) == 4 and losses[0] == losses[1]
    held = next(row for row in read_rows(whole / "metrics.jsonl") if "heldout/loss" in row)
    assert {"heldout/accuracy", "heldout/loss/durations"} <= set(held)


def test_the_page_and_the_sounds_of_held_out_clips(run):
    _, workdir, _ = run
    page = (workdir / "samples" / "index.html").read_text()
    for kind in ("original", "codec", "resynthesis", "continued", "other_voice"):
        files = sorted((workdir / "samples" / kind).rglob("*.wav"))
        assert len(files) == 2 and kind in page
        assert all(len(read_audio(file, where="", silence=True, min_seconds=0).samples) > 8000 for file in files)


def test_a_run_needs_nothing_beside_it_and_speaks(run):
    folder, workdir, config = run
    (folder / "codec").rename(folder / "moved")
    voice = open_voice(workdir)
    (folder / "moved").rename(folder / "codec")
    tone = read_audio(folder / "tones" / "audio" / "u3.wav", where="u3")
    units = voice.inventory.encode_batch([tone.samples])
    prompt = voice.prompt(tone)
    assert 0 < len(prompt.units) <= voice.stage.longest_prompt
    made = voice.speak(units, [prompt], jax.random.key(0))
    assert abs(len(made[0]) / voice.sample_rate - units[0].seconds) < 0.01 and np.isfinite(made[0]).all()
    timed = voice.timed(units, speed=2.0, key=jax.random.key(0))
    assert timed[0].durations.min() >= 1
    streamed = list(voice.stream(units[0], prompt, jax.random.key(0), seconds=0.05))
    assert len(streamed) > 2 and sum(map(len, streamed)) == len(made[0])


def test_a_stream_is_the_codec_of_the_whole(run):
    """A causal codec in chunks is the codec of all codes at once."""
    _, workdir, _ = run
    voice = open_voice(workdir)
    units = UnitSequence([1, 4, 2, 0, 5], [3, 9, 4, 12, 2], voice.inventory.frame_rate)
    aligned, none = voice._aligned(units), voice.stage.no_prompt()
    codes = np.concatenate(list(voice.stage.stream(aligned, none, jax.random.key(3), 30)))
    whole = voice.decode([codes])[0]
    chunks = list(voice.stream(units, None, jax.random.key(3), seconds=30 / voice.frame_rate))
    np.testing.assert_allclose(np.concatenate(chunks), whole, atol=1e-5)


def test_prompts_that_cannot_be_are_refused(run):
    _, workdir, _ = run
    voice = open_voice(workdir)
    with pytest.raises(ValueError, match="me.wav lasts 0.001 s, less than a frame"):
        voice.prompt(Clip(np.zeros(16, np.float32)), "me.wav")
    with pytest.raises(ValueError, match="a prompt of 9 s: this stage takes more than 0 and at most 0.07 s"):
        voice.prompt(Clip(np.zeros(16_000, np.float32)), "me.wav", seconds=9.0)
    with pytest.raises(ValueError, match="the name 'anna'.*recording"):
        voice.prompt("anna", "the voice")


def test_units_and_codecs_of_others_are_refused_by_name_and_hash(run, tmp_path):
    folder, workdir, config = run
    voice = open_voice(workdir)
    with pytest.raises(ValueError, match=r"speaks units of mfcc-l0-k6 \(\w{12}\), these are of ffffffffffff"):
        voice.check_units("f" * 64)
    other = dataclasses.replace(voice.inventory, layer=1)
    model = {"masked": voice.stage.model, "durations": voice.durations}
    with pytest.raises(ValueError, match="data.units.inventory"):
        task.MaskedVoice(model, voice.facts, other, voice.codec.codec)
    codec, _ = open_codec(tiny_acoustic.make_codec(tmp_path / "other", seed=1))
    with pytest.raises(ValueError, match=r"decodes codes of tiny \(\w{12}\), not of this codec \(\w{12}\)"):
        task.MaskedVoice(model, voice.facts, voice.inventory, codec)
    changed = tiny_acoustic.config(folder)
    changed.data.codec = str(tmp_path / "other")
    with pytest.raises(ValueError, match=r"acoustic.json: this run was trained with the codec tiny \(\w{12}\)"):
        loop.run(task.make(changed, workdir), changed, workdir)
    changed = tiny_acoustic.config(folder)
    changed.data.units.clusters = 5
    with pytest.raises(ValueError, match=r"the inventory mfcc-l0-k6 \(\w{12}\), the config gives mfcc-l0-k5"):
        loop.run(task.make(changed, workdir), changed, workdir)


def test_the_first_levels_alone_are_learnt_and_spoken(tmp_path):
    config = tiny_acoustic.config(tmp_path)
    config.data.levels = 1
    loop.run(task.make(config, tmp_path / "run"), config, tmp_path / "run")
    voice = open_voice(tmp_path / "run")
    assert voice.stage.model.config.n_levels == 1 and voice.codec.n_levels == 1
    clip = read_audio(tmp_path / "tones" / "audio" / "u3.wav", where="u3")
    assert voice.prompt(clip).codes.shape[1] == 1
    (codes,) = voice.codes([voice.inventory.encode(clip.samples)], [None], jax.random.key(0))
    assert codes.shape == (39 * 16, 1)  # as long as the units, 39 frames of 20 ms
    config.data.levels = 3
    with pytest.raises(ValueError, match="data.levels=3, but the codec has 2"):
        task.make(config, tmp_path / "run")


def test_a_config_without_a_codec_says_how_to_get_one(tmp_path):
    config = tiny_acoustic.config(tmp_path)
    config.data.codec = ""
    with pytest.raises(ValueError, match="data.codec is empty: train a codec.*--config.data.codec=runs/codec"):
        task.make(config, tmp_path / "run")
    config.data.codec = str(tmp_path)
    with pytest.raises(ValueError, match="is no codec"):
        task.make(config, tmp_path / "run")
    with pytest.raises(ValueError, match="is no run that speaks.*soundstorm"):
        open_voice(tmp_path)


def test_a_kept_codec_is_the_codec_and_damage_is_found(tmp_path):
    codec, name = open_codec(tiny_acoustic.make_codec(tmp_path / "codec"))
    again, _ = open_codec(tmp_path / "codec")
    assert name == "tiny" and codec_sha256(codec) == codec_sha256(again)
    path = tmp_path / "codec" / KEPT_WEIGHTS
    data = bytearray(path.read_bytes())
    data[-2000] ^= 64
    path.write_bytes(data)
    with pytest.raises(ValueError, match=f"{KEPT_WEIGHTS} is not the codec that was kept"):
        open_codec(tmp_path / "codec")
    path.write_bytes(data[:-50])
    with pytest.raises(ValueError, match=f"{KEPT_WEIGHTS} is missing, damaged"):
        open_codec(tmp_path / "codec")


def test_codes_beside_prepared_audio_are_those_of_the_clips(run):
    folder, workdir, _ = run
    facts = json.loads((workdir / task.ACOUSTIC_FILE).read_text())
    codec, _ = open_codec(folder / "codec")
    (prepared,) = (folder / "cache").glob("audio-*/")
    records = Records(prepared, facts["inventory"]["sha256"], facts["codec"]["sha256"])
    assert [c["sha256"] for c in records.manifest["codecs"]] == [codec_sha256(codec)]
    clips = [read_audio(utterance.audio, where="").samples for utterance in records]
    for utterance, codes in zip(records, CodecRunner(codec).encode(clips), strict=True):
        assert utterance.codes[facts["codec"]["sha256"]] == codes
        assert facts["inventory"]["sha256"] in utterance.units
    records.check()
    assert not Records(prepared, facts["inventory"]["sha256"])[0].codes


def test_values_of_codes_are_what_they_add_to_the_latents():
    codec = tiny_acoustic.Codec(tiny_acoustic.tiny_codec.config(), jax.random.key(0))
    values_QxKxC = codebook_values(codec)
    codes_1x5xQ = np.random.default_rng(0).integers(0, 8, (1, 5, 2))
    both = sum(values_QxKxC[q][codes_1x5xQ[..., q]] for q in range(2))
    found = codec.quantizer.decode(codes_1x5xQ)
    constant = found - both
    np.testing.assert_allclose(constant, np.broadcast_to(constant[:, :1], constant.shape), atol=1e-5)
