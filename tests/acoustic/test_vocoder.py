"""The vocoder: published files against a torch reference, padding, pieces, and what is refused."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from jaxslm.acoustic.durations import predict
from jaxslm.acoustic.hifigan import GeneratorConfig
from jaxslm.acoustic.speaking import VocoderFacts, VocoderRunner, at_frames
from jaxslm.acoustic.vocoder import VocoderConfig
from jaxslm.hf.vocoder import load_vocoder_file
from jaxslm.units.units import UnitSequence
from tests.acoustic import vocoders

RATE = 50.0


def units_of(n: int, seed: int = 0) -> UnitSequence:
    rng = np.random.default_rng(seed)
    return UnitSequence(np.cumsum(rng.integers(1, vocoders.UNITS, n)) % vocoders.UNITS, rng.integers(1, 5, n), RATE)


def write(folder, reference, settings, *, safetensors=False, **changes):
    """A published file of the reference, with some tensors changed, and config.json."""
    folder.mkdir(exist_ok=True)
    state = {name: value.clone().contiguous() for name, value in reference.published_state().items()} | changes
    state = {name: value for name, value in state.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(settings))
    if safetensors:
        save_file(state, folder / "model.safetensors")
    else:
        torch.save({"generator": state}, folder / "g_00400000")
    return folder


@pytest.mark.parametrize("kind", ["plain", "conditioned", "safetensors"])
def test_a_published_file_sounds_and_lasts_as_in_torch(tmp_path, kind):
    changes = vocoders.CONDITIONED if kind == "conditioned" else {}
    reference = vocoders.reference(**changes)
    folder = write(tmp_path / "v", reference, vocoders.settings(**changes), safetensors=kind == "safetensors")
    ours, facts = load_vocoder_file(folder)
    units, rng = units_of(12), np.random.default_rng(1)
    n = int(units.durations.sum())
    given, theirs = {}, {}
    if changes:
        codes = rng.integers(0, 5, -(-n // 2)), rng.integers(0, 6, -(-n // 5))
        given = dict(speaker="2", style="3", pitch=[codes[0]], style_codes=[codes[1]])
        at = [np.repeat(c, step)[:n] for c, step in zip(codes, (2, 5), strict=True)]
        f0, style = (torch.from_numpy(each)[None] for each in at)
        theirs = dict(f0_code=f0, style_code=style, spkr=torch.tensor([2]), style=torch.tensor([3]))
        assert facts.speakers == ("0", "1", "2") and len(facts.styles) == 4
    with torch.no_grad():
        expected = reference(torch.from_numpy(units.expand()).long()[None], **theirs)[0].numpy()
        frames = reference.frames(torch.from_numpy(units.ids).long()[None])[0].numpy()
    [made] = VocoderRunner(ours, facts).speak([units], **given)
    assert expected.std() > 1e-2 and len(np.unique(frames)) > 2
    np.testing.assert_allclose(made, expected, atol=1e-4)
    np.testing.assert_array_equal(predict(ours, [units])[0].durations, frames)
    if not changes:
        [predicted] = VocoderRunner(ours, facts).speak([units], predicted=True)
        with torch.no_grad():
            again = reference(torch.from_numpy(np.repeat(units.ids, frames)).long()[None])[0].numpy()
        np.testing.assert_allclose(predicted, again, atol=1e-4)


def test_files_that_do_not_fit_are_refused_by_tensor(tmp_path):
    reference, settings = vocoders.reference(), vocoders.settings()

    def refused(message, settings=settings, **changes):
        with pytest.raises(ValueError, match=message):
            load_vocoder_file(write(tmp_path / "bad", reference, settings, **changes))

    state = reference.published_state()
    refused(r"lacks resblocks.1.convs1.0.weight", **{"resblocks.1.convs1.0.weight_v": None})
    refused(r"lacks ups.1.bias", **{"ups.1.bias": None})
    refused(r"has extra.weight, which this vocoder has not", **{"extra.weight": torch.zeros(3)})
    refused(r"conv_post.bias has shape \[2\].*\[1\] is expected", **{"conv_post.bias": torch.zeros(2)})
    refused(r"dict.weight has values that are not finite", **{"dict.weight": state["dict.weight"] * np.nan})
    refused(r"dict.weight has shape \[9, 8\] .*\[10, 8\] is expected", dict(settings, num_embeddings=10))
    refused(r"ratios=\(5, 4\) make 20 samples of a frame, but units of 62.5 Hz", dict(settings, code_hop_size=16))
    refused(r"resblock='2'; only '1'", dict(settings, resblock="2"))
    refused(r"embedder_params=.* is not known here", dict(settings, embedder_params={"a": 1}))
    extra = write(tmp_path / "vq", reference, settings, **{"quantizer.vq.k": torch.zeros(3)})
    load_vocoder_file(extra)  # the F0 quantizer that speech-resynthesis keeps in the same file
    (tmp_path / "none").mkdir()
    with pytest.raises(ValueError, match="0 checkpoints of a vocoder.*name the file itself"):
        load_vocoder_file(tmp_path / "none")
    torch.save({"model": {}}, tmp_path / "none" / "g_1")
    (tmp_path / "none" / "config.json").write_text(json.dumps(settings))
    with pytest.raises(ValueError, match="no state dict under 'generator'"):
        load_vocoder_file(tmp_path / "none")


@functools.cache
def conditioned():
    return vocoders.make(n_speakers=3, n_pitches=5, pitch_frames=2).folded()


def test_rows_of_different_lengths_are_what_they_are_alone():
    rng = np.random.default_rng(0)
    units, pitch = rng.integers(0, vocoders.UNITS, (3, 9)), rng.integers(0, 5, (3, 9))
    frames, speaker = np.array([9, 4, 1]), np.array([2, 0, 1])
    made = np.asarray(vocoders.sound(conditioned(), units, frames, pitch_BxT=pitch, speaker_B=speaker))
    for row, n in enumerate(frames):
        own = dict(pitch_BxT=pitch[row : row + 1, :n], speaker_B=speaker[row : row + 1])
        alone = np.asarray(vocoders.sound(conditioned(), units[row : row + 1, :n], **own))[0]
        assert len(alone) == n * vocoders.HOP and alone.std() > 1e-3
        np.testing.assert_allclose(made[row, : len(alone)], alone, atol=1e-6)
        assert not made[row, len(alone) :].any()


def test_what_lies_beyond_the_reach_of_a_frame_does_not_bear_on_it():
    model, reach = vocoders.make(durations=None).folded(), GeneratorConfig(**vocoders.GENERATOR).reach
    units = np.zeros((1, 4 * reach + 1), np.int32)
    middle = units.copy()
    middle[0, 2 * reach] = 1
    moved = (
        np.abs(np.asarray(vocoders.sound(model, middle) - vocoders.sound(model, units)))[0]
        .reshape(-1, vocoders.HOP)
        .max(axis=1)
    )
    touched = np.flatnonzero(moved)
    assert touched.min() >= reach and touched.max() <= 3 * reach
    assert touched.min() <= reach + 3 and touched.max() >= 3 * reach - 3  # nor is it much more than need be


def test_long_units_are_made_in_pieces_and_short_ones_together():
    model = vocoders.make().folded()
    units = [units_of(n, seed=n) for n in (150, 3, 40)] + [UnitSequence([], [], RATE)]
    facts = VocoderFacts(model.config)
    runner = VocoderRunner(model, facts, batch_seconds=0.1)
    assert int(units[0].durations.sum()) > 2 * runner.most
    for each, samples in zip(units, runner.speak(units), strict=True):
        assert samples.dtype == np.float32 and len(samples) == each.durations.sum() * vocoders.HOP
        if len(each):
            np.testing.assert_allclose(samples, vocoders.sound(model, each.expand()[None])[0], atol=1e-5)


def test_each_sequence_has_its_own_speaker_and_codes():
    facts = VocoderFacts(conditioned().config, ("ann", "bob", "eve"))
    runner, units = VocoderRunner(conditioned(), facts), [units_of(4), units_of(5)]
    pitch = [np.arange(-(-each.durations.sum() // 2)) % 5 for each in units]
    made = runner.speak(units, speaker=["bob", "eve"], pitch=pitch)
    for i, number in enumerate((1, 2)):
        at = np.repeat(pitch[i], 2)[None, : units[i].durations.sum()]
        direct = vocoders.sound(conditioned(), units[i].expand()[None], pitch_BxT=at, speaker_B=np.array([number]))
        np.testing.assert_allclose(made[i], direct[0], atol=1e-6)
    [other] = runner.speak(units[:1], speaker="ann", pitch=pitch[:1])
    assert np.abs(other - made[0]).max() > 1e-3
    of_units = [np.arange(len(each)) % 5 for each in units]
    [first, _] = runner.speak(units, pitch=of_units, predicted=True)
    [told] = predict(conditioned(), units[:1])
    at = np.repeat(of_units[0], told.durations)[None]
    direct = vocoders.sound(conditioned(), told.expand()[None], pitch_BxT=at, speaker_B=np.array([0]))
    np.testing.assert_allclose(first, direct[0], atol=1e-6)


def test_speed_is_of_predicted_durations():
    model = vocoders.make()
    model.durations.project.bias[...] = jnp.array([np.log(11.0)])
    runner = VocoderRunner(model, VocoderFacts(model.config))
    [usual], [fast] = (runner.speak([units_of(50)], predicted=True, speed=speed) for speed in (1.0, 2.0))
    assert abs(len(usual) / len(fast) - 2) < 0.1 and len(usual) > 400 * vocoders.HOP
    with pytest.raises(ValueError, match="set predicted=True with them"):
        runner.speak([units_of(5)], speed=2.0)


def test_codes_at_a_lower_rate_are_repeated_and_the_last_goes_on():
    np.testing.assert_array_equal(at_frames([3, 1, 2], 2, 5), [3, 3, 1, 1, 2])
    np.testing.assert_array_equal(at_frames([3, 1, 2], 2, 8), [3, 3, 1, 1, 2, 2, 2, 2])
    for wrong in ([3], [3, 1, 2, 4, 0], []):
        with pytest.raises(ValueError, match="one each 2 frames, for 6 frames: give 3"):
            at_frames(wrong, 2, 6)


def test_what_a_vocoder_cannot_say_is_refused_with_its_cure():
    facts = VocoderFacts(conditioned().config, ("ann", "bob", "eve"), (), "", "mfcc-l0-k9", "a" * 64)
    runner, units = VocoderRunner(conditioned(), facts), [units_of(4)]
    pitch = [np.zeros(-(-units[0].durations.sum() // 2), int)]

    def refused(message, units=units, **options):
        with pytest.raises(ValueError, match=message):
            runner.speak(units, **dict(speaker="bob", pitch=pitch) | options)

    refused("speaker='eva' is not one of the vocoder's: ann, bob, eve. Did you mean eve", speaker="eva")
    refused("needs a pitch", pitch=None)
    refused("pitch runs from 0 to 5, but the vocoder has 5", pitch=[pitch[0] + 5])
    refused("2 sequences of pitch for 1 of units", pitch=pitch * 2)
    refused("style_code is given, but the vocoder has none: leave it out", style_codes=pitch)
    refused("style='calm', but the vocoder has one", style="calm")
    refused("unit 9, but the vocoder has 9", [UnitSequence([9], [1], RATE)])
    refused("units of 25 Hz, but the vocoder speaks those of 50 Hz", [UnitSequence([1], [1], 25.0)])
    facts.check_units("a" * 64)
    with pytest.raises(ValueError, match=r"\(aaaaaaaaaaaa\), these are of bbbbbbbbbbbb.*: use a run that was"):
        facts.check_units("b" * 64)
    assert VocoderFacts.from_json(json.loads(json.dumps(facts.to_json()))) == VocoderFacts.from_json(facts.to_json())
    assert VocoderFacts.from_json(facts.to_json()).to_json() == facts.to_json()
    with pytest.raises(ValueError, match="predicts no durations"):
        bare = vocoders.make(durations=None)
        VocoderRunner(bare, VocoderFacts(bare.config)).speak(units, predicted=True)


def test_configs_that_make_no_vocoder_are_refused():
    with pytest.raises(
        ValueError, match="ratios=.* make 320 samples of a frame, but units of 100 Hz at 16000 Hz have 160"
    ):
        VocoderConfig(frame_rate=100.0)
    with pytest.raises(ValueError, match=r"generator has no field 'ration'. Did you mean ratios\?"):
        VocoderConfig(generator=dict(ration=(2,)))
    with pytest.raises(ValueError, match="give each ratio a kernel that is longer by an even number"):
        GeneratorConfig(ratios=(5, 4), kernels=(10, 8))
    with pytest.raises(ValueError, match="channels=6 cannot be halved 2 times"):
        GeneratorConfig(ratios=(5, 4), kernels=(11, 8), channels=6)


def test_the_published_size_has_as_many_parameters_as_the_reference():
    from jaxslm.acoustic.vocoder import Vocoder
    from jaxslm.benchmarks.vocoder_torch import TorchVocoder

    published = vocoders.settings(
        embedding_dim=128, num_embeddings=100, upsample_rates=[5, 4, 4, 2, 2], upsample_kernel_sizes=[11, 8, 8, 4, 4],
        upsample_initial_channel=512, resblock_kernel_sizes=[3, 7, 11], resblock_dilation_sizes=[[1, 3, 5]] * 3,
        dur_predictor_params=dict(var_pred_hidden_dim=128, var_pred_kernel_size=3),
    )  # fmt: skip
    with torch.device("meta"):
        theirs = sum(value.numel() for value in TorchVocoder(published).parameters())
    ours = jax.eval_shape(functools.partial(Vocoder, VocoderConfig()), jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(ours)) == theirs > 13e6
