import io

import numpy as np
import pytest
import soundfile

from jaxslm.audio.io import SAMPLE_RATE, AudioError, Clip, WavStream, decode_flac, encode_flac, encode_wav, read_audio


def tone(seconds=1.0, rate=SAMPLE_RATE, hertz=440.0, peak=0.5):
    return (peak * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


def file_bytes(samples, rate=SAMPLE_RATE, **kind):
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, **({"format": "WAV", "subtype": "PCM_16"} | kind))
    return buffer.getvalue()


@pytest.mark.parametrize("kind", [{}, {"format": "FLAC"}, {"subtype": "FLOAT"}, {"format": "WAV", "subtype": "PCM_24"}])
def test_good_audio_comes_back_unchanged_from_path_bytes_and_array(tmp_path, kind):
    path = tmp_path / "a.wav"
    path.write_bytes(file_bytes(tone(), **kind))
    for source in (path, str(path), path.read_bytes(), (tone(), SAMPLE_RATE), (tone().astype(np.float64), SAMPLE_RATE)):
        clip = read_audio(source, where="here")
        assert clip.notes == () and clip.samples.dtype == np.float32 and clip.duration == 1.0
        np.testing.assert_allclose(clip.samples, tone(), atol=2 / 32768)


def test_lossy_files_are_read():
    for kind in ({"format": "OGG", "subtype": "VORBIS"}, {"format": "MP3", "subtype": "MPEG_LAYER_III"}):
        clip = read_audio(file_bytes(tone(2.0), **kind), where="here")
        assert abs(clip.duration - 2.0) < 0.1
        assert abs(np.abs(clip.samples).max() - 0.5) < 0.05


@pytest.mark.parametrize("rate", [4_000, 8_000, 11_025, 44_100, 48_000, 192_000])
def test_other_rates_are_resampled_to_the_same_tone(rate):
    clip = read_audio(file_bytes(tone(rate=rate), rate), where="here")
    assert clip.notes == (f"resampled from {rate} Hz",)
    assert abs(len(clip.samples) - SAMPLE_RATE) <= 1
    np.testing.assert_allclose(clip.samples[800:-800], tone()[: len(clip.samples)][800:-800], atol=2e-3)


def test_channels_are_mixed_down():
    left, right = tone(), tone(hertz=1000)
    clip = read_audio(file_bytes(np.stack([left, right], axis=1)), where="here")
    assert clip.notes == ("2 channels mixed down",)
    np.testing.assert_allclose(clip.samples, (left + right) / 2, atol=2 / 32768)


def test_clipping_is_noted_and_kept():
    loud = np.clip(tone(peak=1.2), -1, 1)
    share = 100 * np.mean(np.abs(loud) >= 0.999)
    assert read_audio((loud, SAMPLE_RATE), where="here").notes == (f"clipped: {share:.1f} % of samples at full scale",)
    assert read_audio((tone(peak=0.99), SAMPLE_RATE), where="here").notes == ()


def test_float_audio_beyond_full_scale_is_scaled_not_clipped():
    clip = read_audio((tone(peak=2.5), SAMPLE_RATE), where="here")
    assert clip.notes == ("peak of 2.5 scaled down to 1",)
    np.testing.assert_allclose(clip.samples, tone(peak=1.0), atol=1e-5)


@pytest.mark.parametrize("dtype", [np.int16, np.int32])
def test_whole_number_samples_have_their_own_full_scale(dtype):
    steps = (tone() * -float(np.iinfo(dtype).min)).astype(dtype)
    np.testing.assert_allclose(read_audio((steps, SAMPLE_RATE), where="here").samples, tone(), atol=1e-4)


def nan_at(second):
    samples = tone()
    samples[int(second * SAMPLE_RATE)] = np.nan
    return samples


BAD = {
    "no file": ("missing.wav", "there is no file missing.wav; correct the path"),
    "no audio": (b"this is not audio, whatever its name", "unreadable audio .*; convert it with `ffmpeg"),
    "empty file": (b"", r"empty \(0 bytes\); write the file again"),
    "empty wav": (file_bytes(tone(0)), r"empty \(0 samples\); write the file again"),
    "silent": ((np.zeros(16000, np.float32), 16000), "the clip is silent; record it again"),
    "constant": ((np.full(16000, 0.3, np.float32), 16000), "the clip is silent"),
    "opposed": ((np.stack([tone(), -tone()], 1), 16000), "the clip is silent once its channels are mixed down"),
    "nan": ((nan_at(0.25), 16000), "NaN or infinite samples, the first at 0.250 s; write the clip again"),
    "nan file": (file_bytes(nan_at(0.5), subtype="FLOAT"), "NaN or infinite samples, the first at 0.500 s"),
    "infinite": ((np.r_[np.float32(np.inf), tone()], 16000), "NaN or infinite samples, the first at 0.000 s"),
    "short": ((tone(0.05), 16000), "0.050 s is shorter than the 0.1 s a clip needs; join it"),
    "long": ((tone(61.0), 16000), "61.0 s is longer than the limit of 60 s; cut it at pauses, or raise max_seconds"),
    "int64": ((np.ones(16000, np.int64), 16000), "type int64 have no known full scale; give int16 or float32"),
    "low rate": ((tone(rate=3_999), 3_999), "a sample rate of 3999 Hz, where 4000 to 192000 Hz can be read; correct"),
    "high rate": ((tone(rate=192_001), 192_001), "a sample rate of 192001 Hz"),
    "no rate": ((tone(), float("nan")), "a sample rate of nan Hz"),
    "low rate of a file": (file_bytes(tone(rate=3_999), 3_999), "a sample rate of 3999 Hz.* or resample with `ffmpeg"),
    "high rate of a file": (file_bytes(tone(rate=192_001), 192_001), "a sample rate of 192001 Hz"),
    "shape": ((np.ones((2, 2, 2)), 16000), r"samples of shape \(2, 2, 2\)"),
}


