import importlib.util
import json
import sys

import numpy as np
import pytest
import soundfile

from jaxslm.audio.io import Clip, decode_clip, encode_wav, read_audio, write_wav
from jaxslm.codec.runner import CodecRunner
from jaxslm.data.prepare import prepared_folder
from jaxslm.data.records import Records
from jaxslm.evaluation import speakers
from jaxslm.evaluation.resynthesis import Spoken, evaluate_resynthesis, read_spoken, summary
from jaxslm.suites.resynthesis import named_runs
from jaxslm.tasks.codec_files import open_codec
from jaxslm.tasks.voices import open_voice
from jaxslm.units.inventory import UnitInventory
from tests.tasks import tiny_acoustic

RATE = 16_000


def babble(seed: int, seconds: float = 1.0) -> Clip:
    rng = np.random.default_rng(seed)
    return Clip(0.3 * np.sin(np.cumsum(rng.uniform(0.02, 0.4, round(seconds * RATE)))).astype(np.float32), rate=RATE)


class Parrot:
    """Says each clip as it was, a little too long, and keeps what it was asked to sound like."""

    clones, sample_rate = True, RATE
    inventory = UnitInventory("mfcc", 0, 50.0, np.random.default_rng(0).normal(size=(20, 39)).astype(np.float32), 20)

    def __init__(self, clips, change=lambda samples_N: samples_N):
        self.said = [change(np.pad(clip.audio.samples, (0, 99))) for clip in clips]
        self.prompts = []

    def prompt(self, given, where, *, from_end=False):
        return given

    def speak(self, units, prompts, key, watch):
        self.prompts.append(prompts)
        with watch("waveform"):
            return self.said[: len(units)]


@pytest.fixture
def clips():
    return [Spoken(f"s/{i}", babble(i), f"words {i}", "ann", babble(9)) for i in range(3)]


def test_the_same_speech_scores_as_such_and_other_speech_does_not(clips, tmp_path):
    voices = dict(
        same=Parrot(clips), noisy=Parrot(clips, lambda x: x + np.random.default_rng(1).normal(0, 0.1, len(x)))
    )
    result = evaluate_resynthesis(voices, clips, tmp_path, metrics=["mel", "stft"], progress=False)
    of = {name: {metric: m["mean"] for metric, m in v["metrics"].items()} for name, v in result["voices"].items()}
    assert list(of) == ["original", "same", "noisy"]
    assert of["same"]["mel"] == of["same"]["stft"] == 0 < 1 < of["noisy"]["mel"] and "mel" not in of["original"]
    assert result["clips"] == 3 and result["seconds"] == 3.0
    assert voices["same"].prompts[0] == [clip.voice for clip in clips]
    assert set(result["voices"]["same"]["speed"]) == {"units", "prompts", "waveform"}
    assert json.loads((tmp_path / "resynthesis.json").read_text()) == result
    told = summary(result)
    assert "3 clips, 0.05 min" in told and "same" in told and "mel distance" in told


def test_sounds_and_lists_are_what_judges_read(clips, tmp_path):
    evaluate_resynthesis(dict(parrot=Parrot(clips)), clips, tmp_path, metrics=["mel"], shown=1, progress=False)
    rows = [json.loads(line) for line in (tmp_path / "parrot.jsonl").read_text().splitlines()]
    assert [row["text"] for row in rows] == ["words 0", "words 1", "words 2"]
    for row, clip in zip(rows, clips, strict=True):
        made, original = (soundfile.read(tmp_path / row[f"{kind}_filepath"])[0] for kind in ("audio", "reference"))
        np.testing.assert_array_equal(made, original)
        np.testing.assert_allclose(original, clip.audio.samples, atol=1e-4)
    assert "reference_filepath" not in (tmp_path / "original.jsonl").read_text()
    assert (tmp_path / "index.html").read_text().count("<audio") == 2


def test_all_take_on_the_voice_that_is_asked_for(clips, tmp_path):
    write_wav(tmp_path / "other.wav", babble(5).samples, RATE)
    parrot = Parrot(clips)
    result = evaluate_resynthesis(
        dict(parrot=parrot), clips, tmp_path, voice=str(tmp_path / "other.wav"), metrics=["mel"], progress=False
    )
    for prompt in parrot.prompts[0]:
        np.testing.assert_allclose(prompt.samples, babble(5).samples, atol=1e-4)
    assert "mel" not in result["voices"]["parrot"]["metrics"]  # it need not be the original
    assert "reference_filepath" not in (tmp_path / "parrot.jsonl").read_text()


class Package:
    """Of Resemblyzer, what is asked of it: it finds no speech in silence, and hears how loud a voice is."""

    class VoiceEncoder:
        def __init__(self, device, verbose):
            pass

        def embed_utterance(self, samples_N):
            loud = np.abs(samples_N).max(initial=0.0) > 0.1
            return np.array([loud, not loud], float)

    @staticmethod
    def preprocess_wav(samples_N, rate):
        return samples_N[samples_N != 0]


