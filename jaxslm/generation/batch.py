"""Requests from a JSON lines file, answers into a folder: what cannot be answered is named, the rest is answered."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

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
            rows, asked = [], []
            for number, line in lines[first : first + _GROUP]:
                row, where = dict(id=f"{number:05d}"), f"{path}, line {number}"
                rows.append(row)
                try:
                    fields = dict(id=row["id"]) | _fields(line, where)
                    if fields["id"] in seen:
                        raise ValueError(f"{where}: the id '{fields['id']}' is taken; give another")
                    check_inside(out, fields["id"])
                    row["id"] = fields["id"]
                    seen.add(row["id"])
                    asked.append(_Asked(row, number, *_request(fields, path.parent, chain, default, options)))
                except (ValueError, OSError) as error:
                    row["error"] = str(error)
            for row, answer in _answers(chain, asked, options):
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


class _Asked(NamedTuple):
    """A request, the row that its answer goes into, its line, and what the voice takes on."""

    row: dict[str, Any]
    number: int
    request: Request
    prompt: Any


def _fields(line: str, where: str) -> dict[str, str]:
    try:
        fields = json.loads(line)
        assert isinstance(fields, dict)
    except (ValueError, AssertionError) as error:
        raise ValueError(f"{where}: it is no JSON object") from error
    if unknown := [name for name in fields if name not in FIELDS]:
        raise ValueError(f"{where}: unknown field '{unknown[0]}'; a line has {', '.join(FIELDS)}")
    if wrong := [name for name, value in fields.items() if not isinstance(value, str)]:
        raise ValueError(f"{where}: {wrong[0]} is {fields[wrong[0]]!r}, but must be a string")
    return fields


def _request(
    fields: Mapping[str, str], folder: Path, chain: Chain, default: Mapping[str, Any], options: Mapping[str, Any]
) -> tuple[Request, Any]:
    """(a request, its prompt): what is wrong with either is of its line alone."""
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
        id=fields["id"],
    )
    chain.check(request)
    return request, chain.prompt_of(request) if chain.voice and wants_voice and options.get("sound", True) else None


def _answers(chain: Chain, asked: list[_Asked], options: Mapping[str, Any]) -> Iterator[tuple[dict, Answer | dict]]:
    """(row, its answer); where a group fails each is asked alone, so that one bad request harms no other."""
    if not asked:
        return
    rows, places, requests, prompts = zip(*asked, strict=True)
    try:
        yield from zip(rows, chain.answer(requests, places=places, prompts=prompts, **options), strict=True)
    except (ValueError, FloatingPointError) as error:
        if len(asked) == 1:
            yield rows[0], dict(error=str(error))
            return
        for each in asked:
            yield from _answers(chain, [each], options)


def _told(answer: Answer, out: Path) -> dict[str, Any]:
    row: dict[str, Any] = dict(text=answer.text) if answer.text is not None else dict(units=str(answer))
    if answer.samples is not None:
        answer.save(out / f"{answer.id}.wav")
        row["wav"] = f"{answer.id}.wav"
    more = dict(stopped=answer.stopped, too_long=answer.too_long)
    return row | more | dict(seconds={name: round(s, 3) for name, s in answer.seconds.items()})
