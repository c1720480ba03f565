"""Golden ids of options: where markers stand, and what is scored."""

from pathlib import Path

import numpy as np
import pytest

from jaxslm.evaluation.choices import Choice, Part
from jaxslm.evaluation.wording import protocol, sounds, word_choice
from jaxslm.tokenizer import ByteTokenizer, NoTokenizer
from jaxslm.vocabulary import build_vocabulary

TOKENIZER = ByteTokenizer()
VOCABULARY = build_vocabulary(TOKENIZER, 10, "0" * 64)
BOS, EOS = VOCABULARY.bos_id, VOCABULARY.eos_id
TEXT, SPEECH, UNIT = VOCABULARY.id("[Text]"), VOCABULARY.id("[Speech]"), VOCABULARY.id("[Hu0]")
A, B = Path("a.wav"), Path("b.wav")
UNITS = {(A,): np.array([1, 2]), (A, B): np.array([1, 2, 7])}


def words(choice, vocabulary=VOCABULARY, tokenizer=TOKENIZER, **how):
    return [(t.ids.tolist(), t.scored.tolist()) for t in word_choice(choice, vocabulary, tokenizer, UNITS, **how)]


def test_speech_and_text():
    choice = Choice("x", ((Part(audio=(A, B)),), (Part(text="hi"),)))
    speech, text = words(choice)
    assert speech == ([BOS, SPEECH, UNIT + 1, UNIT + 2, UNIT + 7], [False, False, True, True, True])
    assert text == ([BOS, TEXT, ord("h") + 3, ord("i") + 3], [False, False, True, True])


def test_across_modalities():
    choice = Choice("x", ((Part(text="h"), Part(audio=(A,))), (Part(audio=(A,)), Part(text="h"))))
    there, back = words(choice)
    assert there == ([BOS, TEXT, ord("h") + 3, SPEECH, UNIT + 1, UNIT + 2], [False, False, True, False, True, True])
    assert back[0] == [BOS, SPEECH, UNIT + 1, UNIT + 2, TEXT, ord(" ") + 3, ord("h") + 3]
    assert back[1] == [False, False, True, True, False, True, True]


def test_text_behind_speech_is_that_of_interleaved_training_data():
    """With a tokenizer that writes a word alone otherwise than behind another."""
    choice = Choice("x", ((Part(audio=(A,)), Part(text="she runs")),))
    ((ids, _),) = words(choice)
    interleaved = [i for word in TOKENIZER.encode_words("cat she runs".split())[1:] for i in word]
    assert ids[5:] == interleaved and TOKENIZER.encode("she runs") != interleaved
    blank = Choice("x", ((Part(audio=(A,)), Part(text=" she runs")),))
    assert words(blank)[0][0] == ids  # one space, whoever wrote it
    context = Choice("x", ((Part(text=" no"),),), context=(Part(audio=(A,)), Part(text="Is it?\n")))
    ((ids, scored),) = words(context)
    assert TOKENIZER.decode(ids[5:]) == " Is it?\n no" and sum(scored) == 3 and all(scored[-3:])


def test_repeated_units_are_joined_where_the_inventory_joins_them():
    choice = Choice("x", ((Part(units=(1, 1, 2)),),))
    assert words(choice)[0][0] == [BOS, SPEECH, UNIT + 1, UNIT + 2]
    assert words(choice, deduplicated=False)[0][0] == [BOS, SPEECH, UNIT + 1, UNIT + 1, UNIT + 2]


def test_the_context_is_not_scored_and_the_end_is_if_asked_for():
    choice = Choice("x", ((Part(text=" b"),),), context=(Part(text="a"),))
    ((ids, scored),) = words(choice, score_end=True)
    assert ids == [BOS, TEXT, ord("a") + 3, ord(" ") + 3, ord("b") + 3, EOS]
    assert scored == [False, False, False, True, True, True]


def test_context_and_option_of_units_share_a_marker():
    choice = Choice("x", ((Part(units=(3,)),),), context=(Part(units=(4, 5)),))
    assert words(choice) == [([BOS, SPEECH, UNIT + 4, UNIT + 5, UNIT + 3], [False, False, False, False, True])]


def test_a_model_of_speech_alone_has_no_markers():
    vocabulary = build_vocabulary(NoTokenizer(), 10, "0" * 64)
    choice = Choice("x", ((Part(units=(3, 4)),), (Part(units=(5,)),)))
    first = vocabulary.block("units").first
    assert words(choice, vocabulary)[0] == ([vocabulary.bos_id, first + 3, first + 4], [False, True, True])
    with pytest.raises(ValueError, match="it has text, and this model is one of speech alone"):
        words(Choice("x", ((Part(text="a"),),)), vocabulary)


def test_what_cannot_be_scored_is_named():
    with pytest.raises(ValueError, match="story 7: units from 0 to 9 are known, not 10"):
        words(Choice("story 7", ((Part(units=(10,)),),)))
    with pytest.raises(ValueError, match="story 7: an option has no text and no units"):
        words(Choice("story 7", ((Part(units=()),),)))


def test_sounds_are_made_once():
    choices = [Choice(str(i), ((Part(audio=(A, B)), Part(text="x")), (Part(audio=(A,)),))) for i in range(3)]
    assert sounds(choices) == [(A, B), (A,)]


def test_the_protocol_says_what_is_scored():
    alone = [Choice("x", ((Part(text="a"),), (Part(text="b"),)))]
    said = protocol(VOCABULARY, alone, True, False)
    assert "</s> is not scored" in said and "text begins with <s>[Text]" in said and "an option is scored whole" in said
    assert "speech begins" not in said and "deduplicated" not in said
    said = protocol(VOCABULARY, [*alone, Choice("y", alone[0].options, context=(Part(units=(1,)),))], False, True)
    assert "speech begins with <s>[Speech]; text behind speech with the space" in said
    assert "</s> is scored" in said and "not deduplicated" in said and "the context is not scored" in said
