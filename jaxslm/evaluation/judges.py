"""Judges outside of what is judged: programs that are given recordings and say what they hear, or how good they are.

A judge is a command, run without a shell, in which

- {list} stands for a text file with the path of a recording a line. It prints a JSON object a line, {"audio_filepath":
  that path, "text": what is said} or {..., "score": a number}, for each recording once, in any order; or
- {wav} stands for the path of one recording: it is run for each of them, and prints what is said, or a number.

What it prints on stderr is shown. whisper_judge.py is one.
"""

import json
import math
import shlex
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

LIST, WAV = "{list}", "{wav}"
TEXT, SCORE = "text", "score"


def ask(command: str, recordings: Sequence[Path], field: str) -> list[Any]:
    """What the judge says of each recording: `field` is TEXT (strings) or SCORE (finite numbers).

    Raises ValueError where the command cannot be run or fails, and naming the line or recordings that are wrong.
    """
    if (LIST in command) == (WAV in command):
        raise ValueError(
            f"the judge's command {command!r} must have one of {LIST}, for the list of recordings, and {WAV}, for each"
        )
    words = shlex.split(command)
    if WAV in command:
        return [_alone(words, path, field) for path in tqdm(recordings, desc="judging", unit=" recordings")]
    with tempfile.TemporaryDirectory() as folder:
        listed = Path(folder) / "recordings.txt"
        listed.write_text("".join(f"{path}\n" for path in recordings), encoding="utf-8")
        printed = _run([word.replace(LIST, str(listed)) for word in words])
    said: dict[str, Any] = {}
    asked = {str(path) for path in recordings}
    for number, line in enumerate(printed.split("\n"), 1):  # not of splitlines, which also cuts within JSON texts
        if line.strip():
            path, value = _answer(line, field, f"the judge's line {number}")
            if path not in asked or path in said:
                raise ValueError(
                    f"the judge's line {number} is of {path}, {'twice' if path in said else 'not asked of'}"
                )
            said[path] = value
    if missing := [str(path) for path in recordings if str(path) not in said]:
        raise ValueError(f"the judge says nothing of {len(missing)} recordings, such as {missing[0]}")
    return [said[str(path)] for path in recordings]


def _alone(words: Sequence[str], path: Path, field: str) -> Any:
    printed = _run([word.replace(WAV, str(path)) for word in words]).strip()
    if field == TEXT:
        return printed
    try:
        value = float(printed)
        assert math.isfinite(value)
    except (ValueError, AssertionError):
        raise ValueError(f"the judge prints no number of {path}: {printed[:80]!r}") from None
    return value


def _run(words: Sequence[str]) -> str:
    """What a command prints. Raises ValueError where it cannot be run or fails."""
    try:
        done = subprocess.run(words, stdout=subprocess.PIPE, text=True, encoding="utf-8", check=False)
    except OSError as error:
        raise ValueError(f"the judge {words[0]!r} cannot be run: {error}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"the judge {words[0]!r} prints what is no UTF-8: {error}") from error
    if done.returncode:
        raise ValueError(f"the judge {shlex.join(words)} ended with {done.returncode}; see what it said above")
    return done.stdout


def _answer(line: str, field: str, where: str) -> tuple[str, Any]:
    try:
        row = json.loads(line)
        path, value = row["audio_filepath"], row[field]
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f'{where} is no {{"audio_filepath": .., "{field}": ..}}: {line[:80]!r}') from error
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not (isinstance(value, str) if field == TEXT else number):
        raise ValueError(f"{where}: {field} is {value!r}")
    return path, value
