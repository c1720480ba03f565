"""The page of samples: what a person opens, made from a model that has learnt nothing."""

import dataclasses
import json
from html.parser import HTMLParser
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from jaxslm.audio.io import encode_flac
from jaxslm.data.records import Records, Utterance, write_records
from jaxslm.models.decoder import Decoder, DecoderConfig
from jaxslm.tasks.samples import QUESTIONS, pick_heldout, write_samples
from jaxslm.tokenizer import load_tokenizer
from jaxslm.units.inventory import UnitInventory
from jaxslm.units.units import UnitSequence
from jaxslm.vocabulary import build_vocabulary

SETTINGS = dict(utterances=2, temperature=0.8, top_k=0, top_p=0.95, text_tokens=6, speech_tokens=9)
UNITS = UnitInventory(encoder="precomputed:test", layer=0, frame_rate=50.0, centroids=None, size=12)
SPEECH_AND_TEXT, SPEECH = (
    build_vocabulary(load_tokenizer(name), UNITS.size, UNITS.sha256) for name in ("byte", "none")
)


def utterance(name: str, split: str, text: str = "five <words> & one more") -> Utterance:
    units = {UNITS.sha256: UnitSequence([1, 2, 3, 11, 0], [1, 2, 1, 1, 3], 50.0)}
    audio = encode_flac(np.sin(np.arange(3200) / 20).astype(np.float32) / 2)
    return Utterance(id=name, text=text, audio=audio, duration=0.2, units=units, split=split)


class Tags(HTMLParser):
    def __init__(self, page: str):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)

    def handle_data(self, data):
        self.text += data


@pytest.mark.parametrize("tokenizer", ["byte", "none"])
def test_page_audio_and_text(tmp_path, tokenizer):
    vocabulary = SPEECH_AND_TEXT if tokenizer == "byte" else SPEECH
    tokenizer = load_tokenizer(tokenizer)
    config = DecoderConfig(vocabulary.padded_size, d_model=16, n_layers=1, n_heads=2, n_kv_heads=2, d_ff=32)
    state = SimpleNamespace(model=Decoder(config, jax.random.key(0)))
    utterances = [utterance("a", "heldout"), utterance("b/c", "heldout")]
    context = dict(utterances=utterances, vocabulary=vocabulary, tokenizer=tokenizer, config=SETTINGS)
    said = write_samples(state, tmp_path / "step", 7, **context)
    assert said.count("five <words> & one more") == 2
    asked = [name for name, _, _ in QUESTIONS] if vocabulary.has_text else ["speech continued"]
    assert [said.count(name) for name, _, _ in QUESTIONS] == [2 * (name in asked) for name, _, _ in QUESTIONS]
    page = Tags((tmp_path / "step" / "index.html").read_text())
    assert page.tags.count("audio") == 2 and page.tags.count("h2") == 2 and "five <words> & one more" in page.text
    assert (tmp_path / "step" / "0.flac").read_bytes() == utterances[0].audio
    answers = json.loads((tmp_path / "step" / "answers.json").read_text())
    assert [row["id"] for row in answers] == ["a", "b/c"] and list(answers[0]) == ["id", "text", *asked]
    assert write_samples(state, tmp_path / "again", 7, **context) == said  # a function of model and step


def test_heldout_utterances_are_preferred(tmp_path):
    rest = [utterance(f"t{i}", "train") for i in range(5)]
    write_records(tmp_path / "some", [*rest, utterance("h", "heldout"), utterance("short", "heldout", "two words")])
    write_records(tmp_path / "none", rest)
    assert [u.id for u in pick_heldout(Records(tmp_path / "some"), SPEECH_AND_TEXT, 3)] == ["h"]
    assert [u.id for u in pick_heldout(Records(tmp_path / "none"), SPEECH_AND_TEXT, 3)] == ["t0", "t1", "t2"]
    other = dataclasses.replace(SPEECH_AND_TEXT, unit_inventory_sha256="0" * 64)
    assert pick_heldout(Records(tmp_path / "none"), other, 3) == []
    # Speech alone needs no words.
    assert [u.id for u in pick_heldout(Records(tmp_path / "some"), SPEECH, 3)] == ["h", "short"]