@pytest.mark.parametrize("source, message", BAD.values(), ids=BAD.keys())
def test_bad_audio_is_refused_with_place_cause_and_cure(source, message):
    with pytest.raises(AudioError, match=f"^train.jsonl:7: .*{message}"):
        read_audio(source, where="train.jsonl:7")


def test_a_folder_and_a_cut_off_file_are_refused(tmp_path):
    with pytest.raises(AudioError, match="there is no file"):
        read_audio(tmp_path, where="here")
    rng = np.random.default_rng(0)
    whole = file_bytes(rng.uniform(-0.5, 0.5, 32000).astype(np.float32), format="FLAC")
    with pytest.raises(AudioError, match="cut off|unreadable"):
        read_audio(whole[: len(whole) // 2], where="here")


def test_an_hour_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    path = tmp_path / "hour.wav"
    soundfile.write(path, np.zeros(3600 * 8000, np.int16), 8000)
    monkeypatch.setattr(soundfile.SoundFile, "read", lambda *_, **__: pytest.fail("decoded"))
    with pytest.raises(AudioError, match="here: 3600.0 s is longer than the limit of 60 s; cut it at pauses"):
        read_audio(path, where="here")


def test_the_limit_can_be_raised():
    assert read_audio((tone(61.0), SAMPLE_RATE), where="here", max_seconds=float("inf")).duration == 61.0


def test_flac_keeps_16_bit_audio_exactly():
    steps = np.random.default_rng(0).integers(-32768, 32768, 5000)
    samples = (steps / 32768).astype(np.float32)
    assert np.array_equal(decode_flac(encode_flac(samples)), samples)
    clip = read_audio(encode_flac(samples), where="here")
    assert isinstance(clip, Clip) and np.array_equal(clip.samples, samples)
    assert decode_flac(encode_flac(np.array([1.5, -1.5]))).tolist() == [32767 / 32768, -1.0]


@pytest.mark.parametrize(
    "kind",
    [("WAV", "PCM_16"), ("AIFF", "PCM_16"), ("W64", "PCM_24"), ("AU", "FLOAT"), ("OGG", "VORBIS"), ("OGG", "OPUS")],
)
def test_a_file_whose_end_is_missing_is_refused_whatever_its_kind(kind, tmp_path):
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, 64_000).astype(np.float32)
    whole = file_bytes(samples, format=kind[0], subtype=kind[1])
    assert read_audio(whole, where="here").duration == 4.0
    (tmp_path / "half").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "whole").write_bytes(whole)
    assert read_audio(tmp_path / "whole", where="here").duration == 4.0
    for source in (whole[: len(whole) // 2], tmp_path / "half"):
        with pytest.raises(
            AudioError, match=r"here: the file( '.*half')? is cut off, .* s can be decoded; copy it again"
        ):
            read_audio(source, where="here")


def test_a_wav_from_a_pipe_promises_too_much_and_is_read():
    whole = file_bytes(np.random.default_rng(0).uniform(-0.5, 0.5, 16_000).astype(np.float32), format="WAV")
    at = whole.index(b"data") + 4
    for promised in (2**32 - 1, 2**31 - 1):
        piped = (
            whole[:4] + promised.to_bytes(4, "little") + whole[8:at] + promised.to_bytes(4, "little") + whole[at + 4 :]
        )
        assert read_audio(piped, where="here").duration == 1.0


def test_silence_passes_where_it_is_asked_for():
    clip = read_audio((np.zeros(100, np.float32), SAMPLE_RATE), where="here", min_seconds=0, silence=True)
    np.testing.assert_array_equal(clip.samples, np.zeros(100))


def test_a_growing_wav_can_be_read_before_and_after_it_is_closed(tmp_path):
    rng = np.random.default_rng(0)
    parts = [rng.uniform(-1.2, 1.2, n).astype(np.float32) for n in (100, 7)]
    path = tmp_path / "new" / "a.wav"
    with WavStream(path, 16_000) as file:
        assert not path.exists()  # and one of before would still be there
        file.write(parts[0])
        assert len(soundfile.read(path)[0]) == 100
        file.write(parts[1])
    samples_N, rate = soundfile.read(path, dtype="int16")
    wanted = soundfile.read(io.BytesIO(encode_wav(np.concatenate(parts), 16_000)), dtype="int16")[0]
    assert rate == 16_000 and file.n_samples == 107
    np.testing.assert_array_equal(samples_N, wanted)
