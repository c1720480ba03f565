import math

import numpy as np
import pytest

from jaxslm.evaluation import codec_metrics, perceptual
from jaxslm.evaluation.codec_metrics import CodeCounts, bitrate, choose_metrics, measure_clip, si_sdr, summarize

RATE = 16_000
PACKAGES = ["pesq", "stoi", "visqol"]


def voice(seconds=2.0, rate=RATE, seed=0):
    """Something with a pitch, formants and pauses, enough of speech for PESQ to find utterances in."""
    t = np.arange(int(seconds * rate)) / rate
    pitch = 2 * np.pi * np.cumsum(120 + 20 * np.sin(3 * t)) / rate
    sound = sum(np.sin(k * pitch) / k for k in range(1, 25)) * (np.sin(2 * np.pi * 1.5 * t) > -0.5)
    return (0.1 * sound + 1e-3 * np.random.default_rng(seed).normal(size=len(t))).astype(np.float32)


def noisy(clip, level=0.02, seed=1):
    return (clip + level * np.random.default_rng(seed).normal(size=len(clip))).astype(np.float32)


def magnitudes(clip, n_fft, hop, window):
    """[F, Q] in float64, a frame at a time: a periodic Hann window in the middle of each, ends mirrored."""
    hann = np.zeros(n_fft)
    hann[(n_fft - window) // 2 :][:window] = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    x = np.pad(clip.astype(np.float64), n_fft // 2, mode="reflect")
    return np.array([np.abs(np.fft.rfft(x[i : i + n_fft] * hann)) for i in range(0, len(clip) + 1, hop)])


def mel_reference(original, reconstruction, rate):
    librosa = pytest.importorskip("librosa")
    total = 0.0
    for window, mels in {32: 5, 64: 10, 128: 20, 256: 40, 512: 80, 1024: 160, 2048: 320}.items():
        bands = librosa.filters.mel(sr=rate, n_fft=window, n_mels=mels).T
        spectra = [magnitudes(x, window, window // 4, window) @ bands for x in (original, reconstruction)]
        a, b = (np.log10(np.maximum(s, 1e-5)) for s in spectra)
        total += np.abs(a - b).mean()
    return total


def stft_reference(original, reconstruction):
    total = 0.0
    for scale in ((1024, 120, 600), (2048, 240, 1200), (512, 50, 240)):
        y, x = (np.maximum(magnitudes(s, *scale), 1e-7**0.5) for s in (original, reconstruction))
        total += np.linalg.norm(y - x) / np.linalg.norm(y) + np.abs(np.log(y) - np.log(x)).mean()
    return total / 3


def test_si_sdr_is_that_of_a_loop_and_knows_no_scale_or_offset():
    original, reconstruction = voice(0.1), noisy(voice(0.1))
    n = len(original)
    means = sum(map(float, original)) / n, sum(map(float, reconstruction)) / n
    a, b = ([float(v) - mean for v in x] for x, mean in zip((original, reconstruction), means, strict=True))
    scale = sum(x * y for x, y in zip(a, b, strict=True)) / sum(x * x for x in a)
    kept = sum((scale * x) ** 2 for x in a)
    lost = sum((y - scale * x) ** 2 for x, y in zip(a, b, strict=True))
    expected = 10 * math.log10(kept / lost)
    assert si_sdr(original, reconstruction) == pytest.approx(expected, rel=1e-6)
    assert si_sdr(original, 0.3 * reconstruction + 0.1) == pytest.approx(expected, rel=1e-4)


def test_si_sdr_of_an_orthogonal_error_is_the_ratio_of_the_energies():
    t = 2 * np.pi * np.arange(1000) / 1000
    assert si_sdr(np.sin(5 * t), 2 * np.sin(5 * t) + 0.2 * np.sin(9 * t)) == pytest.approx(20.0)


@pytest.mark.filterwarnings("ignore:Empty filters")
@pytest.mark.parametrize("rate, n", [(16_000, 3000), (24_000, 1025)])
def test_spectral_distances_are_those_of_a_loop_in_float64(rate, n):
    original, reconstruction = voice(1, rate)[:n], noisy(voice(1, rate)[:n])
    mel = codec_metrics.mel_distance(original, reconstruction, rate)
    assert mel == pytest.approx(mel_reference(original, reconstruction, rate), rel=1e-3)
    stft = codec_metrics.stft_distance(original, reconstruction)
    assert stft == pytest.approx(stft_reference(original, reconstruction), rel=1e-3)


def test_a_clip_far_shorter_than_a_window_has_spectral_distances():
    scores = measure_clip(voice(1)[:7], noisy(voice(1)[:7]), RATE, ["mel", "stft"])
    assert not scores.failures and all(value > 0 for value in scores.values.values())


def test_pesq_and_stoi_are_those_of_their_packages():
    pesq, pystoi = pytest.importorskip("pesq"), pytest.importorskip("pystoi")
    original, reconstruction = voice(), noisy(voice())
    scores = measure_clip(original, reconstruction, RATE, ["pesq", "stoi"]).values
    assert scores["pesq"] == pesq.pesq(RATE, original, reconstruction, "wb")
    assert scores["stoi"] == pystoi.stoi(original, reconstruction, RATE)
    assert 1.0 < scores["pesq"] < 4.6 and 0.5 < scores["stoi"] < 1.0


def test_pesq_and_stoi_hardly_depend_on_the_rate_of_the_clips():
    pytest.importorskip("pesq"), pytest.importorskip("pystoi")
    high = voice(rate=48_000), noisy(voice(rate=48_000), 0.0)
    low = [perceptual.resample(x, 48_000, RATE) for x in high]
    error = 0.02 * np.random.default_rng(1).normal(size=len(low[0])).astype(np.float32)
    high = high[0], high[1] + perceptual.resample(error, RATE, 48_000)
    for metric, slack in (("pesq", 0.05), ("stoi", 0.005)):
        at_48k = measure_clip(*high, 48_000, [metric]).values[metric]
        assert at_48k == pytest.approx(measure_clip(low[0], low[1] + error, RATE, [metric]).values[metric], abs=slack)


@pytest.mark.skipif(bool(perceptual.missing("visqol")), reason="visqol-python[lattice] is not installed")
def test_visqol_falls_with_noise():
    clip = voice()
    clean, bad = (measure_clip(clip, noisy(clip, level), RATE, ["visqol"]).values["visqol"] for level in (1e-4, 0.1))
    assert clean > 4 and bad < clean - 0.5


CLIP = voice()
FAILING = {
    "silence": (0 * CLIP, noisy(CLIP), "si_sdr pesq stoi visqol"),
    "silence instead of speech": (CLIP, 0 * CLIP, "si_sdr pesq visqol"),
    "the same": (CLIP, CLIP, "si_sdr"),
    "not finite": (CLIP, np.where(np.arange(len(CLIP)) == 99, np.nan, CLIP), "si_sdr mel stft pesq stoi visqol"),
    "too short": (CLIP[:1200], noisy(CLIP[:1200]), "pesq stoi visqol"),
}


@pytest.mark.parametrize("name", FAILING)
def test_a_metric_that_fails_is_nan_and_says_why(name):
    original, reconstruction, failing = FAILING[name]
    metrics, _ = choose_metrics()
    scores = measure_clip(original, reconstruction, RATE, metrics)
    assert set(scores.failures) == set(failing.split()) & set(metrics)
    assert all(scores.failures.values())
    assert {name for name, value in scores.values.items() if math.isnan(value)} == set(scores.failures)


def test_wide_band_metrics_refuse_narrow_band_audio():
    pytest.importorskip("pesq")
    assert "8000 Hz" in measure_clip(voice(rate=8000), voice(rate=8000), 8000, ["pesq"]).failures["pesq"]


def test_pesq_refuses_a_clip_that_could_have_more_utterances_than_it_can_hold():
    pytest.importorskip("pesq")
    rng = np.random.default_rng(0)

    def staccato(seconds):
        t = np.arange(int(seconds * RATE)) / RATE
        return (0.1 * rng.normal(size=len(t)) * (t % 0.42 < 0.21)).astype(np.float32)

    longest = staccato(20)
    assert measure_clip(longest, noisy(longest, 1e-3), RATE, ["pesq"]).values["pesq"] > 1
    assert "20 s" in measure_clip(staccato(20.1), staccato(20.1), RATE, ["pesq"]).failures["pesq"]


def test_failures_are_counted_and_named_and_left_out_of_the_mean():
    clips = {"a": noisy(CLIP), "b": 0 * CLIP, "c": noisy(CLIP, 0.05)}
    table = summarize({id: measure_clip(CLIP, clip, RATE, ["si_sdr"]) for id, clip in clips.items()})["si_sdr"]
    values = [si_sdr(CLIP, clips[id]) for id in "ac"]
    assert table["mean"] == table["median"] == pytest.approx(np.mean(values))
    assert table["clips"] == 2 and table["failed"] == {"b": "the reconstruction is silent"}
    silent = summarize({"b": measure_clip(CLIP, 0 * CLIP, RATE, ["si_sdr"])})["si_sdr"]
    assert silent["mean"] is None and silent["clips"] == 0


def test_a_metric_that_is_unknown_or_not_installed_is_refused_by_name(monkeypatch):
    with pytest.raises(ValueError, match="unknown metric mos"):
        choose_metrics(["mel", "mos"])
    monkeypatch.setattr(perceptual.importlib.util, "find_spec", lambda name: None)
    assert choose_metrics()[0] == ["si_sdr", "mel", "stft"]
    assert set(choose_metrics()[1]) == set(PACKAGES)
    with pytest.raises(ValueError, match=r"pip install 'jaxslm\[quality\]'"):
        choose_metrics(["pesq"])


def test_bitrates_and_usage_are_those_of_counts_made_by_hand():
    assert bitrate([1024] * 8, 50) == 4000 and bitrate([2048], 12.5) == 137.5
    codes = np.array([[0, 3], [1, 3], [0, 3], [2, 3]])
    counts = CodeCounts([4, 8])
    counts.add(codes[:1])
    counts.add(codes[1:])
    assert counts.entropy_bitrate(50) == 50 * 1.5  # 1/2, 1/4, 1/4: one and a half bits; one code alone: none
    first, second = counts.levels()
    assert (first["usage"], first["dead"], first["entropy"]) == (0.75, 0.25, 1.5)
    assert first["perplexity"] == pytest.approx(2**1.5)
    assert (second["usage"], second["dead"], second["perplexity"], second["size"]) == (0.125, 0.875, 1.0, 8)


def test_a_code_that_hardly_occurs_is_dead_though_used():
    counts = CodeCounts([2])
    counts.add(np.array([[0]] * 99 + [[1]]))
    assert counts.levels()[0]["usage"] == 1.0 and counts.levels()[0]["dead"] == 0.5
