"""Word errors against a plain edit distance; normalizers on golden texts."""

import random

import pytest

from jaxslm.evaluation.normalizers import normalizer
from jaxslm.evaluation.word_errors import word_errors

pytest.importorskip("jiwer", reason="pip install 'jaxslm[evaluate]'")
pytest.importorskip("whisper_normalizer", reason="pip install 'jaxslm[evaluate]'")


def distance(a, b) -> int:
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        last, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (x != y))
    return row[-1]


def test_rates_are_edit_distances_over_all_references():
    rng = random.Random(0)
    references = [" ".join(rng.choices("abcde", k=rng.randint(1, 9))) for _ in range(30)]
    hypotheses = [" ".join(rng.choices("abcde", k=rng.randint(0, 9))) for _ in range(30)]
    found = word_errors([str(i) for i in range(30)], references, hypotheses, "none")
    errors = sum(distance(r.split(), h.split()) for r, h in zip(references, hypotheses, strict=True))
    letters = sum(distance(r, h) for r, h in zip(references, hypotheses, strict=True))
    assert found.wer == errors / sum(len(r.split()) for r in references)
    assert found.cer == letters / sum(map(len, references))
    assert found.substitutions + found.deletions + found.insertions == errors


def test_golden_texts():
    english, basic = normalizer("whisper-english"), normalizer("whisper-basic")
    assert (
        english("Mr. Smith's colour won't pay twenty-three dollars (aside)") == "mister smith is color will not pay $23"
    )
    assert basic("Größe: Ça va, l’été?") == "größe ça va l été"
    assert normalizer("none")(" A  b. ") == "A b."


def test_a_reference_without_words_is_left_out_and_named():
    found = word_errors(["a", "b"], ["[noise]", "yes"], ["no", "Yes."], "whisper-english")
    assert (found.wer, found.cer, found.words, found.empty) == (0.0, 0.0, 1, ["a"])
    nothing = word_errors(["a"], ["..."], ["no"], "whisper-english")
    assert nothing.wer is None and nothing.figures()["utterances"] == 0


def test_another_normalizer_is_named():
    with pytest.raises(ValueError, match="there is no normalizer 'whisper-englsh'.*Did you mean whisper-english?"):
        word_errors([], [], [], "whisper-englsh")
