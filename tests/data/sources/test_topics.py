import random
import re

import pytest

from jaxslm.data.report import Report
from jaxslm.data.sources import read_source
from jaxslm.data.sources.grammar import in_pool
from jaxslm.data.sources.topics import FRAMES, TOPICS, sentence, story, story_and_ends

TRAIN, HELDOUT = ("speech", "train"), ("speech", "heldout")


def words_of(topic: str) -> set[str]:
    return {word for column in TOPICS[topic].split("|") for phrase in column.split(",") for word in phrase.split()}


def topics_in(text: str) -> set[str]:
    """Topics of the words that are in neither another topic nor a frame."""
    found = set(re.findall(r"\w+", text.lower())) - set(re.findall(r"\w+", " ".join(FRAMES).lower()))
    others = {topic: set().union(*(words_of(other) for other in TOPICS if other != topic)) for topic in TOPICS}
    return {topic for topic in TOPICS if found & (words_of(topic) - others[topic])}


def sentences_of(text: str) -> list[str]:
    return re.findall(r"[^. ][^.]*\.", text)


def without_topic(text: str, topic: str) -> str:
    phrases = "|".join(phrase for column in TOPICS[topic].split("|") for phrase in column.split(","))
    return re.sub(rf"\b({phrases})\b", "_", re.sub(r"\ban\b", "a", text.lower()))


def test_a_story_keeps_to_its_topic():
    rng = random.Random(0)
    for topic in TOPICS:
        told = sentences_of(story(rng, TRAIN, topic))
        assert [topics_in(each) for each in told] == 3 * [{topic}]
        assert len(set(told)) == 3 and all(in_pool(each, TRAIN) for each in told)


def test_topics_have_words_of_their_own():
    for topic in TOPICS:
        things = TOPICS[topic].split("|")[2].split(",")
        assert not any(thing in words_of(other) for thing in things for other in TOPICS if other != topic)


def test_ends_differ_in_the_words_of_the_topic_alone():
    rng = random.Random(1)
    for _ in range(20):
        topic, other = rng.sample(sorted(TOPICS), 2)
        begin, (end, wrong) = story_and_ends(rng, HELDOUT, [topic, other])
        assert end not in begin and wrong not in begin
        assert [topics_in(each) for each in sentences_of(begin)] == 2 * [{topic}]
        assert (topics_in(end), topics_in(wrong)) == ({topic}, {other})
        assert without_topic(end, topic) == without_topic(wrong, other)
        assert in_pool(end, HELDOUT) and in_pool(wrong, HELDOUT)


def test_articles():
    rng = random.Random(2)
    said = " ".join(sentence(rng, TRAIN) for _ in range(2000))
    assert not re.search(r"\ba [aeio]", said) and not re.search(r"\ban [^aeiou]", said) and "a useful" in said


def test_the_source_speaks_them():
    pytest.importorskip("espeakng_loader", reason="pip install 'jaxslm[demo]'")
    spec = dict(kind="demo", utterances=6, grammar="topics", stories=1.0, voices=("alto",), heldout=0.5)
    made = list(read_source(spec, Report()))
    assert {u.speaker for u in made} == {"alto"} and all(len(topics_in(u.text)) >= 1 for u in made)
    assert all(len(u.words) == len(u.text.split()) for u in made)
    texts = list(read_source(dict(kind="demo_text", utterances=3, grammar="topics"), Report()))
    assert len(texts) == 3 and all(topics_in(u.text) for u in texts)


def test_wrong_grammars_and_voices_are_named():
    with pytest.raises(ValueError, match="no grammar 'topic'. Did you mean topics?"):
        list(read_source(dict(kind="demo_text", grammar="topic"), Report()))
    with pytest.raises(ValueError, match="there is no voice 'tenro'"):
        list(read_source(dict(kind="demo", voices=["tenro"]), Report()))
