"""Spoken questions with short answers, in the JSON lines of Kimi-Audio-Evalkit (index, audio_path, question, answer,
subset), and whether an answer is right.

"exact": the answer is one of the accepted, as normalized; "contains": its words have those of one in a row, which is
how Moshi, GLM-4-Voice and others count WebQuestions, LlamaQuestions and TriviaQA. Several accepted answers are a list,
a text that is a list in JSON or Python, or a text that a separator parts, where one is named: the Evalkit copies cells
of the benchmarks' own tables.
"""

import ast
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from jaxslm.data.report import Report
from jaxslm.data.sources.lines import read_json
from jaxslm.evaluation.suites.files import utf8_lines

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
        id, answers, prediction = (
            str(row.get("index", number)),
            _answers(row.get("answer"), separator),
            row.get("prediction"),
        )
        audio = row.get("audio_path")
        audio = audio[0] if isinstance(audio, list) and len(audio) == 1 else audio
        nul = isinstance(audio, str) and "\0" in audio
        file = (root / audio).resolve() if isinstance(audio, str) and audio and not nul else None
        if not answers:
            report.left_out(where, "no answer", "give `answer`, a text or a list of texts", what=QUESTION)
        elif nul or (audio and not isinstance(audio, str)):
            report.left_out(where, f"audio_path is {audio!r}", "ask about one recording a line", what=QUESTION)
        elif id in seen:
            report.left_out(where, f"the index '{id}' is that of an earlier line", "number each line", what=QUESTION)
        elif file is not None and not file.is_relative_to(root):
            report.left_out(where, f"'{audio}' lies outside '{root}'", "move it inside", what=QUESTION)
        elif file is not None and not file.is_file():
            report.left_out(where, f"no file '{audio}' in '{root}'", "restore the file", what=QUESTION)
        elif prediction is not None and not isinstance(prediction, str):
            report.left_out(where, f"the prediction is {prediction!r}", "make it a text", what=QUESTION)
        else:
            seen.add(id)
            asked, subset = str(row.get("question") or ""), str(row.get("subset") or "all")
            yield SpokenQuestion(id, answers, file, asked, subset, prediction)


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
