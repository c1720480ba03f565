import numpy as np
import pytest

from jaxslm.audio.log_mel import log_mel
from tests.audio.test_mfcc import speechlike

transformers = pytest.importorskip("transformers")


@pytest.mark.parametrize("n_mels", [80, 128])
@pytest.mark.parametrize("n", [1, 399, 16_000, 479_999, 480_000])
def test_equals_the_feature_extractor_of_transformers(n, n_mels):
    clip = speechlike(n)
    extractor = transformers.WhisperFeatureExtractor(feature_size=n_mels)
    expected = extractor(clip, sampling_rate=16_000).input_features[0].T
    np.testing.assert_allclose(log_mel(clip[None], n_mels)[0], expected, atol=1e-4)


def test_equals_the_definition_in_float64():
    clip = speechlike(16_000)
    padded = np.pad(clip.astype(np.float64), (0, 464_000))
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    padded = np.pad(padded, 200, mode="reflect")
    power = np.array([np.abs(np.fft.rfft(window * padded[160 * i : 160 * i + 400])) ** 2 for i in range(3000)])
    bands = transformers.WhisperFeatureExtractor().mel_filters
    logs = np.log10(np.maximum(power @ bands, 1e-10))
    expected = (np.maximum(logs, logs.max() - 8) + 4) / 4
    np.testing.assert_allclose(log_mel(clip[None], 80)[0], expected, atol=1e-4)


def test_fewer_frames_are_the_first_of_all_frames():
    clip = speechlike(20_007)
    n_frames = 2 * -(-len(clip) // 320)
    np.testing.assert_allclose(
        log_mel(clip[None], 80, n_frames + 2)[:, :n_frames], log_mel(clip[None], 80)[:, :n_frames], atol=1e-6
    )
