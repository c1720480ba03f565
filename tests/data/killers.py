"""A source in which reading one utterance kills the process that reads it, as a broken decoder does."""

import dataclasses
import os
import signal
from pathlib import Path

import numpy as np

from jaxslm.data.sources import read_source
from tests.data.tones import RATE


class Deadly:
    """Samples that kill whoever looks at them; if a file is named, only the first time."""

    def __init__(self, mark: Path | None = None):
        self.mark = mark

    def __array__(self, dtype=None, copy=None):
        if self.mark is None or not self.mark.exists():
            if self.mark is not None:
                self.mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return np.random.default_rng(0).uniform(-0.5, 0.5, RATE).astype(np.float32)


def deadly_source(spec, report):
    """The source of `spec`, of which the third utterance kills."""
    for number, raw in enumerate(read_source(spec, report)):
        yield dataclasses.replace(raw, audio=(Deadly(), RATE)) if number == 2 else raw
