"""A small English of about 130 words, written for the demo corpus: sentences of 2 to 9 words, and stories of several.

Every sentence belongs to one pool by the hash of its text, so that held-out sentences never occur in training, whatever
the seed, and text-only documents repeat no sentence that is spoken.
"""

from __future__ import annotations

import hashlib
import random
import re

# symbol -> alternatives; <symbol> is replaced by one of its own. <who> and <friend> are bound by the caller.
RULES = {
    "woman": "Anna|Maria|Sara|my sister|my mother|the old woman|the girl",
    "man": "Tom|Peter|Ben|my brother|my father|the old man|the boy",
    "action": (
        "<who> <goes> to the <place>|<who> <goes> to the <place> <when>|<who> <goes> to the <place> with <friend>"
        "|<who> is in the <room>|<who> is <feeling> <when>|<who> is not <feeling>|<who> is <feeling> and <feeling>"
        "|<who> eats <food> <when>|<who> eats <food> in the <room>|<who> drinks <drink> with <friend>"
        "|<who> eats <food> and drinks <drink>|<who> likes <food> and <drink>|<who> makes <drink> for <friend>"
        "|<who> buys <food> at the market|<who> buys a <colour> <thing> for <friend>"
        "|<who> gives <friend> a <colour> <thing>"
        "|<who> finds the <colour> <thing> near the <place>|<who> sees a <fur> <animal> near the <place>"
        "|<who> has a <size> <fur> <animal>|<who> plays with the <fur> <animal> <when>"
        "|<who> gives the <animal> some <food>"
        "|<who> reads a <quality> book <when>|<who> writes a <quality> letter to <friend>"
        "|<who> tells <friend> a <quality> story"
        "|<who> sings|<who> sings a <quality> song <when>|<who> sings in the <room> with <friend>"
        "|<who> works in the <room> <when>|<who> waits for <friend> at the <place>|<who> sleeps|<who> sleeps <when>"
        "|<who> can see the <place> from the <room>|<who> opens the <size> <colour> door|<who> talks to <friend> <when>"
    ),
    "world": (
        "it is <weather> <when>|it is a <weather> day|it is <weather> in the <room>|it is not <weather> <when>"
        "|the wind is <weather> near the <place>|the <place> is <weather> <when>"
        "|the <size> <fur> <animal> sleeps in the <room>"
        "|the <fur> <animal> <goes> to the <place>|the <animal> is <feeling>|the <fur> <animal> drinks some water"
        "|there is a <fur> <animal> in the <room>|there is a <colour> <thing> near the <place>"
        "|where is the <fur> <animal>?|where is the <size> <thing>?|the <thing> is <size> and <colour>"
        "|the <thing> is not in the <room>|the rain comes <when>|the sun is warm <when>"
    ),
    "goes": "goes|walks|runs|comes",
    "room": "garden|park|house|school|kitchen|station|market|forest",
    "place": "<room>|river|sea|shop",
    "when": "in the morning|in the evening|at night|today|every day|on Sunday|on Monday|now",
    "feeling": "happy|sad|tired|hungry|busy|late",
    "food": "bread|rice|fish|soup|cake|cheese|fruit",
    "drink": "tea|milk|coffee|water",
    "colour": "black|white|brown|red|green|blue",
    "size": "big|little|old|new",
    "quality": "good|long|short|new",
    "fur": "black|white|brown",
    "animal": "dog|cat|bird|horse",
    "thing": "ball|book|boat|hat|flower|lamp",
    "weather": "cold|warm|hot|dark|quiet",
}
ALTERNATIVES = {symbol: text.split("|") for symbol, text in RULES.items()}
SENTENCE_WORDS = range(2, 10)
STORY_WORDS = range(24, 46)

# (what it is for, split) -> the sentences' hash modulo 16
POOLS = {
    ("speech", "heldout"): range(0, 1),
    ("text", "heldout"): range(1, 2),
    ("text", "train"): range(2, 7),
    ("speech", "train"): range(7, 16),
}


def sentence(rng: random.Random, pool: tuple[str, str]) -> str:
    """One sentence of a pool, about a person by name or pronoun or about the world."""
    symbol = "world" if rng.random() < 0.3 else "action"
    while True:
        name, pronoun, friend = _cast(rng)
        text = _sentence(rng, symbol, who=rng.choice([name, pronoun]), friend=friend)
        if in_pool(text, pool):
            return text


def story(rng: random.Random, pool: tuple[str, str]) -> str:
    """24 to 45 words: the first sentence names a person, the others go on about her or him and the world around."""
    while True:
        name, pronoun, friend = _cast(rng)
        sentences: list[str] = []
        length = rng.randint(4, 6)
        while len(sentences) < length:
            symbol = "world" if sentences and rng.random() < 0.3 else "action"
            text = _sentence(rng, symbol, who=pronoun if sentences else name, friend=friend)
            if in_pool(text, pool) and text not in sentences:
                sentences.append(text)
        text = " ".join(sentences)
        if len(text.split()) in STORY_WORDS:
            return text


def in_pool(sentence: str, pool: tuple[str, str]) -> bool:
    return hashlib.sha256(sentence.encode()).digest()[0] % 16 in POOLS[pool]


def _cast(rng: random.Random) -> tuple[str, str, str]:
    """A person, her or his pronoun, and a friend of whom that pronoun cannot be meant."""
    (who, pronoun), (friend, _) = rng.sample([("woman", "she"), ("man", "he")], 2)
    return rng.choice(ALTERNATIVES[who]), pronoun, rng.choice(ALTERNATIVES[friend])


def _sentence(rng: random.Random, symbol: str, **bound: str) -> str:
    while True:
        text = _expand(rng, f"<{symbol}>", bound)
        words = text.split()
        if len(words) in SENTENCE_WORDS and not re.search(r"\b(\w+) (and|from the) \1\b", text):
            return text[0].upper() + text[1:] + ("" if text.endswith("?") else ".")


def _expand(rng: random.Random, text: str, bound: dict[str, str]) -> str:
    while found := re.search(r"<(\w+)>", text):
        symbol = found[1]
        chosen = bound[symbol] if symbol in bound else rng.choice(ALTERNATIVES[symbol])
        text = text[: found.start()] + chosen + text[found.end() :]
    return text
