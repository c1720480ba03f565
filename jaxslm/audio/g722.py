"""G.722 (ITU-T 1988), the wideband codec of telephones: 64 kbit/s without any header, by PyAV (extra `asterisk`)."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np

RATE = 16_000  # Hz
SAMPLES_A_BYTE = 2


def load_av() -> ModuleType:
    """PyAV. Raises ValueError where it is not installed."""
    try:
        import av
    except ModuleNotFoundError as error:
        raise ValueError("G.722 is decoded by PyAV: pip install av, or jaxslm with the extra 'asterisk'") from error
    return av


def decode_g722(path: Path) -> np.ndarray:
    """float32 [N] in [-1, 1] at 16 kHz. Any bytes are some sound, so that damage is not noticed.

    Raises ValueError without PyAV, OSError for a file that cannot be read.
    """
    av = load_av()
    try:
        with av.open(str(path), format="g722") as container:
            parts = [frame.to_ndarray().reshape(-1) for frame in container.decode(audio=0)]
    except av.FFmpegError as error:
        raise OSError(str(error)) from error
    return np.concatenate(parts or [np.zeros(0, np.int16)]).astype(np.float32) / 32768
