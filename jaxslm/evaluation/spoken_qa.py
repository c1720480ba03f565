"""Spoken questions with short answers, in the JSON lines of Kimi-Audio-Evalkit (index, audio_path, question, answer,
subset), and whether an answer is right.

"exact": the answer is one of the accepted, as normalized; "contains": its words have those of one in a row, which is
how Moshi, GLM-4-Voice and others count WebQuestions, LlamaQuestions and TriviaQA. Several accepted answers are a list,
a text that is a list in JSON or Python, or a text that a separator parts, where one is named: the Evalkit copies cells
of the benchmarks' own tables.
"""

import ast
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jaxslm.data.report import Report
from jaxslm.data.sources.lines import read_json, utf8_lines
from jaxslm.data.sources.manifest import FieldError, file_inside

QUESTION = "question"


@dataclass(frozen=True)
class SpokenQuestion:
    id: str
    answers: tuple[str, ...]
    audio: Path | None
    question: str = ""
    subset: str = "all"
    prediction: str | None = None


def read_questions(path: Path, report: Report, *, separator: str = "") -> Iterator[SpokenQuestion]:
    """The questions of a file; what cannot be used is named. Audio is relative to the file and inside its folder.

    separator: between the accepted answers of a text; "" for none. ValueError for a file in another encoding.
    """
    root, seen = path.parent.resolve(), set()
    for where, number, line in utf8_lines(path, report, what=QUESTION):
        row = read_json(line, where, report, what=QUESTION)
        if row is None:
            continue
        try:
            question = _question(row, number, root, separator)
            if question.id in seen:
                raise FieldError(f"the index '{question.id}' is that of an earlier line", "number each line")
        except FieldError as error:
            report.left_out(where, *error.args, what=QUESTION)
            continue
        seen.add(question.id)
        yield question


def _question(row: Mapping, number: int, root: Path, separator: str) -> SpokenQuestion:
    answers, audio, prediction = _answers(row.get("answer"), separator), row.get("audio_path"), row.get("prediction")
    audio = audio[0] if isinstance(audio, list) and len(audio) == 1 else audio
    if not answers:
        raise FieldError("no answer", "give `answer`, a text or a list of texts")
    if audio and not isinstance(audio, str):
        raise FieldError(f"audio_path is {audio!r}", "ask about one recording a line")
    if prediction is not None and not isinstance(prediction, str):
        raise FieldError(f"the prediction is {prediction!r}", "make it a text")
    return SpokenQuestion(
        id=str(row.get("index", number)),
        answers=answers,
        audio=file_inside(root, audio) if audio else None,
        question=str(row.get("question") or ""),
        subset=str(row.get("subset") or "all"),
        prediction=prediction,
    )


def _answers(value, separator: str) -> tuple[str, ...]:
    if isinstance(value, str) and value.strip().startswith("["):
        for parse in (json.loads, ast.literal_eval):
            try:
                value = parse(value.strip())
                break
            except (ValueError, SyntaxError, MemoryError, RecursionError):
                pass
    elif isinstance(value, str) and separator:
        value = value.split(separator)
    values = value if isinstance(value, list) else [value]
    texts = [str(v) for v in values if isinstance(v, str | int | float) and not isinstance(v, bool) and v == v]
    return tuple(text.strip() for text in texts if text.strip())


def judge(prediction: str, answers: Sequence[str], normalize: Callable[[str], str]) -> dict[str, bool]:
    """{"exact", "contains"} of one answer."""
    said, accepted = normalize(prediction), [text for text in map(normalize, answers) if text]
    return dict(exact=said in accepted, contains=any(f" {text} " in f" {said} " for text in accepted))
