import json

import numpy as np
import pytest
import soundfile

from jaxslm.audio.io import encode_flac
from jaxslm.codec.codes import CodeSequence
from jaxslm.codec.identity import describe_codec
from jaxslm.codec.runner import CodecRunner
from jaxslm.data import code_files
from jaxslm.data.code_files import AudioClips, decode_records, encode_clips
from jaxslm.data.records import Records, Utterance, write_records
from jaxslm.units.units import UnitSequence
from tests.codec.codecs import small_codec

RATE = 16_000
CODEC = small_codec()
RUNNER = CodecRunner(CODEC)
SAID = describe_codec(CODEC, "small")


def tone(n=1600, rate=RATE, hertz=300):
    return (0.4 * np.sin(2 * np.pi * hertz * np.arange(n) / rate)).astype(np.float32)


def encode(paths, out, **options):
    report = encode_clips(RUNNER, SAID, AudioClips(paths), out, progress=False, **options)
    return {utterance.id: utterance for utterance in Records(out)}, report


@pytest.fixture
def audio(tmp_path):
    folder = tmp_path / "audio"
    (folder / "in").mkdir(parents=True)
    soundfile.write(folder / "tone.wav", tone(), RATE)
    soundfile.write(folder / "in" / "stereo.FLAC", np.stack([tone(4410, 44_100)] * 2, axis=1), 44_100)
    soundfile.write(folder / "silence.wav", np.zeros(800), RATE)
    soundfile.write(folder / "short.wav", tone(3), RATE)
    soundfile.write(folder / "square.wav", np.sign(tone(801)), RATE)
    (folder / "notes.txt").write_text("no audio")
    return folder


def test_clips_of_any_rate_channels_and_length_become_codes_and_wav_files_again(audio, tmp_path):
    made, report = encode([audio], tmp_path / "codes")
    assert {id: u.codes[SAID["sha256"]].n_samples for id, u in made.items()} == {
        "in/stereo": 1600, "short": 3, "silence": 800, "square": 801, "tone": 1600,
    }  # fmt: skip
    assert report.count() == 0 and report.count("note") == 3  # channels and rate of one, full scale of another
    manifest = Records(tmp_path / "codes").manifest
    assert manifest["codecs"] == [{**SAID, "kept_levels": SAID["levels"]}] and manifest["hours"][
        "train"
    ] == pytest.approx(4804 / RATE / 3600, abs=1e-4)
    decode_records(RUNNER, SAID["sha256"], Records(tmp_path / "codes"), tmp_path / "wavs", progress=False)
    alone = RUNNER.decode(RUNNER.encode([soundfile.read(audio / "tone.wav", dtype="float32")[0]]))[0]
    for id, utterance in made.items():
        samples, rate = soundfile.read(tmp_path / "wavs" / f"{id}.wav")
        assert rate == RATE and len(samples) == utterance.codes[SAID["sha256"]].n_samples
        if id == "tone":
            np.testing.assert_allclose(samples, np.clip(alone, -1, 1), atol=2**-14)


def test_what_cannot_be_used_is_named_and_the_rest_is_encoded(audio, tmp_path):
    soundfile.write(audio / "nan.wav", np.full(800, np.nan), RATE, subtype="FLOAT")
    soundfile.write(audio / "empty.wav", np.zeros(0), RATE)
    soundfile.write(audio / "long.wav", tone(3200), RATE)
    soundfile.write(audio / "fast.wav", tone(1, 96_000), 96_000)
    (audio / "broken.wav").write_bytes(b"RIFF and no more")
    made, report = encode([audio], tmp_path / "codes", max_seconds=0.15)
    left_out = {entry["where"]: entry["cause"] for entry in report.entries if entry["kind"] == "left out"}
    causes = dict(nan="NaN", empty="empty", long="longer than the limit", fast="one sample", broken="unreadable")
    assert {name: left_out[str(audio / f"{name}.wav")] for name in causes} == {
        name: next(cause for cause in left_out.values() if words in cause) for name, words in causes.items()
    }
    assert len(left_out) == 5 and len(made) == 5
    saved = [json.loads(line) for line in (tmp_path / "codes" / "report.jsonl").read_text().splitlines()]
    assert sum(entry["kind"] == "left out" for entry in saved) == 5


