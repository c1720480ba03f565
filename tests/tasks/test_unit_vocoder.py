"""The unit vocoder as a task: a step against the same written out, a run that stops and goes on and what it leaves
behind, published weights to begin with, and what is refused.
"""

import dataclasses
import functools
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxslm.acoustic.durations import duration_loss
from jaxslm.acoustic.speaking import VocoderRunner
from jaxslm.acoustic.vocoder import Conditions, VocoderConfig
from jaxslm.benchmarks.resume import first_difference
from jaxslm.codec import losses as codec_losses
from jaxslm.configure import load_config
from jaxslm.data.unit_crops import runs_of
from jaxslm.sharding import make_partitioner
from jaxslm.tasks import unit_vocoder as task
from jaxslm.tasks.adversarial import adversarial_training
from jaxslm.tasks.vocoder_files import VOCODER_FILE, import_vocoder, load_vocoder, open_vocoder
from jaxslm.tasks.voices import open_voice
from jaxslm.training import loop
from jaxslm.training.metrics import read_rows
from jaxslm.training.state import make_init
from jaxslm.units.inventory import UnitInventory
from jaxslm.units.units import UnitSequence
from tests.acoustic import vocoders
from tests.acoustic.test_vocoder import write
from tests.data import tones

SMALL = dict(ratios=(320,), kernels=(320,), channels=4, block_kernels=(3,), dilations=((1,),))


def config(folder, **changes):
    lines = tones.write_corpus(folder / "tones", count=8)
    tones.write_manifest(folder / "tones", [line | dict(speaker="ab"[i % 2]) for i, line in enumerate(lines)])
    made = load_config("configs/unit_hifigan.py:tiny")
    with made.unlocked():
        made.model.update(dim=4, generator=SMALL, durations=dict(hidden=4))
        made.losses.spectral.mel.update(window=64, hop=32, n_mels=8)
        made.discriminators.kinds = dict(period=dict(periods=(2,), channels=(2, 2)))
        made.data.sources = tones.config(folder / "tones")["sources"]
        made.data.units.update(clusters=4, seed=1)
        made.data.update(cache=str(folder / "cache"), seconds=0.6, batch_size=2)
        made.losses.adversarial.update(start=1, delay=1)
        made.samples.utterances, made.average_decay = 1, 0.9
        made.checkpoint.every, made.eval.every = 2, 2
        made.steps = 4
        made.update(changes)
    return made


