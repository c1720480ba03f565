"""How an English word that no dictionary has is read out: numbers in words, letters by rule. Good enough to place it in
time.
"""

import re
import unicodedata

_ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
).split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
_SIGNS = {"&": " and ", "%": " percent ", "@": " at ", "+": " plus ", "=": " equals "}

# Letters and the ARPAbet phones they are mostly read as; the longest that fits is taken, "^" and "$" being the ends of
# the word.
_RULES = {
    "^kn": "N", "^wr": "R", "^ps": "S", "^x": "Z", "^y": "Y", "e$": "", "es$": "Z", "ed$": "D", "le$": "AH L",
    "y$": "IY", "tion": "SH AH N", "sion": "ZH AH N", "cial": "SH AH L", "tch": "CH", "dge": "JH", "igh": "AY",
    "eau": "OW", "sch": "SH", "ch": "CH", "sh": "SH", "th": "TH", "ph": "F", "wh": "W", "ck": "K", "ng": "NG",
    "qu": "K W", "gh": "", "ee": "IY", "ea": "IY", "oo": "UW", "ou": "AW", "ow": "OW", "oa": "OW", "oi": "OY",
    "oy": "OY", "ai": "EY", "ay": "EY", "ei": "EY", "ey": "EY", "ie": "IY", "au": "AO", "aw": "AO", "ew": "UW",
    "ue": "UW", "ar": "AA R", "er": "ER", "ir": "ER", "or": "AO R", "ur": "ER", "bb": "B", "cc": "K", "dd": "D",
    "ff": "F", "gg": "G", "ll": "L", "mm": "M", "nn": "N", "pp": "P", "rr": "R", "ss": "S", "tt": "T", "zz": "Z",
    "ce": "S EH", "ci": "S IH", "cy": "S IY", "ge": "JH EH", "gi": "JH IH", "a": "AE", "b": "B", "c": "K", "d": "D",
    "e": "EH", "f": "F", "g": "G", "h": "HH", "i": "IH", "j": "JH", "k": "K", "l": "L", "m": "M", "n": "N", "o": "AA",
    "p": "P", "q": "K", "r": "R", "s": "S", "t": "T", "u": "AH", "v": "V", "w": "W", "x": "K S", "y": "IH", "z": "Z",
    "ce$": "S", "ge$": "JH", "^": "", "$": "", "'": "",
}  # fmt: skip
_LETTER_NAMES = (
    "EY|B IY|S IY|D IY|IY|EH F|JH IY|EY CH|AY|JH EY|K EY|EH L|EH M|EH N|OW|P IY|K Y UW|AA R|EH S|T IY|Y UW|V IY|"
    "D AH B AH L Y UW|EH K S|W AY|Z IY"
).split("|")


def spoken_words(item: str) -> list[str]:
    """What is said for one item of a text, in lower case: "Well-known," gives ["well", "known"], "42" ["forty", "two"],
    "--" nothing.
    """
    plain = "".join(letter for letter in unicodedata.normalize("NFKD", item) if not unicodedata.combining(letter))
    plain = plain.lower().replace("\u2019", "'")
    plain = re.sub(r"(?<=\d),(?=\d)", "", plain)
    for sign, word in _SIGNS.items():
        plain = plain.replace(sign, word)
    words = []
    for part in re.findall(r"\d+|[^\W\d_]+(?:'[^\W\d_]+)*", plain):
        words += number_words(int(part)) if part.isdecimal() else [part]
    return words


def number_words(number: int) -> list[str]:
    """English cardinal of a number below a billion; digit by digit from there on."""
    if number < 20:
        return [_ONES[number]]
    if number < 100:
        return [_TENS[number // 10 - 2]] + (number_words(number % 10) if number % 10 else [])
    for size, name in ((1_000_000, "million"), (1_000, "thousand"), (100, "hundred")):
        if size <= number < 1_000_000_000:
            return number_words(number // size) + [name] + (number_words(number % size) if number % size else [])
    return [_ONES[int(digit)] for digit in str(number)]


def pronounce(word: str) -> str:
    """ARPAbet phones, space-separated, of a lower-case word by letter rules; "" if it has other letters than a to z.

    A word without a vowel letter is spelled out, as abbreviations are.
    """
    if not re.fullmatch(r"[a-z']+", word):
        return ""
    if not re.search("[aeiouy]", word):
        return " ".join(_LETTER_NAMES[ord(letter) - ord("a")] for letter in word if letter != "'")
    rest, phones = f"^{word}$", []
    while rest:
        letters = next(rest[:size] for size in range(min(4, len(rest)), 0, -1) if rest[:size] in _RULES)
        phones += _RULES[letters].split()
        rest = rest[len(letters) :]
    return " ".join(phones)
