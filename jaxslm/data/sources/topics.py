"""Stories that keep to a topic, written for cross-modal likelihood tests: what comes next can be told from the words
before, in whatever modality they were.

Each topic has words of its own; the sentences around them are the same for all. As in the demo grammar, every sentence
belongs to one pool by the hash of its text, so that no held-out sentence occurs in training.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from jaxslm.data.sources.grammar import in_pool

# topic -> agents | what they do with things | things | places | what things are like
TOPICS = {
    "sea": "sailor,captain,fisherman|pulls,ties,mends|boat,net,anchor,rope,sail|in the harbour,on the beach|wet,salty",
    "kitchen": "cook,baker,waiter|tastes,stirs,fries|soup,dough,onion,pepper,sauce|by the oven,at the stove|spicy,hot",
    "farm": "farmer,shepherd,milkmaid|feeds,milks,leads|cow,goat,donkey,chicken,pig|in the barn,behind the fence"
    "|muddy,fat",
    "school": "teacher,pupil,student|copies,spells,studies|lesson,chapter,alphabet,homework,page|in the classroom"
    ",at the desk|difficult,useful",
    "music": "singer,drummer,pianist|plays,tunes,practises|violin,trumpet,melody,guitar,flute|on the stage"
    ",at the concert|loud,gentle",
    "hospital": "doctor,nurse,patient|swallows,measures,prescribes|medicine,bandage,fever,tablet,injection"
    "|in the clinic,beside the bed|bitter,painful",
    "war": "soldier,general,guard|loads,fires,captures|cannon,rifle,castle,bullet,tower|on the battlefield"
    ",under the flag|deadly,broken",
    "market": "merchant,customer,seller|buys,weighs,pays for|silver,jewel,carpet,basket,silk|at the counter"
    ",for ten dollars|cheap,expensive",
    "winter": "skater,skier,hunter|digs,clears,slides over|snow,ice,sledge,glove,frost|on the mountain"
    ",across the valley|frozen,slippery",
    "railway": "driver,conductor,passenger|boards,stops,misses|train,engine,ticket,carriage,luggage|on the platform"
    ",through the tunnel|late,crowded",
    "garden": "gardener,florist,beekeeper|waters,plants,picks|rose,tulip,bush,lily,weed|under the apple tree"
    ",along the path|fragrant,yellow",
    "office": "manager,secretary,lawyer|signs,types,prints|contract,report,invoice,document,email|at the computer"
    ",during the meeting|urgent,official",
}
NAMES = {"she": ("Anna", "Maria", "Sara"), "he": ("Tom", "Peter", "Ben")}
SENTENCES = 3  # of a story; the last can be told from those before
FRAMES = (
    "The {agent} {does} the {thing} {place}.",
    "The {agent} {does} the {quality} {thing} {place}.",
    "{who} {does} the {quality} {thing}.",
    "{who} {does} the {thing} {place} with the {agent}.",
    "{who} and the {agent} are {place}.",
    "The {thing} is very {quality}.",
    "{who} gives the {agent} a {quality} {thing}.",
    "{who} looks for the {quality} {thing} {place}.",
    "There is a {quality} {thing} {place}.",
    "The {agent} has a {quality} {thing} and a {other}.",
)


def sentence(rng: random.Random, pool: tuple[str, str], topic: str = "", who: str = "") -> str:
    """One sentence of a pool, of a topic and a person; by default of any."""
    topic = topic or rng.choice(sorted(TOPICS))
    who = who or rng.choice(NAMES["she"] + NAMES["he"])
    while True:
        text = _sentence(rng, topic, who, rng.choice(FRAMES))
        if in_pool(text, pool):
            return text


def story(rng: random.Random, pool: tuple[str, str], topic: str = "") -> str:
    """`SENTENCES` different sentences of one topic about one person, by name and then by pronoun."""
    begin, ends = story_and_ends(rng, pool, [topic or rng.choice(sorted(TOPICS))])
    return f"{begin} {ends[0]}"


def story_and_ends(rng: random.Random, pool: tuple[str, str], topics: Sequence[str]) -> tuple[str, list[str]]:
    """All sentences of a story but the last, of the first of the topics; and a last sentence of each topic, which
    differ in nothing but the topic's words."""
    pronoun = rng.choice(sorted(NAMES))
    told = [sentence(rng, pool, topics[0], rng.choice(NAMES[pronoun]))]
    while len(told) < SENTENCES - 1:
        text = sentence(rng, pool, topics[0], pronoun)
        if text not in told:
            told.append(text)
    while True:
        frame = rng.choice(FRAMES)
        ends = [_sentence(rng, topic, pronoun, frame) for topic in topics]
        if all(in_pool(text, pool) and text not in told for text in ends):
            return " ".join(told), ends


def _sentence(rng: random.Random, topic: str, who: str, frame: str) -> str:
    agents, verbs, things, places, qualities = (column.split(",") for column in TOPICS[topic].split("|"))
    thing, other = rng.sample(things, 2)
    words = dict(agent=agents, does=verbs, place=places, quality=qualities, who=[who], thing=[thing], other=[other])
    text = _with_articles(frame.format(**{name: rng.choice(choices) for name, choices in words.items()}))
    return text[0].upper() + text[1:]


def _with_articles(text: str) -> str:
    words = text.split()
    for i, word in enumerate(words[:-1]):
        if word == "a" and words[i + 1][0] in "aeiou" and not words[i + 1].startswith("use"):
            words[i] = "an"
    return " ".join(words)
