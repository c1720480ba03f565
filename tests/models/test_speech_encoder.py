import functools

import jax
import numpy as np
import pytest

from jaxslm.hf.speech import load_speech_encoder
from tests.models.speech_models import FAMILIES, hidden_states, make_clips, make_model, pad, save_model

LENGTHS = (16_000, 11_111, 4_003)


@functools.cache
def _model(family: str):
    return make_model(family)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the model of a family, made once."""

    @functools.cache
    def make(family: str):
        return save_model(_model(family), tmp_path_factory.mktemp(family))

    return make


@jax.jit
def _run(encoder, samples, lengths):
    return encoder(samples, lengths)


@pytest.mark.parametrize("family", FAMILIES)
def test_padded_rows_equal_single_clips_of_transformers(family, folder):
    samples, lengths = pad(make_clips(LENGTHS))
    for layer in (0, 2, 3, -1):
        encoder = load_speech_encoder(folder(family), layer=layer)
        features, frames = map(np.asarray, _run(encoder, samples, lengths))
        for row, n, clip in zip(features, frames, make_clips(LENGTHS), strict=True):
            expected = hidden_states(_model(family), clip)[layer]
            assert len(expected) == n
            np.testing.assert_allclose(row[:n], expected, atol=1e-4, rtol=0)
            assert not row[n:].any()
