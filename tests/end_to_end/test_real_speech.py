"""The main job on real recorded speech: set JAXSLM_CORPORA to a folder with asterisk_en (manifest.jsonl and audio)."""

import json
import os
from pathlib import Path

import pytest

from tests.end_to_end.commands import train

pytest.importorskip("pocketsphinx", reason="the demo extra is not installed")
CORPUS = Path(os.environ.get("JAXSLM_CORPORA", "")) / "asterisk_en"


@pytest.mark.skipif(not (CORPUS / "manifest.jsonl").is_file(), reason="JAXSLM_CORPORA names no folder with asterisk_en")
def test_training_on_recorded_speech_with_forced_alignment(tmp_path):
    manifest = CORPUS / "manifest.jsonl"
    sources = {
        "speech": {"kind": "manifest", "path": str(manifest), "heldout": 0.2, "limit": 80},
        "text": {"kind": "text", "path": str(manifest), "heldout": 0.2},
    }
    done = train(
        tmp_path / "run", tmp_path / "cache", f"--config.data.sources={json.dumps(sources)}",
        "--config.data.alignment=pocketsphinx", "--config.steps=20", "--config.eval.every=10",
    )  # fmt: skip
    prepared = next(path for path in (tmp_path / "cache").glob("*/manifest.json"))
    counts = json.loads(prepared.read_text())
    assert counts["speech"]["train"] + counts["speech"]["heldout"] > 70
    assert counts["aligned"]["train"] > 0.8 * counts["speech"]["train"]
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    heldout = [row for row in rows if "heldout/loss" in row]
    for name in ("text", "speech", "asr", "tts", "interleaved"):
        assert heldout[-1][f"heldout/loss/{name}"] < heldout[0][f"heldout/loss/{name}"]
    assert "transcript (ASR)" in done.stdout + done.stderr
