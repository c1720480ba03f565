import numpy as np
import pytest

from jaxslm.audio.mfcc import DIM, mfcc_39


def speechlike(n, seed=0):
    """Noise with a moving resonance and pauses, plus an offset that the features must not see."""
    rng = np.random.default_rng(seed)
    time = np.arange(n) / 16000
    voiced = np.sin(2 * np.pi * (150 + 40 * np.sin(5 * time)) * time) * (np.sin(3 * time) > -0.5)
    return (0.3 * voiced + 0.01 * rng.normal(size=n) + 0.05).astype(np.float32)


def reference(samples):
    """The definition, frame by frame in float64."""
    samples = samples.astype(np.float64)
    mel = lambda hertz: 1127 * np.log(1 + hertz / 700)  # noqa: E731
    edges = [mel(20) + i * (mel(8000) - mel(20)) / 24 for i in range(25)]
    static = []
    for first in range(0, len(samples) - 400 + 1, 160):
        frame = samples[first : first + 400] - samples[first : first + 400].mean()
        frame = np.array([frame[i] - 0.97 * frame[max(i - 1, 0)] for i in range(400)])
        frame *= np.array([(0.5 - 0.5 * np.cos(2 * np.pi * i / 399)) ** 0.85 for i in range(400)])
        power = np.abs(np.fft.fft(frame, 512)[:257]) ** 2
        logs = []
        for band in range(23):
            left, centre, right = edges[band : band + 3]
            energy = 0.0
            for q in range(257):
                m = mel(q * 16000 / 512)
                if left < m < right:
                    energy += power[q] * (
                        (m - left) / (centre - left) if m <= centre else (right - m) / (right - centre)
                    )
            logs.append(np.log(max(energy, np.finfo(np.float32).eps)))
        cepstra = []
        for c in range(13):
            scale = np.sqrt((1 if c == 0 else 2) / 23) * (1 + 11 * np.sin(np.pi * c / 22))
            cepstra.append(scale * sum(logs[b] * np.cos(np.pi * c * (b + 0.5) / 23) for b in range(23)))
        static.append(cepstra)

    def slopes(rows):
        at = lambda t: np.array(rows[min(max(t, 0), len(rows) - 1)])  # noqa: E731
        return [sum(k * (at(t + k) - at(t - k)) for k in (1, 2)) / 10 for t in range(len(rows))]

    first = slopes(static)
    return np.concatenate([static, first, slopes(first)], axis=1)[::2]


@pytest.mark.parametrize("n", [400, 559, 560, 720, 16000])
def test_equals_the_float64_definition(n):
    features, expected = mfcc_39(speechlike(n)), reference(speechlike(n))
    assert features.shape == expected.shape == ((n - 400) // 320 + 1, DIM) and features.dtype == np.float32
    np.testing.assert_allclose(features, expected, atol=5e-3)


def test_static_part_equals_the_kaldi_front_end_of_transformers():
    audio_utils = pytest.importorskip("transformers.audio_utils")
    scipy_fft = pytest.importorskip("scipy.fft")
    samples = speechlike(24000)
    bands = audio_utils.mel_filter_bank(
        257, 23, 20, 8000, 16000, norm=None, mel_scale="kaldi", triangularize_in_mel_space=True
    )
    logs = audio_utils.spectrogram(
        samples.astype(np.float64),
        audio_utils.window_function(400, "povey", periodic=False),
        frame_length=400,
        hop_length=160,
        fft_length=512,
        power=2.0,
        center=False,
        preemphasis=0.97,
        remove_dc_offset=True,
        mel_filters=bands,
        mel_floor=float(np.finfo(np.float32).eps),
        log_mel="log",
    ).T
    lifter = 1 + 11 * np.sin(np.pi * np.arange(13) / 22)
    expected = scipy_fft.dct(logs, norm="ortho")[:, :13] * lifter
    np.testing.assert_allclose(mfcc_39(samples)[:, :13], expected[::2], atol=5e-3)


def test_frames_do_not_depend_on_what_follows_them():
    samples = speechlike(100_000)  # several chunks
    whole = mfcc_39(samples)
    for n in (41_000, 41_360, 60_000):
        part = mfcc_39(samples[:n])
        np.testing.assert_allclose(part[:-3], whole[: len(part) - 3], atol=1e-4)  # slopes look 4 frames of 10 ms ahead
        np.testing.assert_allclose(part[:, :13], whole[: len(part), :13], atol=1e-4)


def test_digital_silence_is_finite_and_less_than_a_window_is_refused():
    assert np.isfinite(mfcc_39(np.zeros(16000, np.float32))).all()
    with pytest.raises(ValueError, match="399 samples are less than one window of 400"):
        mfcc_39(np.zeros(399, np.float32))
