"""Recordings that need only be there."""

from pathlib import Path

import numpy as np
import soundfile


def record(folder: Path, *names: str) -> None:
    """A tenth of a second of silence under each name, with .wav."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        soundfile.write(folder / f"{name}.wav", np.zeros(1600), 16000)


def causes(report) -> list[tuple[str, str]]:
    """(what, cause) of all that was left out."""
    return [(entry["what"], entry["cause"]) for entry in report.entries if entry["kind"] == "left out"]


def audio(choice) -> list[list[str]]:
    """The names of the files of every option."""
    return [[path.name for part in option for path in part.audio] for option in choice.options]
