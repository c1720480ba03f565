"""How many times faster than real time a codec encodes and decodes."""

import statistics
import time
from collections.abc import Callable

import jax
import numpy as np

from jaxslm.codec.runner import CodecRunner, decode_batch, encode_batch

SECONDS = 10.0  # of each row of a batch
_LEAST_RUNS, _LEAST_SECONDS = 3, 1.0


def measure_speed(runner: CodecRunner, samples_N: np.ndarray) -> dict:
    """Seconds of audio a second of encoding and of decoding, each compiled and run before it is timed (the median of
    the runs): for one row of 10 s, and for a batch as large as the runner makes them.

    samples_N: audio to fill the rows with, again and again if it is short.
    """
    codec = runner.codec
    n = round(SECONDS * codec.config.sample_rate)
    device = jax.devices()[0]
    result = dict(device=f"{device.platform} {device.device_kind}", seconds=SECONDS, levels=runner.n_levels)
    for batch in sorted({1, max(1, int(runner.batch_seconds / SECONDS))}):
        samples_BxN = jax.device_put(np.resize(samples_N, (batch, n)).astype(np.float32))
        n_samples_B = jax.device_put(np.full(batch, n, np.int32))
        n_frames_B = codec.n_frames(n_samples_B)
        codes_BxTxQ = encode_batch(codec, samples_BxN, n_samples_B, runner.n_levels)
        took = dict(
            encode=_seconds(lambda b=(samples_BxN, n_samples_B): encode_batch(codec, *b, runner.n_levels)),
            decode=_seconds(lambda b=(codes_BxTxQ, n_frames_B): decode_batch(codec, *b)),
        )
        result[f"batch {batch}"] = {name: batch * SECONDS / seconds for name, seconds in took.items()}
    return result


def _seconds(run: Callable) -> float:
    jax.block_until_ready(run())
    times: list[float] = []
    while len(times) < _LEAST_RUNS or sum(times) < _LEAST_SECONDS:
        start = time.perf_counter()
        jax.block_until_ready(run())
        times.append(time.perf_counter() - start)
    return statistics.median(times)