def test_likeness_of_voices_is_that_of_the_package(clips, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name == "resemblyzer" or None)
    monkeypatch.setitem(sys.modules, "resemblyzer", Package)
    clips[2] = clips[2]._replace(voice=Clip(0.01 * babble(9).samples, rate=RATE))
    voices = dict(same=Parrot(clips), silent=Parrot(clips, np.zeros_like))
    result = evaluate_resynthesis(voices, clips, tmp_path, metrics=["mel"], progress=False)
    of = {name: v["metrics"]["speaker"] for name, v in result["voices"].items()}
    assert of["original"]["mean"] == of["same"]["mean"] == pytest.approx(2 / 3)
    assert of["silent"]["clips"] == 0 and set(of["silent"]["failed"].values()) == {"no speech was found"}
    assert "none (3 failed)" in summary(result)
    clips[0] = clips[0]._replace(voice=Clip(np.zeros(RATE, np.float32), rate=RATE))
    clips[1] = clips[1]._replace(voice=None)
    result = evaluate_resynthesis(dict(same=Parrot(clips)), clips, tmp_path, metrics=["mel"], progress=False)
    assert result["voices"]["same"]["metrics"]["speaker"]["failed"] == {"s/0": "no speech was found"}
    assert result["without_voice"] == 1 and "1 clips have no other recording" in summary(result)


def test_a_package_that_cannot_be_imported_is_said_to_be_missing(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    monkeypatch.setitem(sys.modules, "resemblyzer", None)
    encoder, cure = speakers.encoder()
    assert encoder is None and "setuptools<81" in cure


def test_speakers_of_a_vocoder_go_by_their_names(clips, tmp_path):
    clips[1] = clips[1]._replace(speaker="bob")
    parrot = Parrot(clips)
    parrot.clones, parrot.speakers = False, ("ann",)
    evaluate_resynthesis(dict(parrot=parrot), clips, tmp_path, metrics=["mel"], progress=False)
    assert parrot.prompts[0] == ["ann", None, "ann"]
    result = evaluate_resynthesis(dict(parrot=parrot), clips, tmp_path, voice="ann", metrics=["mel"], progress=False)
    assert result["without_voice"] == 0  # all are said by her
    assert parrot.prompts[-1] == ["ann"]  # each timed alone


def test_what_cannot_be_compared_is_refused(clips, tmp_path):
    slow = Parrot(clips)
    slow.sample_rate = 8000
    with pytest.raises(ValueError, match="8000, 16000"):
        evaluate_resynthesis(dict(a=Parrot(clips), b=slow), clips, tmp_path, progress=False)
    with pytest.raises(ValueError, match="'codec'.*NAME=WORKDIR"):
        evaluate_resynthesis(dict(codec=slow), clips, tmp_path, progress=False)
    slow.inventory = None
    with pytest.raises(ValueError, match="slow has no encoder"):
        evaluate_resynthesis(dict(slow=slow), clips, tmp_path, progress=False)
    with pytest.raises(ValueError, match="same id"):
        evaluate_resynthesis(dict(a=Parrot(clips)), clips + clips[:1], tmp_path, progress=False)
    with pytest.raises(ValueError, match="out of the folder"):
        evaluate_resynthesis(dict(a=Parrot(clips)), [clips[0]._replace(id="../x")], tmp_path, progress=False)


def test_a_run_is_measured_beside_its_codec(tmp_path):
    config = tiny_acoustic.train(tmp_path, tmp_path / "run")
    records = prepared_folder(config.data, tmp_path / "cache")
    clips = read_spoken(records, split="train", most=2)
    assert len(clips) == 2
    every = {u.id: decode_clip(u.audio).samples for u in Records(records)}
    for clip in clips:
        others = np.concatenate([samples_N for id, samples_N in every.items() if id != clip.id])
        np.testing.assert_array_equal(clip.voice.samples, others[: 3 * clip.voice.rate])
    voice = open_voice(tmp_path / "run")
    result = evaluate_resynthesis(dict(masked=voice), clips, tmp_path / "out", metrics=["mel"], progress=False)
    assert list(result["voices"]) == ["original", "codec", "masked"]
    codec, _ = open_codec(tmp_path / config.data.codec)
    runner = CodecRunner(codec)
    originals = [
        read_audio(encode_wav(c.audio.samples, c.audio.rate), where="", sample_rate=codec.config.sample_rate)
        for c in clips
    ]
    for clip, wanted in zip(clips, runner.decode(runner.encode([o.samples for o in originals])), strict=True):
        kept, _ = soundfile.read(tmp_path / "out" / "codec" / f"{clip.id}.wav")
        np.testing.assert_allclose(kept, np.clip(wanted, -1, 1), atol=2e-3)
    with pytest.raises(ValueError, match="no recordings"):
        read_spoken(records, prefix="elsewhere")


def test_runs_go_by_the_names_they_are_given(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lr=1e-3").mkdir()
    asked = ["a=runs/one", "pair=runs/coarse,runs/fine", "runs/two", "lr=1e-3"]
    named = {"a": "runs/one", "pair": "runs/coarse,runs/fine", "two": "runs/two", "lr=1e-3": "lr=1e-3"}
    assert named_runs(asked) == named
    with pytest.raises(ValueError, match="two of --acoustic are called 'two'"):
        named_runs(["runs/two", "other/two"])
    with pytest.raises(ValueError, match="give the two stages a name"):
        named_runs(["runs/coarse,runs/fine"])
