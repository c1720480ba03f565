"""Prompts by golden ids, and answers that stay in their modality."""

import jax
import numpy as np
import pytest

from jaxslm.generation import speech_text
from jaxslm.generation.sampler import Sampling
from jaxslm.models.decoder import Decoder, DecoderConfig
from jaxslm.tokenizer import load_tokenizer
from jaxslm.units.inventory import UnitInventory
from jaxslm.vocabulary import build_vocabulary

TOKENIZER = load_tokenizer("byte")  # 259 ids: bytes from 3 on, begin 1, end 2
INVENTORY = UnitInventory("mfcc", 0, 50.0, np.random.default_rng(0).normal(size=(20, 39)).astype(np.float32), 20)
# [Text] 259, [Speech] 260, units 261..280, [ASR] 281, [TTS] 282
VOCABULARY = build_vocabulary(TOKENIZER, 20, INVENTORY.sha256)
HOT = Sampling(max_new_tokens=60, temperature=3.0, top_p=1.0)


@pytest.fixture(scope="module")
def model():
    config = DecoderConfig(VOCABULARY.padded_size, d_model=16, n_layers=1, n_heads=2, n_kv_heads=2, d_ff=32)
    return Decoder(config, jax.random.key(0))


@pytest.mark.parametrize(
    "given, to, expected",
    [
        ({"units": [0, 19, 5]}, "text", (1, 260, 261, 280, 266, 281)),
        ({"text": "ab c"}, "speech", (1, 259, 100, 101, 35, 102, 282)),
        ({"units": [0, 19, 5]}, "speech", (1, 260, 261, 280, 266)),
        ({"text": "ab c"}, "text", (1, 259, 100, 101, 35, 102)),
    ],
)
def test_prompts(given, to, expected):
    assert speech_text.prompt_ids(VOCABULARY, TOKENIZER, to=to, **given) == expected


def test_a_model_of_speech_alone_only_continues_speech():
    vocabulary = build_vocabulary(load_tokenizer("none"), 20, INVENTORY.sha256)
    assert speech_text.prompt_ids(vocabulary, load_tokenizer("none"), units=[0, 19, 5], to="speech") == (1, 3, 22, 8)
    for given in ({"units": [1], "to": "text"}, {"text": "a", "to": "speech"}):
        with pytest.raises(ValueError, match="data.tokenizer='none'.*--to=speech"):
            speech_text.prompt_ids(vocabulary, load_tokenizer("none"), **given)


@pytest.mark.parametrize(
    "given, message",
    [
        ({}, "one of text and speech"),
        ({"text": "a", "units": [1]}, "one of text and speech"),
        ({"text": " ?! "}, "no words"),
        ({"units": []}, "units from 0 to 19"),
        ({"units": [20]}, "units from 0 to 19"),
        ({"text": "a", "to": "song"}, "'text' or 'speech'"),
    ],
)
def test_bad_prompts_are_named(given, message):
    with pytest.raises(ValueError, match=message):
        speech_text.prompt_ids(VOCABULARY, TOKENIZER, **({"to": "text"} | given))


@pytest.mark.parametrize("to", ["text", "speech"])
def test_answers_stay_in_their_modality_and_end_at_markers(model, to):
    prompts = [speech_text.prompt_ids(VOCABULARY, TOKENIZER, text=text, to=to) for text in ("a", "bcd", "to")] * 10
    responses = speech_text.complete(model, VOCABULARY, TOKENIZER, prompts, to=to, sampling=HOT, key=jax.random.key(1))
    content = VOCABULARY.modality_mask(to, stop=False)
    assert all(content[list(response.ids)].all() for response in responses)
    assert [response.prompt_ids for response in responses] == prompts
    assert all(response.stopped == (len(response.ids) < 60) for response in responses)
    assert any(response.stopped for response in responses)
    if to == "speech":
        assert all(set(response.units) <= set(range(20)) for response in responses)
        assert str(responses[0]) == "".join(f"[Hu{i - 261}]" for i in responses[0].ids)
    else:
        assert all(response.text == TOKENIZER.decode(response.ids) for response in responses)


def test_audio_is_answered_through_its_units(model):
    samples = np.random.default_rng(0).normal(size=8000).astype(np.float32) * 0.1
    units = INVENTORY.encode(samples).ids
    arguments = dict(to="text", sampling=HOT, key=jax.random.key(2))
    heard = speech_text.respond(model, VOCABULARY, TOKENIZER, INVENTORY, audio=samples, **arguments)
    assert heard == speech_text.respond(model, VOCABULARY, TOKENIZER, None, units=units, **arguments)
    assert heard.prompt_ids[2:-1] == tuple((261 + units).tolist())


def test_another_inventory_is_refused(model):
    other = UnitInventory("mfcc", 0, 50.0, INVENTORY.centroids + 1, 20)
    with pytest.raises(ValueError, match="mean other sounds"):
        speech_text.respond(
            model, VOCABULARY, TOKENIZER, other, audio=np.ones(8000, np.float32), to="text", key=jax.random.key(0)
        )
