"""sWUGGY and sBLIMP of the Zero Resource Speech Challenge 2021: does a model find a word likelier than a non-word, and
a grammatical sentence likelier than an ungrammatical one?

Two layouts are read. That of the challenge (zerospeech.com/challenge_archive/2021, sLM21-dataset of its toolkit `zrc`):
`{lexical,syntactic}/{dev,test}/*.wav` with a gold.csv beside them, several voices a pair. And numbered recordings of
slamkit (config/metric/{swuggy_inter,sblimp}.yaml), `<number>_*.wav` for words and `<number>+*.wav` for sentences, an
even number for the right one, in one folder or in several.
"""

import csv
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from jaxslm.data.report import Report
from jaxslm.data.sources.lines import utf8_lines
from jaxslm.evaluation.choices import Choice, Part
from jaxslm.evaluation.suites.files import CHOICE, folders_of, numbered_pairs
from jaxslm.spelling import closest

KINDS = {"lexical": ("id", "voice"), "syntactic": ("type", "subtype", "id", "voice")}  # what names a pair in gold.csv
TAGS = {"lexical": ("frequency",), "syntactic": ()}  # the other columns that must be there
SPLITS = ("dev", "test")
SEPARATORS = {"lexical": "_", "syntactic": "+"}
# Words are cut by how often LibriSpeech has them, an upper end belonging to the next band, as the official evaluation
# does it: a word that occurs 5 times is in "6-20".
BANDS = {"oov": 1, "1-5": 5, "6-20": 20, "21-100": 100, ">100": math.inf}
_ROW = "row"


@dataclass(frozen=True)
class _Row:
    where: str
    fields: Mapping[str, str]

    @property
    def stem(self) -> str:
        return self.fields["filename"]


def read(folder: str | Path, report: Report, *, kind: str = "lexical", split: str = "dev") -> Iterator[Choice]:
    """One choice a pair and voice, in the order of gold.csv (or of the numbers); voices of a pair have the same item.

    Tags: of words `frequency` (BANDS), `vocabulary` ("in" if LibriSpeech has the word, else "out") and `length` in
    phones; of sentences `type` and `subtype`; of numbered recordings the folder they lie in, `set`. Words and non-words
    are matched by id and voice, as zrc does (zerospeech/tasks/lm/lexical.py); zerospeech2021 took the rows of either
    label in their order. `names` are as in score files.
    """
    folder = Path(folder)
    for value, known, name in ((kind, KINDS, "kind"), (split, SPLITS, "split")):
        if value not in known:
            raise ValueError(f"{name} {value!r} is not one of {', '.join(known)}.{closest(str(value), known)}")
    if (folder / kind).is_dir():
        yield from _of_gold(folder / kind / split, kind, report)
        return
    if (folder / "gold.csv").is_file():
        raise ValueError(f"{folder} is one split; give the folder that holds {kind}/{split}")
    if not folder.is_dir() or not folders_of(folder, "*.wav"):
        numbered = f"<number>{SEPARATORS[kind]}....wav"
        raise ValueError(f"{folder}: expected {kind}/{split} with wavs and gold.csv there, or recordings {numbered}")
    if split != "dev":
        raise ValueError(f"{folder} has no {kind}/{split}, and numbered recordings have no splits; leave split out")
    for id, right, wrong in numbered_pairs(folder, SEPARATORS[kind], report):
        folder_of, _, _ = id.rpartition("/")
        yield Choice(
            id, ((Part(audio=(right,)),), (Part(audio=(wrong,)),)), tags={"set": folder_of} if folder_of else {}
        )


def write_scores(path: str | Path, scores: Mapping[str, float]) -> None:
    """Writes `<filename> <score>` lines as a submission to sLM21 has them in {lexical,syntactic}/{dev,test}.txt, the
    filename without .wav; zrc and zerospeech2021 want one of every wav in the split, and higher for likelier.

    Scores are written in full, so that none become equal. ValueError for one that is not finite, which they would
    count as wrong, and for a name with white space.
    """
    if not scores:
        raise ValueError(f"no scores to write into {path}")
    for name, score in scores.items():
        if not name or name.split() != [name]:
            raise ValueError(f"{name!r} cannot be written into {path}: a filename there has no white space")
        if not math.isfinite(score):
            raise ValueError(f"the score of {name} is {score}: {path} takes finite scores only, one of every recording")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (f"{name} {float(score)!r}\n" for name, score in scores.items())
    path.write_text("".join(lines), encoding="utf-8", newline="\n")