def test_a_step_is_one_gradient_of_each_side():
    made = load_config("configs/unit_hifigan.py:tiny")
    with made.unlocked():
        made.losses.spectral.mel.update(window=64, hop=32, n_mels=8)
        made.losses.adversarial.update(start=0, delay=0)
    small = SMALL | dict(ratios=(vocoders.HOP,), kernels=(vocoders.HOP,))
    shape = vocoders.config(n_speakers=2, durations=dict(hidden=6, dropout=0.0), generator=small)
    training = adversarial_training(made, vocoders.RATE, task.VocoderGenerator())
    kinds = dict(kinds=dict(period=dict(periods=(3,), channels=(2, 4))), level=False)
    build = functools.partial(task.build_model, shape, training, kinds)
    init, _ = make_init(build, training, make_partitioner({"data": 1}, jax.devices()[:1]))
    state = init(jax.random.key(0))
    rng = np.random.default_rng(0)
    frames = np.array([12, 7])
    units = np.where(np.arange(12) < frames[:, None], rng.integers(0, 3, (2, 12)), 0).astype(np.int32)
    real = (0.3 * rng.normal(size=(2, 12 * vocoders.HOP)) * (np.arange(240) < frames[:, None] * 20)).astype(np.float32)
    runs = [runs_of(u, n, 12) for u, n in zip(units, frames, strict=True)]
    batch = {name: np.stack([run[name] for run in runs]) for name in runs[0]}
    batch |= dict(units=units, samples=real, length=(frames * 20)[:, None], speaker=np.array([[1], [0]]))
    after, metrics = jax.jit(training.step, static_argnums=3)(state, batch, None, True)

    def fake(vocoder):
        return vocoder(units, frames, Conditions(speaker_B=batch["speaker"][:, 0]))

    opponents, n_B = state.model["discriminators"], frames * 20

    def of_discriminators(d):
        made_up = fake(state.model["vocoder"])
        return codec_losses.discriminator_loss(d(made_up, n_B), d(real, n_B), "least_squares", average=False)

    def of_vocoder(vocoder, moved):
        samples, reals = fake(vocoder), moved(real, n_B)
        fakes = moved(samples, n_B)
        lasts = vocoder.durations(vocoder.units(batch["run_ids"]), batch["n_runs"][:, 0])
        return (
            45 * training.objective.distance(samples, real, n_B)["mel"]
            + codec_losses.generator_loss(fakes, "least_squares", average=False)
            + 2 * codec_losses.feature_matching(fakes, reals, "sum")
            + duration_loss(lasts, batch["run_frames"], batch["measured"] > 0)
        )

    @jax.jit
    def plain():
        adam = training.optimizers
        change, _ = adam["discriminators"].update(
            jax.grad(of_discriminators)(opponents), state.opt_state["discriminators"], opponents
        )
        moved = optax.apply_updates(opponents, change)
        own = {"vocoder": state.model["vocoder"]}
        change, _ = adam["vocoder"].update(
            {"vocoder": jax.grad(of_vocoder)(own["vocoder"], moved)}, state.opt_state["vocoder"], own
        )
        return optax.apply_updates(own, change)["vocoder"], moved

    for ours, expected in zip(
        jax.tree.leaves((after.model["vocoder"], after.model["discriminators"])), jax.tree.leaves(plain()), strict=True
    ):
        np.testing.assert_allclose(ours, expected, atol=2e-5)
    assert metrics["bad/vocoder"] == 0 and metrics["loss/durations"] > 0


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vocoder")
    whole = config(folder)
    made = task.make(whole, folder / "whole")
    loop.run(made, whole, folder / "whole")
    return folder, whole, made


def test_a_run_stopped_half_way_ends_as_one_that_was_not(finished):
    folder, whole, made = finished
    half = config(folder, steps=2)
    loop.run(made, half, folder / "parts")
    loop.run(made, whole, folder / "parts")
    rows, again = (read_rows(folder / name / "metrics.jsonl") for name in ("whole", "parts"))
    assert first_difference(again, rows) == ""
    assert [("loss/discriminators" in row) for row in rows if "loss" in row] == [False, True, True, True]
    held = rows[-1]
    assert held["heldout/loss"] == pytest.approx(45 * held["heldout/loss/mel"], 1e-5)
    assert held["heldout/duration_error"] > 0 and held["heldout/loss/durations"] > 0


def test_a_vocoder_of_many_voices_is_tuned_to_one(finished, tmp_path):
    folder, whole, _ = finished
    one = config(tmp_path, steps=1, init_from=str(folder / "whole"))
    one.data.units = {"inventory": str(folder / "whole" / "units")}
    manifest = tmp_path / "tones" / "manifest.jsonl"
    lines = [json.loads(line) for line in manifest.read_text().splitlines()]
    manifest.write_text("".join(json.dumps(line | dict(speaker="b")) + "\n" for line in lines))
    made = task.make(one, tmp_path / "tuned")
    assert made.artifacts[VOCODER_FILE]["speakers"] == ["a", "b"]
    assert set(next(made.batches(0))["speaker"].ravel().tolist()) == {1}
    loop.run(made, one, tmp_path / "tuned")
    voice, units = open_voice(tmp_path / "tuned"), [UnitSequence([0, 1, 2], [9, 9, 9], 50.0)]
    assert voice.speakers == ("b", "a")  # the one it was tuned to speaks where none is asked for
    unasked, b, a = (voice.speak(units, [name], None)[0] for name in (None, "b", "a"))
    assert (unasked == b).all() and not np.allclose(b, a)
    one.init_from = str(tmp_path / "gone")
    assert task.make(one, tmp_path / "tuned").artifacts == made.artifacts  # goes on without it
    manifest.write_text("".join(json.dumps(line | dict(speaker="c")) + "\n" for line in lines))
    one.init_from = str(folder / "whole")
    assert task.make(one, tmp_path / "other").artifacts[VOCODER_FILE]["speakers"] == ["c"]


