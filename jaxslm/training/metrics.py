"""metrics.jsonl and TensorBoard events: written so that a run of many restarts reads as one, on a full disk too."""

import json
import logging
import math
import os
import struct
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

log = logging.getLogger(__name__)

Row = dict[str, Any]  # "step" and numbers; None stands for a number that is not finite
HELDOUT = "heldout/"  # begins the names of held-out figures


def is_heldout(row: Row) -> bool:
    return f"{HELDOUT}loss" in row


def read_rows(path: Path) -> list[Row]:
    """Rows of a metrics.jsonl; half a line left by a killed run, or by a full disk, is passed over."""
    rows = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            rows.append(row)
    return rows


class MetricsFile:
    """metrics.jsonl: one row a training step and one a held-out evaluation, cut back to `last_step` when a run resumes.

    Numbers keep all their digits. Rows wait in memory until `flush`; what cannot be written waits on.
    """

    def __init__(self, path: Path, last_step: int):
        self._path = path
        rows = [row for row in read_rows(path) if row["step"] <= last_step]
        self.evaluated = {row["step"] for row in rows if is_heldout(row)}
        new = path.with_suffix(".new")
        new.write_text("".join(map(_line, rows)))
        new.replace(path)
        self._size = path.stat().st_size
        self._waiting = ""

    def add(self, step: int, values: Mapping[str, float]) -> Row:
        row = {"step": step} | {name: value if math.isfinite(value) else None for name, value in values.items()}
        self._waiting += _line(row)
        return row

    def flush(self) -> None:
        """Puts all rows on the disk. Raises OSError if it cannot; the rows then wait for the next attempt."""
        data = self._waiting.encode()
        try:
            with self._path.open("ab") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            os.truncate(self._path, self._size)  # what was written of them would end in half a row
            raise
        self._size += len(data)
        self._waiting = ""


def _line(row: Row) -> str:
    return json.dumps(row, allow_nan=False) + "\n"


class Sound(NamedTuple):
    """A mono WAV file, for TensorBoard."""

    name: str
    wav: bytes
    rate: int
    n_samples: int

    def as_value(self) -> dict[str, Any]:
        audio = dict(sample_rate=self.rate, num_channels=1, length_frames=self.n_samples, content_type="audio/wav")
        return dict(tag=self.name, audio=dict(audio, encoded_audio_string=self.wav))


class Picture(NamedTuple):
    """A PNG file, for TensorBoard."""

    name: str
    png: bytes

    def as_value(self) -> dict[str, Any]:
        width, height = struct.unpack(">II", self.png[16:24])  # of the header, which comes first
        return dict(tag=self.name, image=dict(width=width, height=height, encoded_image_string=self.png))


class Events:
    """TensorBoard events in `folder`, written in this thread: the writer thread of tensorboardX dies on a full disk and
    then blocks its caller for good. Events that cannot be written are lost; metrics.jsonl has them."""

    def __init__(self, folder: Path, last_step: int):
        self._folder, self._last_step = folder, last_step
        self._writer: Any = None

    def add(self, row: Row) -> None:
        self._write(
            row["step"], [dict(tag=name, simple_value=v) for name, v in row.items() if name != "step" and v is not None]
        )

    def add_media(self, step: int, media: Sequence["Sound | Picture"]) -> None:
        """Sounds and pictures, under their names."""
        self._write(step, [each.as_value() for each in media])

    def _write(self, step: int, values: Sequence[Mapping[str, Any]]) -> None:
        # here, not above: it takes seconds where torch is installed, and the first step should not wait for it
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.proto.summary_pb2 import Summary

        summary = Summary(value=[Summary.Value(**value) for value in values])
        try:
            self._open()
            self._writer.write_event(Event(wall_time=time.time(), step=step, summary=summary))
            self._writer.flush()
        except OSError as error:
            log.warning("TensorBoard events of step %d were not written: %s", step, error)
            self._writer = None  # the file may end in half a record: the next event begins another
        self._last_step = step

    def _open(self) -> None:
        if self._writer is None:
            from tensorboardX.event_file_writer import EventsWriter
            from tensorboardX.proto.event_pb2 import Event, SessionLog

            self._writer = EventsWriter(str(self._folder / "events"), f".{time.time_ns()}")
            # tells TensorBoard to drop later steps that a killed run wrote
            start = SessionLog(status=SessionLog.START)
            self._writer.write_event(Event(wall_time=time.time(), step=self._last_step + 1, session_log=start))
