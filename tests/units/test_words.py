import math

import pytest

from jaxslm.units.words import Word, check_words, match_words

TEXT = "The cat, sat"
GOOD = (Word("the", 0.1, 0.3), Word("cat", 0.3, 0.6), Word("sat", 0.7, 1.0))


def changed(index, start, end, text=None):
    words = list(GOOD)
    words[index] = Word(text or words[index].text, start, end)
    return words


def test_good_words_take_the_written_form():
    words = check_words(GOOD, TEXT, 1.0, "a.jsonl:3")
    assert [word.text for word in words] == TEXT.split()
    assert [(word.start, word.end) for word in words] == [(word.start, word.end) for word in GOOD]
    assert check_words((), "", 1.0, "here") == ()


def test_rounding_is_trimmed():
    words = check_words(
        (Word("the", -0.03, 0.301), Word("cat,", 0.3, 0.3005), Word("sat", 0.3, 1.04)), TEXT, 1.0, "here"
    )
    assert [(word.start, word.end) for word in words] == [(0.0, 0.301), (0.301, 0.301), (0.301, 1.0)]


@pytest.mark.parametrize(
    "words, message",
    [
        (GOOD[:2], r"2 word times for 3 words of text; give one for each item of text.split\(\)"),
        (
            changed(1, 0.3, 0.6, "dog"),
            r"word 2 \('cat,'\) has the times of 'dog'; give the words in the order of the text",
        ),
        (
            changed(1, 0.6, 0.3),
            r"word 2 \('cat,'\) runs backwards, from 0.6 to 0.3 s; give \[word, start, end\] in seconds",
        ),
        (changed(2, 0.5, 1.0), r"word 3 \('sat'\) overlaps the word ahead of it \(until 0.6 s\), at 0.5 to 1 s; align"),
        (
            changed(2, 0.0, 0.1),
            r"word 3 \('sat'\) starts before the word ahead of it \(0.3 s\), .*; sort the words by time",
        ),
        (changed(2, 0.7, 1.2), r"word 3 \('sat'\) lies outside the audio, 0.7 to 1.2 s of 1.000 s; give seconds from"),
        (changed(2, 7.0, 10.0), r"word 3 \('sat'\) lies outside the audio"),
        (changed(0, -0.2, 0.3), r"word 1 \('The'\) lies outside the audio"),
        (changed(1, 0.3, math.nan), r"word 2 \('cat,'\) goes from 0.3 to nan s; give finite seconds"),
        (changed(1, -math.inf, 0.6), ".* give finite seconds"),
    ],
)
def test_bad_times_are_refused_by_name(words, message):
    with pytest.raises(ValueError, match="^a.jsonl:3: " + message):
        check_words(words, TEXT, 1.0, "a.jsonl:3")


def test_an_aligners_words_are_put_onto_the_written_ones():
    text = "“It's well-known,” – said Ms. Müller; 3 times OK..."
    spoken = "<sil> it 's well known <sil> said ms mu\u0308ller 3 sp TIMES <unk> sil".split(" ") + [""]
    words = match_words([Word(word, float(i), i + 0.5) for i, word in enumerate(spoken)], text)
    assert [word.text for word in words] == text.split()
    times = [(1, 2.5), (3, 4.5), (4.5, 4.5), (6, 6.5), (7, 7.5), (8, 8.5), (9, 9.5), (11, 11.5), (12, 12.5)]
    assert [(word.start, word.end) for word in words] == times
    check_words(words, text, 20.0, "here")


@pytest.mark.parametrize(
    "spoken, message",
    [
        ("the dog sat", "where the text has 'cat,' it has 'dog' at 1 s; align the text again"),
        ("the cat", "where the text has 'sat' it has nothing more"),
        ("the cat sat down", "after its last word comes 'down' at 3 s"),
        ("the catsat", "where the text has 'cat,' it has 'catsat'"),
        ("", "where the text has 'The' it has nothing more"),
    ],
)
def test_words_of_another_text_are_refused(spoken, message):
    with pytest.raises(ValueError, match=message):
        match_words([Word(word, float(i), i + 0.5) for i, word in enumerate(spoken.split())], TEXT)
