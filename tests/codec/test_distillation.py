"""What a teacher hears and how its frames are brought to the codec's."""

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal
import torch

from jaxslm.codec.distillation import pool_frames, resample
from jaxslm.codec.model import Codec
from jaxslm.tasks.codec_teacher import open_teacher
from tests.codec import tiny_codec


def test_resampling_is_that_of_scipy():
    noise = np.fft.rfft(np.random.default_rng(0).normal(size=(2, 2400)))
    samples = np.fft.irfft(noise * (np.arange(1201) < 700), n=2400).astype(np.float32)  # below 7 kHz
    ours, n_B = resample(jnp.array(samples), jnp.array([2400, 1200]), 24_000)
    np.testing.assert_allclose(ours[0], scipy.signal.resample(samples[0], 1600), atol=1e-4)
    assert n_B.tolist() == [1600, 800] and not np.any(ours[1, 800:])


def test_pooling_is_that_of_torch_and_padding_does_not_count():
    x = np.random.default_rng(0).normal(size=(2, 16, 3)).astype(np.float32)
    pooled, frames_B = pool_frames(jnp.array(x), jnp.array([16, 8]), 4)
    pool = torch.nn.AvgPool1d(8, 4, padding=2, count_include_pad=False)
    expected = pool(torch.tensor(x).transpose(1, 2)).transpose(1, 2).numpy()
    np.testing.assert_allclose(pooled[0, : expected.shape[1]], expected[0], atol=1e-6)
    alone, _ = pool_frames(jnp.array(x[1:, :8]), jnp.array([8]), 4)
    np.testing.assert_allclose(pooled[1, :2], alone[0], atol=1e-6)
    assert frames_B.tolist() == [4, 2]


def test_what_cannot_be_a_teacher_is_named():
    import jax

    codec = Codec(tiny_codec.config(), jax.random.key(0))  # 800 frames a second
    settings = dict(weight=1.0, form="frame", teacher="log_mel", layer=-1, all_layers=False)
    with pytest.raises(ValueError, match="50 frames a second and the codec 800"):
        open_teacher(settings, codec)
    with pytest.raises(ValueError, match="losses.distil.teacher is empty"):
        open_teacher(settings | {"teacher": ""}, codec)
    with pytest.raises(ValueError, match="losses.distil.form is 'x'"):
        open_teacher(settings | {"form": "x"}, codec)
