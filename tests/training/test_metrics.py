"""metrics.jsonl of many restarts reads as one run; TensorBoard reads the events; a full disk loses no row."""

import io
import json
import math
import struct

import numpy as np
import pytest
import soundfile
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from jaxslm.audio.io import encode_wav
from jaxslm.training.metrics import Events, MetricsFile, Picture, Sound, read_rows
from jaxslm.training.plot import plot_losses
from jaxslm.training.progress import mean_losses
from tests.training.test_checkpoint import files_of_at_most


def test_rows_after_the_restored_step_are_cut(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(
        '{"step": 1, "loss": 2.0}\n{"step": 2, "loss": 1.0}\n{"step": 2, "heldout/loss": 3.0}\n{"step": 3, "lo'
    )
    file = MetricsFile(path, 2)
    assert file.evaluated == {2}
    file.add(3, {"loss": 0.5})
    file.flush()
    assert [(row["step"], *row.values())[2:] for row in read_rows(path)] == [(2.0,), (1.0,), (3.0,), (0.5,)]
    assert MetricsFile(path, 1).evaluated == set()
    assert [row["step"] for row in read_rows(path)] == [1]


def test_numbers_keep_every_digit_and_stay_json(tmp_path):
    file = MetricsFile(tmp_path / "metrics.jsonl", 0)
    value = float(np.float32(1) / np.float32(3))
    file.add(1, {"loss": value, "loss/a": math.nan, "grad_norm": math.inf})
    file.flush()
    row = json.loads((tmp_path / "metrics.jsonl").read_text(), parse_constant=lambda name: pytest.fail(name))
    assert row["loss"].hex() == value.hex() and row["loss/a"] is None and row["grad_norm"] is None


def test_full_disk_loses_no_row(tmp_path):
    path = tmp_path / "metrics.jsonl"
    file = MetricsFile(path, 0)
    for step in range(1, 31):
        file.add(step, {"loss": 1.0})
        with files_of_at_most(300):
            if step * len('{"step": 11, "loss": 1.0}\n') > 300:
                with pytest.raises(OSError):
                    file.flush()
            else:
                file.flush()
    assert all(json.loads(line) for line in path.read_text().splitlines())
    file.flush()
    assert [row["step"] for row in read_rows(path)] == list(range(1, 31))


def test_tensorboard_reads_a_resumed_run_as_one(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    first = Events(tmp_path, 0)
    for step in (1, 2, 3):
        first.add({"step": step, "loss": float(step), "loss/asr": None})
    second = Events(tmp_path, 2)  # restored at step 2
    second.add({"step": 3, "loss": 30.0})
    events = accumulator.EventAccumulator(str(tmp_path)).Reload()
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [(1, 1.0), (2, 2.0), (3, 30.0)]
    assert events.Tags()["scalars"] == ["loss"]


def _events(folder):
    """Of all files in the order in which they were begun: records of a length, a checksum, the event, a checksum."""
    from tensorboardX.proto.event_pb2 import Event

    for path in sorted(folder.glob("events*")):
        data, at = path.read_bytes(), 0
        while at < len(data):
            (length,) = struct.unpack_from("<Q", data, at)
            yield Event.FromString(data[at + 12 : at + 12 + length])
            at += length + 16


def test_tensorboard_hears_sounds_and_sees_pictures_beside_the_figures(tmp_path):
    wav = encode_wav(np.sin(np.arange(100)), 8000)
    figure = Figure(figsize=(3, 2))
    FigureCanvasAgg(figure)
    figure.savefig(tmp_path / "x.png", dpi=10)
    events = Events(tmp_path, 0)
    events.add({"step": 5, "loss": 0.0})
    events.add_media(5, [Sound("a/sound", wav, 8000, 100), Picture("a/picture", (tmp_path / "x.png").read_bytes())])
    *_, figures, media = _events(tmp_path)
    assert [(value.tag, value.simple_value) for value in figures.summary.value] == [("loss", 0.0)]
    sound, picture = media.summary.value
    assert media.step == 5 and (sound.tag, picture.tag) == ("a/sound", "a/picture")
    audio = sound.audio
    assert (audio.sample_rate, audio.num_channels, audio.length_frames) == (8000, 1, 100)
    samples, rate = soundfile.read(io.BytesIO(audio.encoded_audio_string))
    assert rate == 8000 and len(samples) == 100 and audio.content_type == "audio/wav"
    assert (picture.image.width, picture.image.height) == (30, 20)
    assert picture.image.encoded_image_string == (tmp_path / "x.png").read_bytes()


def test_events_on_a_full_disk_do_not_stop_the_run(tmp_path, caplog):
    events = Events(tmp_path, 0)
    with files_of_at_most(100):
        for step in range(1, 4):
            events.add({"step": step, "a_rather_long_name_of_a_figure" * 4: 1.0})
    assert "TensorBoard events of step 1 were not written" in caplog.text
    events.add({"step": 4, "loss": 1.0})


def test_picture_has_something_in_it(tmp_path):
    file = MetricsFile(tmp_path / "metrics.jsonl", 0)
    for step in range(1, 200):
        file.add(step, {"loss": 3 / step, "loss/a": math.nan if step % 5 else 2.0, "loss/b": 1.0})
    file.add(100, {"heldout/loss": 1.0, "heldout/loss/a": 1.5})
    file.flush()
    plot_losses(tmp_path / "metrics.jsonl", tmp_path / "loss.png", "a run")
    pixels = pytest.importorskip("matplotlib.image").imread(tmp_path / "loss.png")
    assert pixels.shape == (660, 1080, 4) and pixels[..., :3].std() > 0.05


def test_shown_losses_are_means_over_tokens():
    nan = float("nan")
    rows = [
        {"loss": 2.0, "loss/asr": 1.0, "tokens/asr": 10.0, "loss/tts": nan, "tokens/tts": 0.0, "grad_norm": 9.0},
        {"loss": 4.0, "loss/asr": 4.0, "tokens/asr": 20.0, "loss/tts": nan, "tokens/tts": 0.0, "grad_norm": 9.0},
    ]
    assert mean_losses(rows) == {"loss": 3.0, "loss/asr": 3.0}
