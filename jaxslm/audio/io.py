"""Reading audio of any kind into what the trainer works on: mono, float32 in [-1, 1], 16 kHz unless said otherwise; and
FLAC to keep it.

Shape letters: N samples, C channels.
"""

import io
import os
import re
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr

from jaxslm.audio import SAMPLE_RATE, g722

MIN_SECONDS = 0.1  # shorter clips are refused
LOWEST_RATE, HIGHEST_RATE = 4_000, 192_000  # Hz; of other rates clips are refused
_ENDLESS = 2**31 - 2**16  # the size of a chunk that was written before its end was known, or more
_OGG_PAGE = 65_307  # bytes at most
_SILENCE = 1e-4  # peak of what counts as silence: about 3 steps of 16-bit audio
_FULL_SCALE = 0.999  # at or above this a sample counts as clipped
_CLIPPED_SHARE = 1e-3  # fewer clipped samples than this are not worth a note


class AudioError(ValueError):
    """Audio that cannot be used; the message says where it came from, why, and what to do."""


class AudioTooLong(AudioError):
    """Audio that is longer than the limit, and may be cut."""


@dataclass(frozen=True)
class Clip:
    """Usable audio: `samples` [N] float32 mono in [-1, 1] at `rate` Hz, and `notes` on what had to be repaired."""

    samples: np.ndarray
    notes: tuple[str, ...] = ()
    rate: int = SAMPLE_RATE

    @property
    def duration(self) -> float:
        """Seconds."""
        return len(self.samples) / self.rate

    @property
    def heard(self) -> np.ndarray:
        """The samples at 16 kHz, which encoders and aligners hear."""
        return resample(self.samples, self.rate, SAMPLE_RATE)


def read_audio(
    source: str | Path | bytes | tuple[np.ndarray, int],
    *,
    where: str,
    min_seconds: float = MIN_SECONDS,
    max_seconds: float = 60.0,
    sample_rate: int = SAMPLE_RATE,
    silence: bool = False,
) -> Clip:
    """Reads, checks, mixes down and resamples one clip.

    Args:
      source: a path, the bytes of an audio file (whatever libsndfile reads: WAV, FLAC, OGG, Opus, MP3, ...; a path that
        ends in .g722 is G.722), or (samples, rate) with samples [N] or [N, C], float in [-1, 1] or int16 or int32.
      where: names the clip in messages, such as "train.jsonl:12".
      min_seconds, max_seconds: clips outside are refused; a file that is too long is refused from its header, before
        it is decoded.
      sample_rate: of the clip that comes out, in Hz.
      silence: whether a silent clip is let pass.
    Raises:
      AudioError: unreadable, of a sample rate below 4 kHz or above 192 kHz, cut off, empty, silent, not finite, too
        short or too long (AudioTooLong).
    """
    if isinstance(source, tuple):
        samples_NxC, rate = _from_array(*source, where)
        _check_length(len(samples_NxC), rate, min_seconds, max_seconds, where)
    else:
        samples_NxC, rate = _from_file(source, min_seconds, max_seconds, where)
    if not np.all(np.isfinite(samples_NxC)):
        bad = int(np.argmin(np.all(np.isfinite(samples_NxC), axis=1)))
        raise AudioError(
            f"{where}: NaN or infinite samples, the first at {bad / rate:.3f} s; write the clip again from its source"
        )

    notes = []
    peak = float(np.max(np.abs(samples_NxC)))
    clipped = float(np.mean(np.abs(samples_NxC) >= _FULL_SCALE))
    if peak > 1.0:  # float audio may exceed full scale without damage
        samples_NxC = samples_NxC / peak
        notes.append(f"peak of {peak:.3g} scaled down to 1")
    elif clipped >= _CLIPPED_SHARE:
        notes.append(f"clipped: {100 * clipped:.1f} % of samples at full scale")
    samples_N = samples_NxC.mean(axis=1)
    if samples_NxC.shape[1] > 1:
        notes.append(f"{samples_NxC.shape[1]} channels mixed down")
    if not silence and np.ptp(samples_N) < 2 * _SILENCE:
        mixed = " once its channels are mixed down" if np.ptp(samples_NxC) >= 2 * _SILENCE else ""
        raise AudioError(f"{where}: the clip is silent{mixed}; record it again or remove it")
    if rate != sample_rate:
        samples_N = resample(samples_N, rate, sample_rate)
        notes.append(f"resampled from {rate} Hz")
    return Clip(np.clip(samples_N, -1.0, 1.0).astype(np.float32), tuple(notes), sample_rate)