def test_a_workdir_is_all_that_a_vocoder_needs(finished, tmp_path):
    folder, _, made = finished
    moved = shutil.copytree(folder / "whole", tmp_path / "moved")
    inventory = UnitInventory.load(moved / "units")
    vocoder, facts = load_vocoder(moved, units_sha256=inventory.sha256)
    assert facts.speakers == ("a", "b") and facts.inventory_sha256 == inventory.sha256
    time_N = np.arange(16_000) / 16_000
    units = inventory.encode(0.3 * np.sin(2 * np.pi * (200 + 300 * (time_N > 0.5)) * time_N).astype(np.float32))
    [samples] = VocoderRunner(vocoder, facts).speak([units], speaker="b")
    restored = made.abstract_state()
    checkpoints = loop.Checkpoints(moved / "checkpoints", 3)
    state = checkpoints.restore(4, restored)
    own = task.trained(state.model)
    expected = own(units.expand()[None], None, Conditions(speaker_B=np.array([1])))[0]
    np.testing.assert_allclose(samples, expected, atol=1e-6)
    assert not np.allclose(
        expected, state.model["vocoder"](units.expand()[None], None, Conditions(speaker_B=np.array([1])))[0]
    )
    assert (moved / "loss.png").is_file() and len(list(moved.glob("samples/**/*.wav"))) == 3
    page = (moved / "samples" / "index.html").read_text()
    assert "Curves of the run" in page and "predicted_durations" in page and "resynthesis" in page
    assert {each.name.split("/")[-1] for each in made.media(state)} == {
        "original",
        "resynthesis",
        "predicted_durations",
    }


def test_units_of_another_inventory_are_refused(finished, tmp_path):
    folder, whole, made = finished
    hashes = f"{made.artifacts[VOCODER_FILE]['inventory_sha256'][:12]}.*these are of {'0' * 12}.*: use a"
    with pytest.raises(ValueError, match=hashes):
        open_vocoder(folder / "whole", units_sha256="0" * 64)
    saved = json.loads((folder / "whole" / VOCODER_FILE).read_text())
    other = dataclasses.replace(made, artifacts={VOCODER_FILE: saved | {"inventory_sha256": "0" * 64}})
    with pytest.raises(ValueError, match="the vocoder speaks units of"):
        loop.run(other, whole, folder / "whole")
    named = dataclasses.replace(made, artifacts={VOCODER_FILE: saved | {"speakers": ["a", "c"]}})
    with pytest.raises(ValueError, match="speakers was .'a', 'b'. and is .'a', 'c'. now"):
        loop.run(named, whole, folder / "whole")
    with pytest.raises(ValueError, match="has no vocoder.json: name the workdir of a run with task='unit_vocoder'"):
        load_vocoder(tmp_path)


def test_what_cannot_be_trained_is_refused_by_name(finished):
    folder, whole, _ = finished

    def refused(message, change):
        made = whole.copy_and_resolve_references()
        with made.unlocked(), made.ignore_type():
            change(made)
        with pytest.raises(ValueError, match=message):
            task.make(made, folder / "refused")

    refused("ratios=.* make 80 samples of a frame, but units of 50 Hz at 16000 Hz have 320: give ratios whose product",
            lambda c: c.model.generator.update(ratios=(5, 16), kernels=(5, 16)))  # fmt: skip
    refused(r"generator has no field 'ration'. Did you mean ratios\?", lambda c: c.model.generator.update(ration=3))
    refused("data.units is empty: a vocoder speaks units", lambda c: setattr(c.data, "units", {}))
    tones.write_corpus(folder / "nobody", count=8)
    refused("model.speakers=True, but no training utterance has a speaker: set it to False",
            lambda c: setattr(c.data, "sources", tones.config(folder / "nobody")["sources"]))  # fmt: skip


