"""PESQ, STOI and ViSQOL of a reconstruction, by the packages of the extra "quality"; and what becomes of failures.
Nothing here needs JAX, so that other processes can measure.

A metric takes (original_N, reconstruction_N, rate), float samples of equal length, and raises an exception where the
package has no score for the two: what a package gives in place of a score (pystoi 1e-5 for clips that are too short, 0
for silence; ViSQOL 4.7 for silence) is no score.
"""

import functools
import importlib.util
import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from jaxslm.audio.io import resample

RATE = 16_000  # that wide-band PESQ and ViSQOL's speech mode are made for
# The reference code of PESQ writes past its arrays where it finds more than 50 utterances. One takes 200 ms, and as
# much silence: in so many seconds there are no more.
PESQ_SECONDS = 20.0
_MODULES = {"pesq": ("pesq",), "stoi": ("pystoi",), "visqol": ("visqol", "ai_edge_litert")}


def missing(metric: str) -> str:
    """What to install for this metric; "" if nothing is missing.

    ViSQOL counts as missing without its lattice model: the polynomial that takes its place is 1 to 2 MOS too high.
    """
    absent = [name for name in _MODULES.get(metric, ()) if importlib.util.find_spec(name) is None]
    return f"{metric} needs {' and '.join(absent)}: pip install 'jaxslm[quality]'" if absent else ""


def pesq_wb(original_N: np.ndarray, reconstruction_N: np.ndarray, rate: int) -> float:
    """Wide-band PESQ (ITU-T P.862.2), 1.04 to 4.64, of at most PESQ_SECONDS."""
    from pesq import pesq

    if len(original_N) > PESQ_SECONDS * rate:
        raise ValueError(f"clips of more than {PESQ_SECONDS:g} s may crash PESQ")
    return pesq(RATE, *_at_16k(original_N, reconstruction_N, rate), "wb")


def stoi(original_N: np.ndarray, reconstruction_N: np.ndarray, rate: int) -> float:
    """Short-time objective intelligibility (Taal et al. 2011), at most 1."""
    import pystoi

    if not np.any(original_N):
        raise ValueError("the original is silent")
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        return float(pystoi.stoi(original_N.astype(np.float64), reconstruction_N.astype(np.float64), rate))


def visqol(original_N: np.ndarray, reconstruction_N: np.ndarray, rate: int) -> float:
    """ViSQOL v3 in speech mode (Chinen et al. 2020), 1 to 5."""
    pair = (x.astype(np.float64) for x in _at_16k(original_N, reconstruction_N, rate))
    return _visqol().measure_from_arrays(*pair, RATE).moslqo


@functools.cache
def _visqol():
    from visqol import VisqolApi

    api = VisqolApi()
    api.create(mode="speech", use_lattice_model=True)
    return api


def _at_16k(original_N: np.ndarray, reconstruction_N: np.ndarray, rate: int) -> list[np.ndarray]:
    if rate < RATE:
        raise ValueError(f"it hears up to 8 kHz, and audio at {rate} Hz has nothing up there")
    for name, x_N in (("original", original_N), ("reconstruction", reconstruction_N)):
        if not np.any(x_N):
            raise ValueError(f"the {name} is silent")
    return [resample(np.asarray(x_N, np.float32), rate, RATE) for x_N in (original_N, reconstruction_N)]


Metric = Callable[[np.ndarray, np.ndarray, int], float]
BY_PACKAGES: dict[str, Metric] = {"pesq": pesq_wb, "stoi": stoi, "visqol": visqol}


@dataclass
class Scores:
    """Metrics of one clip: `values` by name, NaN where a metric failed, and why it did, in `failures`."""

    values: dict[str, float] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    def __or__(self, other: "Scores") -> "Scores":
        return Scores(self.values | other.values, self.failures | other.failures)


def measure(metrics: Mapping[str, Metric], original_N: np.ndarray, reconstruction_N: np.ndarray, rate: int) -> Scores:
    """Scores of one reconstruction, as long as its original, by these metrics."""
    assert original_N.shape == reconstruction_N.shape, f"{original_N.shape} and {reconstruction_N.shape}"
    scores = Scores()
    for name, metric in metrics.items():
        try:
            for which, x_N in (("original", original_N), ("reconstruction", reconstruction_N)):
                if not np.isfinite(x_N).all():
                    raise ValueError(f"the {which} has samples that are not finite")
            value = float(metric(original_N, reconstruction_N, rate))
            if not math.isfinite(value):
                raise ValueError(f"it is {value}")
        except Exception as error:  # packages raise whatever they please, and one clip must not end all
            reason = error.args[0] if error.args else type(error).__name__
            value, scores.failures[name] = math.nan, reason.decode() if isinstance(reason, bytes) else str(reason)
        scores.values[name] = value
    return scores


def measure_by_packages(names: list[str], original_N: np.ndarray, reconstruction_N: np.ndarray, rate: int) -> Scores:
    """As `measure`, by name, which another process understands."""
    return measure({name: BY_PACKAGES[name] for name in names}, original_N, reconstruction_N, rate)
