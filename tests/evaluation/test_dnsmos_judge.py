"""The judge of quality by a stand-in for its model: whatever a language model says, or does not, gets a score."""

import json
import sys
from types import SimpleNamespace

import numpy as np
import soundfile

from jaxslm.evaluation import dnsmos_judge


def test_silence_and_long_clips_are_judged(tmp_path, monkeypatch, capsys):
    lengths = dict(silence=4_000, short=100, long=61 * 16_000)
    for name, n in lengths.items():
        level = 0.0 if name == "silence" else 0.1
        soundfile.write(tmp_path / f"{name}.wav", level * np.sin(np.arange(n, dtype=np.float32)), 16_000)
    (tmp_path / "list.txt").write_text("".join(f"{tmp_path / name}.wav\n" for name in lengths))
    model = SimpleNamespace(run=lambda samples, sr: {"ovrl_mos": np.float32(len(samples) / sr)})
    monkeypatch.setitem(sys.modules, "speechmos", SimpleNamespace(dnsmos=model))
    monkeypatch.setattr(sys, "argv", ["judge", str(tmp_path / "list.txt")])
    dnsmos_judge.main()
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["score"] for row in rows] == [1.0, 1.0, 61.0]  # of a second at least