def _of_gold(folder: Path, kind: str, report: Report) -> Iterator[Choice]:
    gold = folder / "gold.csv"
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such split; expected wavs and gold.csv there")
    if not gold.is_file():
        cure = "use split 'dev', or get sLM21-dataset with the toolkit of zerospeech.com"
        raise ValueError(f"{gold}: no such file; the labels of some splits are not published: {cure}")
    wavs = {path.stem for path in folder.glob("*.wav")}
    pairs: dict[tuple[str, ...], dict[bool, list[_Row]]] = defaultdict(lambda: {True: [], False: []})
    seen: set[str] = set()
    for row in _rows(gold, (*KINDS[kind], "filename", "correct", *TAGS[kind]), report):
        if row.stem in seen:
            report.left_out(row.where, f"'{row.stem}' is in an earlier row", "keep one of them", what=_ROW)
        elif _good(row, kind, report):
            key = tuple(row.fields[column] for column in KINDS[kind])
            pairs[key][_number(row.fields["correct"]) == 1].append(row)
        seen.add(row.stem)
    for key, rows in pairs.items():
        if choice := _choice(key, rows, folder, wavs, kind, report):
            yield choice
    for stem in sorted(wavs - seen):
        report.left_out(f"{folder / stem}.wav", "no row in gold.csv", "add its row and its partner's", what="recording")


def _rows(gold: Path, needed: tuple[str, ...], report: Report) -> Iterator[_Row]:
    """Lines of a CSV file by its header; ValueError where a needed column is missing."""
    header: list[str] = []
    for where, _, line in utf8_lines(gold, report, what=_ROW):
        try:
            fields = [field.strip() for field in next(csv.reader([line], strict=True))]
        except csv.Error as error:
            report.left_out(where, f"not CSV ({error})", "close the quotes", what=_ROW)
            continue
        if not header:
            header = fields
            if missing := [column for column in needed if column not in header]:
                raise ValueError(f"{gold} has no column {', '.join(missing)}; its header must name {', '.join(needed)}")
        elif len(fields) != len(header):
            report.left_out(where, f"{len(fields)} fields under {len(header)} columns", "complete the row", what=_ROW)
        else:
            yield _Row(where, dict(zip(header, fields, strict=True)))
    if not header:
        raise ValueError(f"{gold} is empty; its header must name {', '.join(needed)}")


def _good(row: _Row, kind: str, report: Report) -> bool:
    if not row.stem or Path(row.stem).name != row.stem or "\\" in row.stem:  # a path would leave the folder
        cause, cure = f"'{row.stem}' is no filename", "name a wav of this folder, without .wav"
    elif _number(label := row.fields["correct"]) not in (0, 1):
        cause, cure = f"the label correct is '{label}'", "1 is for right, 0 for wrong"
    elif blank := [column for column in KINDS[kind] if not row.fields[column]]:
        cause, cure = f"nothing under {', '.join(blank)}", "complete the row"
    else:
        return True
    report.left_out(row.where, cause, cure, what=_ROW)
    return False


def _choice(
    key: tuple[str, ...], rows: Mapping[bool, list[_Row]], folder: Path, wavs: set[str], kind: str, report: Report
) -> Choice | None:
    known = [*rows[True], *rows[False]]
    lost = [row.stem for row in known if row.stem not in wavs]
    if not rows[True] or not rows[False]:
        cause, cure = f"no row with correct = {int(not rows[True])} for it", "add the row of its partner"
    elif len(known) > 2:
        cause, cure = f"{len(known)} rows for one pair and voice", "leave one right and one wrong"
    elif lost:
        cause, cure = f"no file '{lost[0]}.wav'", "restore the file, or remove the rows of the pair"
    else:
        tags = _word_tags(known[0], report) if kind == "lexical" else dict(zip(KINDS[kind][:2], key[:2], strict=True))
        return Choice(
            id="/".join(key),
            options=tuple((Part(audio=(folder / f"{row.stem}.wav",)),) for row in known),
            item="/".join(key[:-1]),
            tags=tags,
            names=tuple(row.stem for row in known),
        )
    report.left_out(known[0].where, cause, cure, what=CHOICE)
    return None


def _word_tags(word: _Row, report: Report) -> dict[str, str]:
    tags = {}
    frequency = _number(word.fields["frequency"])
    if frequency is not None and frequency >= 0:
        tags["frequency"] = next(band for band, end in BANDS.items() if frequency < end)
        tags["vocabulary"] = "out" if tags["frequency"] == "oov" else "in"
    else:
        cause = f"the frequency is '{word.fields['frequency']}'"
        report.left_out(word.where, cause, "write how often LibriSpeech has the word", what="frequency of a word")
    if length := _number(word.fields.get("length", "")):
        tags["length"] = f"{length:g}"
    return tags


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
