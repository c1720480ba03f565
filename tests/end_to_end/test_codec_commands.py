"""Encoding, decoding and judging with a codec, by the commands a user types."""

import json
import runpy
import sys

import numpy as np
import pytest
import soundfile

from jaxslm.audio.io import encode_flac
from jaxslm.data.records import Utterance, write_records
from tests.codec.codecs import write_run
from tests.end_to_end.commands import ROOT

RATE = 16_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("codec")
    for seed in (0, 1):
        write_run(folder / f"run{seed}", seed)
    (folder / "audio").mkdir()
    for i, n in enumerate((4410, 9000)):
        tone = 0.3 * np.sin(np.arange(n) / (9 + i))
        soundfile.write(folder / "audio" / f"{i}.wav", np.stack([tone, tone], axis=1), 44_100)
    (folder / "audio" / "bad.wav").write_bytes(b"no audio")
    return folder


def command(monkeypatch, name, *arguments):
    """Runs launch/NAME.py in this process, which has compiled what it needs."""
    monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
    runpy.run_path(str(ROOT / "launch" / f"{name}.py"), run_name="__main__")


def test_files_go_through_codes_and_come_back(folder, monkeypatch, capsys):
    command(monkeypatch, "encode_audio", folder / "audio", f"--codec={folder / 'run0'}", f"--out={folder / 'codes'}")
    said = capsys.readouterr().out
    assert "1 x utterance left out: unreadable audio" in said and "run0" in said and "3 levels" in said
    out = folder / "wavs"
    command(monkeypatch, "decode_audio", folder / "codes", f"--codec={folder / 'run0'}", f"--out={out}", "--levels=2")
    assert sorted(path.name for path in out.glob("*.wav")) == ["0.wav", "1.wav"]
    samples, rate = soundfile.read(out / "0.wav")
    assert rate == RATE and len(samples) == 1600


def test_codes_of_another_codec_end_the_command_in_one_line(folder, monkeypatch):
    audio = folder / "audio" / "0.wav"
    command(monkeypatch, "encode_audio", audio, f"--codec={folder / 'run0'}", f"--out={folder / 'one'}", "--levels=1")
    with pytest.raises(SystemExit, match=r"error: .*codes of run0 \(.*give the codec that made them"):
        command(monkeypatch, "decode_audio", folder / "one", f"--codec={folder / 'run1'}", f"--out={folder / 'no'}")
    with pytest.raises(SystemExit, match="error: .*audio is no codec: name the workdir"):
        command(monkeypatch, "encode_audio", audio, f"--codec={folder / 'audio'}", f"--out={folder / 'no'}")
    assert not (folder / "no").exists()


def test_the_suite_judges_held_out_records(folder, monkeypatch, capsys):
    clip = (0.3 * np.sin(np.arange(2000) / 9)).astype(np.float32)
    fields = dict(audio=encode_flac(clip), duration=0.125)
    utterances = [Utterance("a", **fields), *(Utterance(id, split="heldout", **fields) for id in "bc")]
    write_records(folder / "records", utterances)
    arguments = [f"--codec={folder / 'run0'}", f"--records={folder / 'records'}", f"--out={folder / 'judged'}"]
    command(monkeypatch, "evaluate", "--suite=codec", *arguments, "--levels=1,3", "--metrics=si_sdr,mel", "--workers=1")
    said = capsys.readouterr().out
    assert "2 clips" in said and "SI-SDR (dB)" in said and "times real time on cpu" in said
    result = json.loads((folder / "judged" / "codec.json").read_text())
    assert set(result["levels"]) == {"1", "3"} and result["speed"]["batch 1"]["decode"] > 0
    assert len((folder / "judged" / "reconstruction_3.scp").read_text().splitlines()) == 2
    with pytest.raises(SystemExit) as error:
        command(monkeypatch, "evaluate", "--suite=codec", *arguments, "--levels=4", "--metrics=si_sdr")
    assert error.value.code == 2 and "4 levels, but the codec has 3" in capsys.readouterr().err
