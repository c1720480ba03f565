"""A small corpus of tones on disk, with word times, and the config that prepares it."""

import json

import numpy as np
import soundfile

RATE = 16_000


def write_corpus(folder, count: int = 16, name: str = "u", **changes) -> list[dict]:
    """`count` clips of shifting tones with word times, and a manifest; every fourth is held out."""
    (folder / "audio").mkdir(parents=True, exist_ok=True)
    time_N = np.arange(int(0.8 * RATE)) / RATE
    lines = []
    for i in range(count):
        pitch = 150 + 60 * (i % 5) + 400 * (time_N > 0.4)
        soundfile.write(folder / "audio" / f"{name}{i}.wav", 0.3 * np.sin(2 * np.pi * pitch * time_N), RATE)
        words = [["low", 0.05, 0.4], ["high", 0.4, 0.75]]
        fields = dict(text="Low high.", words=words, split="heldout" if i % 4 == 3 else "train")
        lines.append(dict(audio_filepath=f"audio/{name}{i}.wav", id=f"{name}{i}") | fields | changes)
    write_manifest(folder, lines)
    return lines


def write_manifest(folder, lines):
    (folder / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def config(*folders, **changes) -> dict:
    sources = {folder.name: dict(kind="manifest", path=str(folder)) for folder in folders}
    return dict(sources=sources, units=dict(encoder="mfcc", clusters=4, seed=1), alignment="") | changes


def files(folder) -> dict:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
