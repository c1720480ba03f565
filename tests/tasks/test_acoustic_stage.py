"""Runs of acoustic stages on disk: what is read back, what is refused, and the samples of held-out clips."""

import dataclasses
import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import soundfile

from jaxslm.acoustic.autoregressive import Prompt, coarse_to_fine
from jaxslm.acoustic.autoregressive_voice import AutoregressiveVoice
from jaxslm.audio.io import encode_flac
from jaxslm.codec.identity import describe_codec
from jaxslm.codec.runner import CodecRunner
from jaxslm.configure import load_config
from jaxslm.data.records import Records, Utterance, write_records
from jaxslm.models.decoder import Decoder, DecoderConfig, parameter_count
from jaxslm.tasks.acoustic_stage import load_stage, stage_facts, write_facts
from jaxslm.tasks.acoustic_stage_samples import likeliest_codes, pick_coded, write_samples
from jaxslm.tasks.export import export_run
from jaxslm.tokenizer import load_tokenizer
from jaxslm.training.checkpoint import Checkpoints
from jaxslm.training.state import TrainState
from jaxslm.units.inventory import UnitInventory
from jaxslm.units.units import UnitSequence
from jaxslm.vocabulary import build_vocabulary
from tests.codec.codecs import small_codec, write_run

UNITS = UnitInventory(encoder="precomputed:test", layer=0, frame_rate=1000.0, centroids=None, size=12)
SMALL = dict(d_model=16, n_layers=1, n_heads=2, n_kv_heads=2, d_ff=32)  # hops of 8 samples: 2,000 codes a second


def config_of(stage: str, **acoustic):
    config = load_config(f"configs/audiolm_{stage}.py:tiny")
    with config.unlocked():
        config.model.update(SMALL)
        config.data.acoustic.update(dict(coarse_levels=2, seconds=0.02, prompt_seconds=0.005) | acoustic)
    return config


@pytest.fixture(scope="module")
def codec_folder(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("codec") / "toy")


@pytest.fixture(scope="module")
def about():
    return describe_codec(small_codec(), "toy")


def write_stage(workdir, stage: str, about: dict, **acoustic):
    """A workdir as a training run leaves it."""
    config, rates = config_of(stage, **acoustic), SimpleNamespace(units=1000.0, codes=about["frame_rate"])
    vocabulary = build_vocabulary(load_tokenizer("none"), UNITS.size, UNITS.sha256, codec=about)
    workdir.mkdir(parents=True)
    (workdir / "config.json").write_text(config.to_json_best_effort())
    (workdir / "vocabulary.json").write_text(json.dumps(vocabulary.to_json()))
    write_facts(workdir, stage_facts(config, about, UNITS.name, rates))
    model = Decoder(DecoderConfig(vocab_size=vocabulary.padded_size, **config.model), jax.random.key(0))
    zero = jnp.zeros((), jnp.int32)
    checkpoints = Checkpoints(workdir / "checkpoints", keep=1)
    checkpoints.save(3, TrainState(model, {}, zero, jnp.zeros(2, jnp.uint32), zero, zero))
    checkpoints.finish()
    return workdir


@pytest.fixture(scope="module")
def runs(tmp_path_factory, about):
    folder = tmp_path_factory.mktemp("runs")
    return {stage: write_stage(folder / stage, stage, about) for stage in ("coarse", "fine")}


def test_stages_are_read_back_and_make_codes(runs, about):
    stages = [load_stage(runs[stage]) for stage in ("coarse", "fine")]
    decoder, vocabulary, facts = stages[0]
    assert isinstance(decoder, Decoder) and vocabulary.codec_sha256 == about["sha256"]
    assert (facts.stage, facts.levels, stages[1].facts.levels) == ("coarse", (0, 2), (2, 1))
    assert facts.sampling.temperature == 0.8 and stages[1].facts.sampling.temperature == 0.6
    assert facts.crops.frames(facts.rates) == 40 and facts.codec == about
    prompt = Prompt(np.zeros(3, int), np.ones((6, 3), int))
    made = coarse_to_fine(*stages, [np.arange(12), np.arange(30) % 12], [prompt, None])
    assert [codes.shape for codes in made] == [(24, 3), (60, 3)]


def test_units_and_codecs_of_other_runs_are_refused(runs):
    stages = [load_stage(runs[stage]) for stage in ("coarse", "fine")]
    voice = AutoregressiveVoice(*stages, UNITS, small_codec())
    assert "has no durations" in voice.untimed
    with pytest.raises(ValueError, match="the coarse stage speaks units of precomputed:test-l0-k12"):
        AutoregressiveVoice(*stages, dataclasses.replace(UNITS, encoder="precomputed:another"), small_codec())
    with pytest.raises(ValueError, match=r"the coarse stage makes codes of toy \(.*, not of this codec \("):
        AutoregressiveVoice(*stages, UNITS, small_codec(1))


def test_what_is_no_run_of_a_stage_is_refused(runs, tmp_path):
    with pytest.raises(ValueError, match="is no run of an acoustic stage.*audiolm_coarse.py"):
        path = tmp_path / "config.json"
        path.write_text(config_of("coarse").to_json_best_effort())
        load_stage(tmp_path)
    with pytest.raises(ValueError, match="codes of a codec, which has no Hugging Face form"):
        export_run(runs["coarse"], config_of("coarse"), tmp_path / "out")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda config: config.export.update(every=10), "set export.every=0"),
        (
            lambda config: config.data.acoustic.update(coarse_levels=3),
            "the codec has 3 codes a frame.*set it to 1 to 2",
        ),
    ],
)
def test_settings_that_cannot_be(about, change, message):
    config = config_of("fine")
    with config.unlocked():
        change(config)
    with pytest.raises(ValueError, match=message):
        stage_facts(config, about, UNITS.name, SimpleNamespace(units=1.0, codes=1.0))