def test_groups_of_clips_give_what_all_at_once_give_in_the_same_order(audio, tmp_path, monkeypatch):
    once, _ = encode([audio], tmp_path / "once")
    monkeypatch.setattr(code_files, "GROUP_SECONDS", 0.01)
    monkeypatch.setattr(code_files, "_READ_AHEAD", 2)
    apart, _ = encode([audio], tmp_path / "apart")
    assert once == apart and list(once) == list(apart)


def test_prepared_records_keep_all_but_their_audio(tmp_path):
    units = {"a" * 64: UnitSequence(np.array([1]), np.array([2]), 50.0)}
    old = {"b" * 64: CodeSequence(np.zeros((1, 1)), 1.0, 1)}
    fields = dict(audio=encode_flac(tone()), duration=0.1, speaker="s", language="en", split="heldout")
    spoken = Utterance("u", "text", **fields, units=units, codes=old)
    inventory = dict(name="x", sha256="a" * 64)
    given = [spoken, Utterance("document", "text alone")]
    write_records(tmp_path / "records", given, inventories=[inventory], codecs=[dict(name="old", sha256="b" * 64)])
    made, _ = encode([tmp_path / "records"], tmp_path / "codes")
    assert made["document"] == given[1]
    assert (made["u"].text, made["u"].speaker, made["u"].split, made["u"].units) == ("text", "s", "heldout", units)
    assert made["u"].audio is None and set(made["u"].codes) == {"b" * 64, SAID["sha256"]}
    manifest = Records(tmp_path / "codes").manifest
    assert manifest["inventories"] == [inventory] and [c["name"] for c in manifest["codecs"]] == ["old", "small"]


def test_paths_that_cannot_be_encoded_are_refused(audio, tmp_path):
    (tmp_path / "nothing").mkdir()
    with pytest.raises(ValueError, match="no file or folder"):
        AudioClips([tmp_path / "gone"])
    with pytest.raises(ValueError, match="holds no audio"):
        AudioClips([tmp_path / "nothing"])
    with pytest.raises(ValueError, match="both be called 'tone'"):
        AudioClips([audio, audio / "tone.wav"])
    encode([audio / "tone.wav"], tmp_path / "codes")
    with pytest.raises(ValueError, match="already holds records"):
        encode([audio / "tone.wav"], tmp_path / "codes")


def test_codes_of_another_codec_are_refused_by_hash_and_name(audio, tmp_path):
    encode([audio / "tone.wav"], tmp_path / "codes")
    other = small_codec(seed=1)
    sha256 = describe_codec(other, "other")["sha256"]
    with pytest.raises(
        ValueError, match=rf"codes of small \({SAID['sha256'][:12]}\).*not of this codec \({sha256[:12]}"
    ):
        decode_records(CodecRunner(other), sha256, Records(tmp_path / "codes"), tmp_path / "wavs", progress=False)
    write_records(tmp_path / "plain", [Utterance("a", "text")])
    with pytest.raises(ValueError, match="holds no codes"):
        decode_records(RUNNER, SAID["sha256"], Records(tmp_path / "plain"), tmp_path / "wavs", progress=False)


def test_codes_that_cannot_be_decoded_are_named_and_nothing_leaves_the_folder(tmp_path):
    good = CodeSequence(np.zeros((2, 3)), 2000.0, 16)
    codes = {
        "good": good,
        "range": CodeSequence(np.full((2, 3), 16), 2000.0, 16),
        "levels": CodeSequence(np.zeros((2, 2)), 2000.0, 16),
        "../escaped": good,
    }
    utterances = [Utterance(id, codes={SAID["sha256"]: each}) for id, each in codes.items()]
    write_records(tmp_path / "codes", [*utterances, Utterance("none", "text")], codecs=[SAID])
    records, wavs = Records(tmp_path / "codes"), tmp_path / "wavs"
    report = decode_records(RUNNER, SAID["sha256"], records, wavs, progress=False)
    assert sorted(path.name for path in wavs.rglob("*.wav")) == ["good.wav"] and not list(tmp_path.glob("*.wav"))
    assert {entry["where"] for entry in report.entries if entry["kind"] == "left out"} == {*codes, "none"} - {"good"}
    with pytest.raises(ValueError, match="is not empty"):
        decode_records(RUNNER, SAID["sha256"], records, wavs, progress=False)
