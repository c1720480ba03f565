import pytest

from jaxslm.units.pronunciation import number_words, pronounce, spoken_words


@pytest.mark.parametrize(
    "item, words",
    [
        ("Hello,", "hello"),
        ("don’t", "don't"),
        ("'tis", "tis"),
        ("well-known", "well known"),
        ("naïve", "naive"),
        ("—", ""),
        ("1,234", "one thousand two hundred thirty four"),
        ("yes,no", "yes no"),
        ("H.323", "h three hundred twenty three"),
        ("IAX2", "iax two"),
        ("50%", "fifty percent"),
        ("R&D", "r and d"),
    ],
)
def test_what_is_said_for_an_item(item, words):
    assert spoken_words(item) == words.split()


@pytest.mark.parametrize(
    "number, words",
    [
        (0, "zero"),
        (13, "thirteen"),
        (40, "forty"),
        (99, "ninety nine"),
        (100, "one hundred"),
        (7010, "seven thousand ten"),
        (2_000_305, "two million three hundred five"),
        (12_345_678_901, "one two three four five six seven eight nine zero one"),
    ],
)
def test_numbers(number, words):
    assert number_words(number) == words.split()


def test_pronunciations_by_rule():
    assert pronounce("sketch") == "S K EH CH"
    assert pronounce("quail") == "K W EY L"
    assert pronounce("pbx") == "P IY B IY EH K S"
    assert pronounce("straße") == pronounce("日本") == ""


def test_rules_agree_with_the_dictionary_on_most_phones():
    pocketsphinx = pytest.importorskip("pocketsphinx", reason="pip install 'jaxslm[demo]'")
    import difflib
    import pathlib

    folder = pathlib.Path(pocketsphinx.get_model_path()) / "en-us"
    entries = [line.split(maxsplit=1) for line in (folder / "cmudict-en-us.dict").read_text().splitlines()[::500]]
    share = []
    for word, phones in entries:
        if word.isalpha():
            guess = pronounce(word).split()
            assert guess, word
            share.append(difflib.SequenceMatcher(None, guess, phones.split()).ratio())
    assert len(share) > 150 and sum(share) / len(share) > 0.6
