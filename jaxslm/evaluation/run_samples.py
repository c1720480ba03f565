"""What a run's samples/ folder holds, as part of a page: sounds inside it, texts and units beside them."""

import html
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from jaxslm.audio.io import encode_flac
from jaxslm.evaluation.html_page import data_uri
from jaxslm.evaluation.unit_strip import unit_strip

MOST_BYTES = 6_000_000  # of sound on a page
_KINDS = {".flac": "audio/flac", ".mp3": "audio/mpeg", ".ogg": "audio/ogg", ".opus": "audio/ogg", ".wav": ""}
_UNIT = re.compile(r"\[Hu(\d{1,7})\]")
_MOST_UNITS, _MOST_CHARACTERS = 2000, 5000  # of an answer
_FIRST = ("said", "text", "heard", "original", "units")  # of a clip's lines


def samples_section(folder: Path, most_bytes: int = MOST_BYTES) -> str:
    """HTML of the clips in `folder`, as tasks write them: NUMBER.flac and NUMBER-KIND.wav beside answers.json, or
    KIND/ID.wav. Clips whose sound would pass `most_bytes` in all are left out, which is said."""
    clips = _clips(folder)
    if not clips:
        return "<p>There are none yet: a run writes samples/ when it has made its last step.</p>"
    parts, left_out, room = [], [], most_bytes
    for name, (texts, files) in clips.items():
        if sum(path.stat().st_size for path in files.values()) > 4 * room:  # FLAC is hardly smaller than a fourth
            left_out.append(name)
            continue
        sounds, failures = _sounds(files)
        size = sum(len(data) for _, data in sounds.values())
        if size > room:
            left_out.append(name)
            continue
        room -= size
        lines = {kind: _text(value) for kind, value in texts.items()}
        for kind, (mime, data) in sounds.items():
            player = f'<audio controls preload="metadata" src="{data_uri(mime, data)}"></audio>'
            lines[kind] = lines.get(kind, "") + player
        for kind, cause in failures.items():
            lines[kind] = lines.get(kind, "") + f'<p class="missing">{html.escape(cause)}</p>'
        order = sorted(lines, key=lambda kind: _FIRST.index(kind) if kind in _FIRST else len(_FIRST))
        body = "".join(f"<dt>{html.escape(kind)}</dt><dd>{lines[kind]}</dd>" for kind in order)
        parts.append(f"<h3>{html.escape(name)}</h3><dl>{body}</dl>")
    if left_out:
        named = ", ".join(left_out[:5]) + (", ..." if len(left_out) > 5 else "")
        parts.append(
            f'<p class="missing">{len(left_out)} of {len(clips)} clips are left out, since a page holds at most '
            f"{most_bytes / 1e6:g} MB of sound: {html.escape(named)}. They lie in {html.escape(str(folder))}.</p>"
        )
    return "".join(parts)


def _clips(folder: Path) -> dict[str, tuple[dict[str, str], dict[str, Path]]]:
    """clip -> (texts by kind, files by kind)."""
    answers = _answers(folder / "answers.json")
    names = [str(answer.pop("id", number)) for number, answer in enumerate(answers)]
    kinds = list(dict.fromkeys(kind for answer in answers for kind in answer))
    clips: dict[str, tuple[dict[str, str], dict[str, Path]]] = {}
    for name, answer in zip(names, answers, strict=True):
        clips[name] = {("said" if kind == "text" else kind): value for kind, value in answer.items()}, {}
    files = (path for path in folder.rglob("*") if path.suffix.lower() in _KINDS and path.is_file())
    for path in sorted(files, key=lambda path: (path.parent != folder / "original", str(path))):
        place = path.relative_to(folder).with_suffix("")
        number, _, rest = place.name.partition("-")
        if len(place.parts) > 1:
            name, kind = "/".join(place.parts[1:]), place.parts[0]
        elif number.isdecimal() and int(number) < len(names):
            name, kind = names[int(number)], _kind(rest, kinds) if rest else "heard"
        else:
            name, kind = place.name, "heard"
        clips.setdefault(name, ({}, {}))[1][kind] = path
    return clips


def _answers(path: Path) -> list[dict[str, str]]:
    """Those of tasks/samples.py; what is no list of objects holds none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return []
    found = [answer for answer in content if isinstance(answer, dict)] if isinstance(content, list) else []
    return [{name: value for name, value in answer.items() if isinstance(value, str)} for answer in found]


def _kind(name: str, kinds: Iterable[str]) -> str:
    """The kind of which `name` is the file's: "spoken (TTS)" of "spoken"."""
    return next((kind for kind in kinds if kind.split(" (")[0].replace(" ", "-") == name), name)


def _text(value: str) -> str:
    units = [int(unit) for unit in _UNIT.findall(value)]
    if units and not _UNIT.sub("", value).strip():
        more = f"<small>, of which the first {_MOST_UNITS} are drawn</small>" if len(units) > _MOST_UNITS else ""
        return unit_strip(units[:_MOST_UNITS], columns=50) + more
    cut = f"{value[:_MOST_CHARACTERS]}..." if len(value) > _MOST_CHARACTERS else value
    return f"<p>{html.escape(cut)}</p>" if cut else "<p><small>(nothing)</small></p>"


def _sounds(files: Mapping[str, Path]) -> tuple[dict[str, tuple[str, bytes]], dict[str, str]]:
    """(kind -> (type, bytes), kind -> why there are none). WAV becomes FLAC, which is half as large."""
    sounds: dict[str, Any] = {}
    failures = {}
    for kind, path in files.items():
        try:
            if mime := _KINDS[path.suffix.lower()]:
                sounds[kind] = mime, path.read_bytes()
            else:
                samples_NxC, rate = soundfile.read(path, dtype="float32", always_2d=True)
                finite_N = np.nan_to_num(samples_NxC.mean(axis=1), posinf=0.0, neginf=0.0)
                sounds[kind] = "audio/flac", encode_flac(finite_N, rate)
        except (OSError, RuntimeError, ValueError) as error:
            failures[kind] = f"{path.name} cannot be read: {str(error).splitlines()[0]}"
    return sounds, failures
