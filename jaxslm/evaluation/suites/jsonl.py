r"""Questions of one's own, one JSON object a line, in one of three forms:

    {"options": [["It rained.", {"audio": "wet.wav"}], [...], ...], "answer": 0}
    {"positive": {"audio": ["story.wav", "ending.wav"]}, "negative": {"units": [7, 12, 7]}}
    {"question": "What is the capital of France?", "choices": ["Rome", "Paris"], "answer": "B"}

An option is a part or a list of parts. A part is a text, or an object with one of `text`, `audio` (a file, or several
that are said in one breath; relative to the JSONL file and inside its folder) or `units`. Every form may have `id`
(else the file's name and the line's number), `context` (parts that come before each option and are not scored), `item`
and `tags` (see jaxslm/evaluation/choices.py), and `inventory`: the SHA-256 of the unit inventory that its units are
of, which a model must share.

`answer` counts from 0. To a `question` it may also be the text of a choice, or its letter. A question becomes the
context "Question: <question>\nAnswer:", after its own `context` if it has one, and a choice the text " <choice>"
(lm_eval/tasks/arc of EleutherAI/lm-evaluation-harness writes them so).
"""

import string
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from jaxslm.data.report import Report
from jaxslm.data.sources.lines import read_json, utf8_lines
from jaxslm.data.sources.manifest import FieldError, file_inside
from jaxslm.evaluation.choices import Choice, Part
from jaxslm.evaluation.suites.files import CHOICE
from jaxslm.spelling import closest

FORMS = {  # by a key that the others have not: all keys of a form
    "options": ("options", "answer"),
    "positive": ("positive", "negative"),
    "question": ("question", "choices", "answer"),
}
_FORM = "give options and answer, or positive and negative, or question, choices and answer"
_PARTS = 'write "a text", {"text": ...}, {"audio": ...} or {"units": [...]}'


def read(path: str | Path, report: Report) -> Iterator[Choice]:
    """The choices of a JSONL file, or of the only one in a folder, in its order."""
    path = Path(path)
    if path.is_dir():
        found = sorted(path.glob("*.jsonl"))
        if len(found) != 1:
            names = ", ".join(each.name for each in found) or "none"
            raise ValueError(f"{path}: expected one .jsonl file there, found {names}; give the file itself")
        path = found[0]
    if not path.is_file():
        raise ValueError(f"{path}: no such file; give a JSONL file of questions, or the folder that holds one")
    ids: set[str] = set()
    for where, number, line in utf8_lines(path, report, what=CHOICE):
        record = read_json(line, where, report, what=CHOICE)
        if record is None:
            continue
        try:
            choice = _choice(record, f"{path.name}:{number}", path.parent.resolve())
            if choice.id in ids:
                raise FieldError(f"the id '{choice.id}' is that of an earlier line", "give each line an id of its own")
        except FieldError as error:
            report.left_out(where, *error.args, what=CHOICE)
            continue
        ids.add(choice.id)
        yield choice


def _choice(record: Mapping, line: str, root: Path) -> Choice:
    forms = [form for form in FORMS if form in record]
    if len(forms) != 1:
        meant = "" if forms else next((hint for key in record if (hint := closest(key, FORMS))), "")
        raise FieldError(f"{' and '.join(forms) or 'no question'} in one line.{meant}", _FORM)
    if missing := [key for key in FORMS[forms[0]] if key not in record]:
        raise FieldError(f"{forms[0]} without {' and '.join(missing)}", _FORM)
    context = _parts(record["context"], root) if "context" in record else ()
    if forms == ["positive"]:
        values, answer = [record["positive"], record["negative"]], 0
    else:
        values = record["options" if forms == ["options"] else "choices"]
        if not isinstance(values, list) or len(values) < 2:
            raise FieldError("fewer than two options", _FORM)
        answer = record["answer"]
    if forms == ["question"]:
        question, values = _text(record["question"]), [_text(value) for value in values]
        answer = _index(answer, values)
        context = (*context, Part(text=f"Question: {question}\nAnswer:"))
        values = [f" {value}" for value in values]
    if type(answer) is not int or not 0 <= answer < len(values):
        raise FieldError(f"the answer is {answer!r}", f"write a whole number from 0 to {len(values) - 1}")
    return Choice(
        id=_name(record, "id") or line,
        options=tuple(_parts(value, root) for value in values),
        answer=answer,
        context=context,
        item=_name(record, "item"),
        tags=_tags(record),
        inventory=_name(record, "inventory"),
    )


def _index(answer, choices: Sequence[str]):
    """The index of an answer that is a text or a letter; any other as it is."""
    if not isinstance(answer, str):
        return answer
    answer = answer.strip()
    meant = {i for i, choice in enumerate(choices) if choice == answer}
    if len(answer) == 1 and answer in string.ascii_uppercase[: len(choices)]:
        meant.add(string.ascii_uppercase.index(answer))
    if len(meant) != 1:
        cause = f"the answer '{answer}' is {'more than one' if meant else 'none'} of the choices"
        raise FieldError(cause, "write the number of the right choice, from 0")
    return meant.pop()


def _parts(value, root: Path) -> tuple[Part, ...]:
    values = value if isinstance(value, list) else [value]
    if not values:
        raise FieldError("an option or a context without parts", _PARTS)
    return tuple(_part(value, root) for value in values)


def _part(value, root: Path) -> Part:
    if isinstance(value, str):
        value = {"text": value}
    if not isinstance(value, dict) or len(value) != 1:
        raise FieldError("a part that is not one text, audio or units", _PARTS)
    ((key, content),) = value.items()
    if key == "text":
        _text(content)
        return Part(text=content)  # with the white space around it, which a tokenizer may need
    if key == "audio":
        files = content if isinstance(content, list) else [content]
        if not files:
            raise FieldError("audio without a file", _PARTS)
        return Part(audio=tuple(_audio(name, root) for name in files))
    if key == "units":
        return Part(units=_units(content))
    raise FieldError(f"a part has no '{key}'.{closest(key, ('text', 'audio', 'units'))}", _PARTS)


def _text(value) -> str:
    if not isinstance(value, str) or not value.strip():
        raise FieldError(f"a text is {value!r}", "write words")
    return value.strip()


def _audio(name, root: Path) -> Path:
    if not isinstance(name, str) or not name:
        raise FieldError(f"audio is {name!r}", "name a file")
    return file_inside(root, name, "move it inside, beside the JSONL file")


def _units(values) -> tuple[int, ...]:
    if not (isinstance(values, list) and values and all(type(unit) is int and 0 <= unit < 2**31 for unit in values)):
        raise FieldError("units are not a list of whole numbers from 0 up", 'write {"units": [7, 12, ...]}')
    return tuple(values)


def _name(record: Mapping, key: str) -> str:
    value = record.get(key, "")
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise FieldError(f"{key} is {value!r}", f"make {key} a string")
    return str(value)


def _tags(record: Mapping) -> dict[str, str]:
    tags = record.get("tags", {})
    if not isinstance(tags, dict) or not all(isinstance(value, str | int | float) for value in tags.values()):
        raise FieldError("tags are not an object of strings", 'write {"tags": {"name": "value"}}')
    return {name: str(value) for name, value in tags.items()}
