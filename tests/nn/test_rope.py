"""Rotary positions by complex numbers, and Llama-3 scaling by its three published cases."""

import math

import numpy as np
import pytest

from jaxslm.nn.rope import RopeScaling, frequencies, rotary_table, rotate


@pytest.mark.parametrize("platform", ["cpu", "tpu"])
def test_rotation_is_multiplication_by_a_phase(platform):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 5, 3, 8)).astype(np.float32)
    positions = rng.integers(0, 1000, (2, 5)).astype(np.int32)
    rotated = rotate(x, rotary_table(positions, frequencies(8, 10_000.0), platform))
    phase = np.exp(1j * positions[:, :, None, None] * 10_000.0 ** (-np.arange(0, 8, 2) / 8))
    expected = (x[..., :4] + 1j * x[..., 4:]) * phase
    np.testing.assert_allclose(rotated, np.concatenate([expected.real, expected.imag], -1), atol=5e-4)


def test_llama3_scaling():
    scaling = RopeScaling(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=8192)
    plain, scaled = frequencies(128, 5e5), frequencies(128, 5e5, scaling)
    wavelength = 2 * math.pi / plain
    high, low = wavelength < 8192 / 4, wavelength > 8192 / 1
    assert high.any() and low.any() and (~high & ~low).any()
    np.testing.assert_array_equal(scaled[high], plain[high])
    np.testing.assert_allclose(scaled[low], plain[low] / 8, rtol=1e-6)
    between = ~high & ~low
    assert np.all(scaled[between] < plain[between]) and np.all(scaled[between] > plain[between] / 8)


def test_unknown_scaling_field():
    with pytest.raises(TypeError):
        RopeScaling(factor=8.0, low=1.0)
