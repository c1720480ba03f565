"""Features of clips on 1 and 4 CPU devices; run by test_encoder_devices.py in a process of its own."""

import sys

import jax
import numpy as np

from jaxslm.units.neural_encoder import NeuralEncoder
from tests.models.speech_models import make_clips

if __name__ == "__main__":
    one, four = (NeuralEncoder(sys.argv[1], 1, batch_seconds=4, devices=jax.devices()[:n]) for n in (1, 4))
    clips = make_clips([30_000] * 9 + [10_000, 40_000])
    batches = [(len(batch), rows) for batch, (rows, _) in four._batches([len(clip) for clip in clips])]
    assert batches == [(4, 4)] * 2 + [(2, 4), (1, 4)], batches
    for a, b in zip(one.encode(clips), four.encode(clips), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    print("equal")
