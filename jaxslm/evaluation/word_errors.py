"""Word and character error rates of transcripts, by jiwer."""

from collections.abc import Sequence
from dataclasses import dataclass

from jaxslm.evaluation.normalizers import normalizer


@dataclass(frozen=True)
class WordErrors:
    """wer, cer: errors over words and characters of all references together; None where there are none.

    rows: a dict an utterance with id, reference and hypothesis as they were compared, and its errors by kind.
    empty: ids whose reference has no words once normalized, which are left out.
    """

    wer: float | None
    cer: float | None
    words: int
    substitutions: int
    deletions: int
    insertions: int
    rows: Sequence[dict]
    empty: Sequence[str]

    def figures(self) -> dict:
        names = ("wer", "cer", "words", "substitutions", "deletions", "insertions")
        return {name: getattr(self, name) for name in names} | dict(utterances=len(self.rows), empty=list(self.empty))


def word_errors(ids: Sequence[str], references: Sequence[str], hypotheses: Sequence[str], normalize: str) -> WordErrors:
    """Of hypotheses against references, both as `normalize` writes them. Raises ValueError as `normalizer`, or naming
    what to install."""
    try:
        import jiwer
    except ImportError as error:
        raise ValueError("word error rates need jiwer: pip install 'jaxslm[evaluate]'") from error
    write, rows, empty = normalizer(normalize), [], []
    for id, reference, hypothesis in zip(ids, references, hypotheses, strict=True):
        reference, hypothesis = write(reference), write(hypothesis)
        if not any(character.isalnum() for character in reference):  # Whisper's leaves dots
            empty.append(id)
            continue
        found = jiwer.process_words([reference], [hypothesis])
        errors = {kind: getattr(found, kind) for kind in ("substitutions", "deletions", "insertions")}
        letters = jiwer.process_characters([reference], [hypothesis])
        wrong = letters.substitutions + letters.deletions + letters.insertions
        counts = dict(words=len(reference.split()), characters=len(reference), character_errors=wrong)
        rows.append(dict(id=id, reference=reference, hypothesis=hypothesis, **errors, **counts))

    def total(*names: str) -> int:
        return sum(row[name] for row in rows for name in names)

    kinds = ("substitutions", "deletions", "insertions")
    words, characters = total("words"), total("characters")
    return WordErrors(
        wer=total(*kinds) / words if words else None,
        cer=total("character_errors") / characters if characters else None,
        words=words,
        **{kind: total(kind) for kind in kinds},
        rows=rows,
        empty=empty,
    )
