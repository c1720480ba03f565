"""Requests from a JSON lines file, answers into a folder: what cannot be answered is named, the rest is answered."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from jaxslm.data.code_files import check_inside
from jaxslm.generation.chain import Answer, Chain, Request

ANSWERS = "answers.jsonl"
FIELDS = ("id", "text", "audio", "to", "voice")
_GROUP = 16  # requests that are answered at once


def answer_file(path: Path, out: Path, chain: Chain, default: Mapping[str, Any], **options: Any) -> tuple[int, int]:
    """Answers each line {"text" or "audio": ..., "to", "voice", "id"}; (lines answered, lines that could not be).

    Writes OUT/answers.jsonl, a line each in their order with id, to, text or units, wav, stopped, seconds, or with
    `error`; and OUT/ID.wav of what is spoken. Paths of audio are relative to the file.

    Args:
      default: `to` and `voice` of lines that have none.
      options: of `Chain.answer`.
    Raises:
      ValueError: a file without a line, or a folder that has answers.
    """
    text = path.read_text(encoding="utf-8-sig")
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not lines:
        raise ValueError(f'{path} has no lines: write one a request, such as {{"text": "hello", "to": "speech"}}')
    if (out / ANSWERS).exists():
        raise ValueError(f"{out / ANSWERS} is there already: name another folder by --out")
    out.mkdir(parents=True, exist_ok=True)
    failed, seen = 0, set()
    with (out / ANSWERS).open("w", encoding="utf-8") as file, tqdm(total=len(lines), unit=" requests") as bar:
        for first in range(0, len(lines), _GROUP):
            rows, requests = [], []
            for number, line in lines[first : first + _GROUP]:
                rows.append(dict(id=f"{number:05d}"))
                try:
                    request = _request(line, f"{path}, line {number}", rows[-1]["id"], path.parent, chain, default)
                    if request.id in seen:
                        raise ValueError(f"{path}, line {number}: the id '{request.id}' is taken; give another")
                    check_inside(out, request.id)
                    seen.add(request.id)
                    rows[-1]["id"] = request.id
                    requests.append((rows[-1], request, number))
                except (ValueError, OSError) as error:
                    rows[-1]["error"] = str(error)
            for row, answer in _answers(chain, requests, options):
                try:
                    row |= answer if isinstance(answer, dict) else _told(answer, out)
                except (ValueError, OSError) as error:
                    row["error"] = str(error)
            for row in rows:
                failed += "error" in row
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
            file.flush()
            bar.update(len(rows))
    return len(lines) - failed, failed


def _request(line: str, where: str, id: str, folder: Path, chain: Chain, default: Mapping[str, Any]) -> Request:
    try:
        fields = json.loads(line)
        assert isinstance(fields, dict)
    except (ValueError, AssertionError) as error:
        raise ValueError(f"{where}: it is no JSON object") from error
    if unknown := [name for name in fields if name not in FIELDS]:
        raise ValueError(f"{where}: unknown field '{unknown[0]}'; a line has {', '.join(FIELDS)}")
    if wrong := [name for name, value in fields.items() if not isinstance(value, str)]:
        raise ValueError(f"{where}: {wrong[0]} is {fields[wrong[0]]!r}, but must be a string")
    audio, voice = fields.get("audio"), fields.get("voice", default.get("voice"))
    to = fields.get("to") or default.get("to") or ("text" if audio is not None else "speech")
    if voice is not None and chain.voice and chain.voice.clones and "voice" in fields:
        voice = folder / voice
    wants_voice = to in ("speech", "voice")
    request = Request(
        to=to,
        text=fields.get("text"),
        audio=None if audio is None else chain.recording(folder / audio),
        voice=chain.voice_of(voice) if wants_voice else None,
        id=fields.get("id", id),
    )
    chain.check(request)
    if chain.voice and wants_voice:
        chain.prompt_of(request)  # its errors are of this line
    return request


def _answers(chain: Chain, requests: list, options: Mapping[str, Any]) -> Iterator[tuple[dict, Answer | dict]]:
    """(row, its answer); where a group fails each is asked alone, so that one bad request harms no other."""
    if not requests:
        return
    rows, asked, places = zip(*requests, strict=True)
    try:
        yield from zip(rows, chain.answer(asked, places=places, **options), strict=True)
    except (ValueError, FloatingPointError) as error:
        if len(requests) == 1:
            yield rows[0], dict(error=str(error))
            return
        for each in requests:
            yield from _answers(chain, [each], options)


def _told(answer: Answer, out: Path) -> dict[str, Any]:
    row: dict[str, Any] = dict(text=answer.text) if answer.text is not None else dict(units=str(answer))
    if answer.samples is not None:
        answer.save(out / f"{answer.id}.wav")
        row["wav"] = f"{answer.id}.wav"
    more = dict(stopped=answer.stopped, too_long=answer.too_long)
    return row | more | dict(seconds={name: round(s, 3) for name, s in answer.seconds.items()})