def resample(samples_N: np.ndarray, rate: int, wanted: int) -> np.ndarray:
    """Samples at `wanted` Hz of those at `rate` Hz."""
    return samples_N if rate == wanted else soxr.resample(samples_N, rate, wanted)


def encode_flac(samples_N: np.ndarray, rate: int = SAMPLE_RATE) -> bytes:
    """Mono samples in [-1, 1] as 16-bit FLAC; lossless for samples that came from 16-bit audio."""
    steps_N = np.clip(np.rint(np.asarray(samples_N) * 32768.0), -32768, 32767).astype(np.int16)
    buffer = io.BytesIO()
    soundfile.write(buffer, steps_N, rate, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()


def encode_wav(samples_N: np.ndarray, rate: int) -> bytes:
    """Mono samples as 16-bit WAV, those beyond full scale at full scale."""
    buffer = io.BytesIO()
    soundfile.write(buffer, np.clip(samples_N, -1, 1), rate, format="WAV", subtype="PCM_16")
    return buffer.getvalue()


def write_wav(path: Path, samples_N: np.ndarray, rate: int) -> int:
    """Writes a file of `encode_wav` and gives the number of samples beyond full scale."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_wav(samples_N, rate))
    return int(np.sum(np.abs(samples_N) > 1))


class WavStream:
    """A 16-bit mono WAV file that grows: until it is closed its header says that it has no end, so that players follow
    it and what a kill leaves can be played. `n_samples` are written so far; a file that was there before stays as it
    is until the first are.
    """

    def __init__(self, path: Path, rate: int):
        self.path, self.rate, self.n_samples, self._file = path, rate, 0, None

    def __enter__(self) -> "WavStream":
        return self

    def __exit__(self, *error) -> None:
        if self._file:
            self._file.seek(0)
            self._header(2 * self.n_samples)
            self._file.close()

    def write(self, samples_N: np.ndarray) -> None:
        """Samples beyond full scale are written at full scale."""
        if not self._file:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("wb")
            self._header(0xFFFFFFFF - 36)
        steps_N = np.clip(np.floor(np.asarray(samples_N, np.float64) * 32768), -32768, 32767)  # as libsndfile has it
        self._file.write(steps_N.astype("<i2").tobytes())
        self._file.flush()
        self.n_samples += len(samples_N)

    def _header(self, size: int) -> None:
        form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, self.rate, 2 * self.rate, 2, 16)
        self._file.write(b"RIFF" + struct.pack("<I", 36 + size) + b"WAVE" + form + b"data" + struct.pack("<I", size))


def decode_flac(data: bytes) -> np.ndarray:
    """float32 [N] at 16 kHz of what `encode_flac` wrote."""
    return decode_clip(data).heard


def decode_clip(data: bytes, start: int = 0, most: int = -1) -> Clip:
    """What `encode_flac` wrote, at the rate it was written; at most so many samples from `start` on."""
    samples_N, rate = soundfile.read(io.BytesIO(data), frames=most, start=start, dtype="float32")
    assert samples_N.ndim == 1, "stored audio is mono"
    return Clip(samples_N, rate=rate)


def _from_file(
    source: str | Path | bytes, min_seconds: float, max_seconds: float, where: str
) -> tuple[np.ndarray, int]:
    if isinstance(source, bytes):
        if not source:
            raise AudioError(f"{where}: the audio is empty (0 bytes); write the file again or remove the clip")
        source = io.BytesIO(source)
    elif not Path(source).is_file():
        raise AudioError(f"{where}: there is no file {source}; correct the path or remove the clip")
    elif Path(source).stat().st_size == 0:
        raise AudioError(f"{where}: the audio is empty (0 bytes); write the file again or remove the clip")
    elif Path(source).suffix.lower() == ".g722":
        return _from_g722(Path(source), min_seconds, max_seconds, where)
    else:
        source = str(source)
    named = f" '{source}'" if isinstance(source, str) else ""
    try:
        with soundfile.SoundFile(source) as file:
            rate, expected = file.samplerate, file.frames
            lost = _lacks_its_end(file, source)
            _check_rate(rate, where)
            if expected > 0:
                _check_length(expected, rate, min_seconds, max_seconds, where)
            # The count in a header may be wrong, so never decode more than the limit and one second.
            samples_NxC = file.read(int(min(max_seconds + 1, 1e6) * rate), dtype="float32", always_2d=True)
    except AudioError:
        raise
    except (OSError, RuntimeError, TypeError, ValueError) as error:  # what soundfile raises on files it cannot read
        raise AudioError(
            f"{where}: unreadable audio{named} ({error}); convert it with `ffmpeg -i INPUT output.flac` or remove it"
        ) from error
    _check_length(len(samples_NxC), rate, min_seconds, max_seconds, where)
    if lost or len(samples_NxC) < 0.98 * expected:  # a little slack: MP3 headers only estimate
        of = "" if lost else f" of {expected / rate:.2f}"
        raise AudioError(
            f"{where}: the file{named} is cut off, {len(samples_NxC) / rate:.2f}{of} s can be decoded; copy it again"
        )
    return samples_NxC, rate


def _from_g722(path: Path, min_seconds: float, max_seconds: float, where: str) -> tuple[np.ndarray, int]:
    """It has no header: its size says how long it lasts."""
    _check_length(path.stat().st_size * g722.SAMPLES_A_BYTE, g722.RATE, min_seconds, max_seconds, where)
    try:
        return g722.decode_g722(path)[:, None], g722.RATE
    except (OSError, ValueError) as error:
        raise AudioError(f"{where}: unreadable audio '{path}' ({error}); convert it to FLAC or remove it") from error


def _lacks_its_end(file: soundfile.SoundFile, source: str | io.BytesIO) -> bool:
    """Whether a header promises more than the file holds (WAV, AIFF, W64, AU), of which libsndfile only takes note, or
    an Ogg stream does not end. What was written to a pipe promises the largest number there is, and is let pass.
    """
    sizes = re.findall(r":\s*(\d+) \(should be (\d+)\)", file.extra_info)
    if any(int(there) < int(promised) < _ENDLESS for promised, there in sizes):
        return True
    if file.format != "OGG":
        return False
    if isinstance(source, io.BytesIO):
        end = source.getvalue()[-_OGG_PAGE:]
    else:
        with open(source, "rb") as raw:
            raw.seek(max(0, os.path.getsize(source) - _OGG_PAGE))
            end = raw.read()
    page = end.rfind(b"OggS")
    return page < 0 or len(end) < page + 6 or not end[page + 5] & 4  # the flag of a stream's last page


def _from_array(samples: np.ndarray, rate: int, where: str) -> tuple[np.ndarray, int]:
    samples = np.asarray(samples)
    if samples.ndim not in (1, 2):
        raise AudioError(f"{where}: samples of shape {samples.shape}; give [samples] or [samples, channels]")
    _check_rate(rate, where)
    if samples.dtype in (np.int16, np.int32):
        samples = samples / -float(np.iinfo(samples.dtype).min)
    elif not np.issubdtype(samples.dtype, np.floating):
        raise AudioError(f"{where}: samples of type {samples.dtype} have no known full scale; give int16 or float32")
    return samples.reshape(len(samples), -1).astype(np.float32), int(rate)


def _check_rate(rate: float, where: str) -> None:
    if not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise AudioError(
            f"{where}: a sample rate of {rate} Hz, where {LOWEST_RATE} to {HIGHEST_RATE} Hz can be read; correct the "
            "rate if it is wrong, or resample with `ffmpeg -i INPUT -ar 16000 output.flac`"
        )


def _check_length(count: int, rate: int, min_seconds: float, max_seconds: float, where: str) -> None:
    seconds = count / rate
    if count == 0:
        raise AudioError(f"{where}: the audio is empty (0 samples); write the file again or remove the clip")
    if seconds < min_seconds:
        raise AudioError(
            f"{where}: {seconds:.3f} s is shorter than the {min_seconds:g} s a clip needs; "
            "join it to its neighbour or remove it"
        )
    if seconds > max_seconds:
        raise AudioTooLong(
            f"{where}: {seconds:.1f} s is longer than the limit of {max_seconds:g} s; "
            "cut it at pauses, or raise max_seconds"
        )