def test_training_begins_with_a_published_vocoder(tmp_path):
    reference, settings = vocoders.reference(**vocoders.CONDITIONED), vocoders.settings(**vocoders.CONDITIONED)
    folder = write(tmp_path / "published", reference, settings)
    theirs, _ = open_vocoder(folder)
    same = dict(n_pitches=5, n_style_codes=6, n_styles=4, pitch_frames=2, style_frames=5)
    own = vocoders.make(**same, n_speakers=7)  # other speakers: their table starts anew
    taken = import_vocoder({"vocoder": own, "discriminators": None, "average": own}, folder)
    rng = np.random.default_rng(0)
    units, codes = rng.integers(0, 9, (1, 12)), rng.integers(0, 4, (1, 12))
    given = dict(pitch_BxT=codes, style_code_BxT=codes, speaker_B=np.array([1]), style_B=np.array([2]))
    speakers = jnp.zeros_like(taken["vocoder"].conditions["speaker"].weight[...])
    taken["vocoder"].conditions["speaker"].weight[...] = speakers
    theirs.conditions["speaker"].weight[...] = speakers[:3]
    ours, expected = (vocoders.sound(each, units, **given) for each in (taken["vocoder"], theirs))
    np.testing.assert_allclose(ours, expected, atol=1e-5)
    for a, b in zip(taken["average"].log_durations(units), theirs.log_durations(units), strict=True):
        if a is not None:
            np.testing.assert_allclose(a, b, atol=1e-5)
    with pytest.raises(ValueError, match=r"for generator/blocks/0.*give `model` and data.units the settings of that"):
        generator = vocoders.GENERATOR | dict(block_kernels=(5, 7))
        wider = jax.eval_shape(lambda: vocoders.make(**same, n_speakers=7, generator=generator))
        import_vocoder({"vocoder": wider, "discriminators": None, "average": None}, folder)


def test_a_published_vocoder_is_a_voice_if_units_are_all_it_needs(tmp_path):
    voice = open_voice(write(tmp_path / "plain", vocoders.reference(), vocoders.settings()))
    units = UnitSequence([1, 5, 2], [2, 3, 1], voice.runner.model.config.frame_rate)
    (made,) = voice.speak([units], [None], jax.random.key(0))
    theirs, _ = open_vocoder(tmp_path / "plain")
    np.testing.assert_allclose(made, vocoders.sound(theirs, units.expand()[None])[0], atol=1e-5)
    with pytest.raises(ValueError, match="looks ahead and does not stream"):
        voice.check_stream()
    with pytest.raises(ValueError, match="'anna' is no speaker of this vocoder"):
        voice.prompt("anna", "the voice")
    conditioned = vocoders.reference(**vocoders.CONDITIONED), vocoders.settings(**vocoders.CONDITIONED)
    with pytest.raises(ValueError, match="needs pitch and style_code, which no units have"):
        open_voice(write(tmp_path / "more", *conditioned))


@pytest.mark.parametrize("size", ["", ":tiny"])
def test_the_config_makes_steps(size):
    """Shapes only."""
    made = load_config(f"configs/unit_hifigan.py{size}")
    fields = made.model.to_dict()
    fields.pop("speakers")
    shape = VocoderConfig(n_speakers=3, **fields)
    training = adversarial_training(made, made.data.sample_rate, task.VocoderGenerator())
    build = functools.partial(task.build_model, shape, training, made.discriminators.to_dict())
    _, state = make_init(build, training, make_partitioner({"data": 1}, jax.devices()[:1]))
    of = lambda *shape, dtype=jnp.int32: jax.ShapeDtypeStruct((2, *shape), dtype)  # noqa: E731
    batch = dict.fromkeys(("units", "run_ids", "run_frames", "measured"), of(28))
    batch |= dict.fromkeys(("length", "speaker", "n_runs"), of(1)) | {"samples": of(8960, dtype=jnp.float32)}
    assert round(made.data.seconds * made.data.sample_rate) == 8960
    after, metrics = jax.eval_shape(functools.partial(training.step, contest=True), state, batch, None)
    assert [leaf.shape for leaf in jax.tree.leaves(after)] == [leaf.shape for leaf in jax.tree.leaves(state)]
    assert {"loss", "loss/mel", "loss/durations", "loss/adversarial", "loss/feature", "loss/discriminators"} <= set(
        metrics
    )