@pytest.fixture(scope="module")
def records(tmp_path_factory, about):
    folder, runner = tmp_path_factory.mktemp("records"), CodecRunner(small_codec())

    def utterance(i: int, **more) -> Utterance:
        samples = (0.3 * np.sin(np.arange(480 + 80 * i) / (5 + i))).astype(np.float32)
        (codes,) = runner.encode([samples])
        units = UnitSequence(np.arange(10 + i) % 12, np.full(10 + i, 3), 1000.0)
        made = dict(units={UNITS.sha256: units}, codes={about["sha256"]: codes}) | more
        return Utterance(id=f"u{i}", text="a <b>", audio=encode_flac(samples), split="heldout", **made)

    spoken = [utterance(0, codes={}), utterance(1), utterance(2, units={}), utterance(3), utterance(4)]
    write_records(folder / "records", spoken, inventories=[UNITS], codecs=[about])
    return Records(folder / "records")


@pytest.mark.parametrize("stage", ["coarse", "fine"])
def test_samples_are_counted_heard_and_shown(stage, runs, records, codec_folder, tmp_path, caplog):
    decoder, vocabulary, facts = load_stage(runs[stage])
    clips = pick_coded(records, vocabulary, facts, 2)
    assert [clip.utterance.id for clip in clips] == ["u1", "u3"]
    assert [clip.codes.shape for clip in clips] == [(40, 3)] * 2 and all(len(clip.units) == 20 for clip in clips)
    how = dict(clips=clips, vocabulary=vocabulary, facts=facts, codec=str(codec_folder))
    state = SimpleNamespace(model=decoder)
    said = write_samples(state, tmp_path / "run" / "samples", 3, **how)
    assert said.count("(heldout), 0.0 s prompt of 0.0 s") == 2 and "% drawn" in said
    names = ["original", "codec", "generated"] + (["codec_coarse_codes"] if stage == "coarse" else [])
    for name in names:
        samples, rate = soundfile.read(tmp_path / "run" / "samples" / name / "u3.wav")
        assert rate == 16_000 and len(samples) == 320
    page = (tmp_path / "run" / "samples" / "index.html").read_text()
    assert page.count("<audio") == 2 * len(names) and "a &lt;b&gt; [prompt: the first 0.0 s]" in page
    gone = write_samples(state, tmp_path / "again", 3, **how | dict(codec=str(tmp_path / "gone")))
    assert (
        said.startswith(gone) and said != gone and not (tmp_path / "again").exists() and "no sound files" in caplog.text
    )
    assert write_samples(state, tmp_path, 3, **how | dict(clips=[])).startswith("no clip to show")


def test_likeliest_codes_are_the_decoders(runs, records):
    """Against whole logits at every place, one clip, in float32."""
    stage = load_stage(runs["fine"])
    clip = pick_coded(records, stage.vocabulary, stage.facts, 1)[0]
    found = likeliest_codes(stage, clip.codes[:, :2], clip.codes[:, 2:])
    vocabulary = stage.vocabulary
    ids = [1, vocabulary.id("[Coarse]"), *vocabulary.code_ids(clip.codes[:, :2]), vocabulary.id("[Fine]")]
    start = len(ids)
    ids_1xT = jnp.array([[*ids, *vocabulary.code_ids(clip.codes[:, 2:], 2)]], jnp.int32)
    positions = jnp.arange(ids_1xT.shape[1])[None]
    hidden = stage.model(ids_1xT, positions_BxT=positions, segment_ids_BxT=jnp.ones_like(ids_1xT))
    logits = np.asarray(stage.model.logits(hidden[0]))[start - 1 : -1]
    expected = np.where(vocabulary.code_masks(2, 1)[0], logits, -np.inf).argmax(axis=1)
    np.testing.assert_array_equal(found, vocabulary.codes_of(expected, 1, 2))


@pytest.mark.parametrize(("stage", "seconds", "temperature"), [("coarse", 10.0, 0.8), ("fine", 3.0, 0.6)])
def test_recipes_have_the_published_sizes(stage, seconds, temperature):
    config = load_config(f"configs/audiolm_{stage}.py")
    model, acoustic = config.model, config.data.acoustic
    assert (model.n_layers, model.n_heads, model.d_model, model.d_ff) == (12, 16, 1024, 4096)
    assert (acoustic.seconds, acoustic.coarse_levels, acoustic.prompt_seconds) == (seconds, 4, 3.0)
    assert config.samples.temperature == temperature and config.export.every == 0
    codec = dict(name="soundstream", sha256="c" * 64, codebook_sizes=[1024] * 12)
    vocabulary = build_vocabulary(load_tokenizer("none"), 1024, "b" * 64, codec=codec)
    count = parameter_count(DecoderConfig(vocab_size=vocabulary.padded_size, **model))
    assert 225e6 < count < 235e6
    # A crop of the full length, with an odd first frame, fits the context.
    longest = 3 + (251 + 500 * 4 if stage == "coarse" else 150 * 12)
    assert longest - 1 <= config.data.context_length < longest + 128
    with pytest.raises(ValueError, match="tiny"):
        load_config(f"configs/audiolm_{stage}.py:small")
