"""From requests to answers with sound: who is asked what, seeds, and what is refused."""

import json
from dataclasses import replace

import jax
import numpy as np
import pytest
import soundfile

from jaxslm.audio.io import Clip
from jaxslm.generation.batch import ANSWERS, answer_file
from jaxslm.generation.chain import Chain, Language, Request
from jaxslm.generation.speech_text import check_characters, prompt_ids
from jaxslm.models.decoder import Decoder, DecoderConfig
from jaxslm.stopwatch import Stopwatch
from jaxslm.tokenizer import load_tokenizer
from jaxslm.units.inventory import UnitInventory
from jaxslm.units.units import UnitSequence, deduplicate
from jaxslm.vocabulary import build_vocabulary

RATE = 16_000
SHAPE = dict(d_model=16, n_layers=1, n_heads=2, n_kv_heads=2, d_ff=32)


class Tones:
    """A voice of a step a unit, of two frames more than its id says; it keeps what it was asked."""

    sample_rate, untimed, clones = RATE, "", True

    def __init__(self, inventory):
        self.inventory, self.asked = inventory, []

    def check_units(self, sha256):
        if sha256 != self.inventory.sha256:
            raise ValueError("other units")

    def prompt(self, given, where, *, from_end=False):
        if len(given.samples) < 400:
            raise ValueError(f"{where}: too short")
        return "end" if from_end else "begin"

    def timed(self, units, *, speed, temperature, key):
        joined = [deduplicate(u.ids, u.frame_rate) for u in units]
        return [UnitSequence(u.ids, np.maximum(1, np.round((2 + u.ids) / speed)), u.frame_rate) for u in joined]

    def speak(self, units, prompts, key, watch):
        self.asked.append((units, list(prompts)))
        with watch("waveform"):
            return [np.repeat(u.expand() / 20, 320).astype(np.float32) for u in units]

    def check_stream(self):
        pass

    def stream(self, units, prompt, key):
        yield from np.array_split(self.speak([units], [prompt], key, Stopwatch())[0], 4)


@pytest.fixture(scope="module")
def inventory():
    return UnitInventory("mfcc", 0, 50.0, np.random.default_rng(0).normal(size=(20, 39)).astype(np.float32), 20)


@pytest.fixture(scope="module")
def language(inventory):
    tokenizer = load_tokenizer("byte")
    vocabulary = build_vocabulary(tokenizer, 20, inventory.sha256)
    model = jax.jit(lambda key: Decoder(DecoderConfig(vocabulary.padded_size, **SHAPE), key))(jax.random.key(0))
    return Language(model, vocabulary, tokenizer, inventory, dict(text=8, speech=12), context=64)


@pytest.fixture
def chain(language, inventory):
    return Chain(language, Tones(inventory))


def noise(seed: int = 1, n: int = 8000) -> Clip:
    return Clip(0.1 * np.random.default_rng(seed).normal(size=n).astype(np.float32))


def test_each_mode_goes_through_its_stages(chain, inventory):
    requests = [
        Request("speech", text="a cat", voice=noise(), id="say"),
        Request("text", audio=noise(), id="write"),
        Request("speech", audio=noise(2), id="on"),
        Request("text", text="a cat", id="text"),
        Request("voice", audio=noise(2), voice=noise(), id="convert"),
    ]
    say, write, on, text, convert = chain.answer(requests, seed=3)
    assert [a.id for a in (say, write, on, text, convert)] == [r.id for r in requests]
    assert write.text is not None and text.text is not None and write.samples is None
    ((units, prompts),) = chain.voice.asked
    assert prompts == ["begin", "end", "begin"]  # what goes on keeps the voice it had
    for answer in (say, on, convert):
        assert len(answer.samples) == answer.units.durations.sum() * 320 and answer.sample_rate == RATE
    assert convert.units == inventory.encode(noise(2).samples)  # with the durations that were heard
    assert (say.units.durations == 2 + say.units.ids).all()  # those of the voice
    assert {"units", "language model", "durations", "prompts", "waveform"} <= set(say.seconds)
    (alone,) = chain.answer([requests[2]], seed=3, places=[2])
    assert str(alone) == str(on)  # whatever stands beside it
    again = chain.answer(requests, seed=3)
    assert all(str(a) == str(b) for a, b in zip((say, write, on, text, convert), again, strict=True))
    assert str(chain.answer(requests[:1], seed=4)[0]) != str(say)


def test_speed_keeps_the_rhythm_of_what_was_heard(chain):
    heard, fast, slow = (
        chain.answer([Request("voice", audio=noise(2), voice=noise())], speed=speed)[0] for speed in (1.0, 2.0, 0.5)
    )
    assert fast.units.expand().tolist() == heard.units.expand()[1::2].tolist()
    assert slow.units.expand().tolist() == np.repeat(heard.units.expand(), 2).tolist()
    (said,) = chain.answer([Request("speech", text="a cat")], speed=4.0)
    assert (said.units.durations == np.maximum(1, np.round((2 + said.units.ids) / 4))).all()


def test_sound_can_be_left_out_and_comes_in_chunks(chain):
    request = Request("speech", text="a cat")
    (silent,) = chain.answer([request], sound=False)
    assert silent.samples is None and len(silent.units)
    (whole,) = chain.answer([request])
    answer, chunks = chain.stream(request)
    chunks = list(chunks)
    assert len(chunks) == 4 and str(answer) == str(whole)
    np.testing.assert_array_equal(np.concatenate(chunks), whole.samples)


def test_five_lines(chain, tmp_path):
    soundfile.write(tmp_path / "voice.wav", noise().samples, RATE)
    answer = chain.say("a cat", voice=tmp_path / "voice.wav", seed=1)
    answer.save(tmp_path / "hello.wav")
    assert soundfile.info(tmp_path / "hello.wav").frames == len(answer.samples)
    assert chain.transcribe(tmp_path / "voice.wav").text is not None
    assert chain.go_on(text="a").text is not None and chain.go_on(audio=tmp_path / "voice.wav").samples is not None
    assert chain.convert(tmp_path / "voice.wav", tmp_path / "voice.wav").samples is not None
    with pytest.raises(ValueError, match="no sound to write"):
        chain.transcribe(tmp_path / "voice.wav").save(tmp_path / "no.wav")


@pytest.mark.parametrize(
    "request_, said",
    (
        (Request("song", text="a"), "to='song' is not one of text, speech, voice"),
        (Request("speech", id="x"), "x: give one of text and audio"),
        (Request("speech", text="  "), "has no words"),
        (Request("voice", text="a"), "to=voice takes audio"),
        (Request("text", text="a", voice=noise()), "a voice is for speech"),
        (Request("speech", text="a", voice=noise(n=100)), "the voice: too short"),
    ),
)
def test_what_cannot_be_answered_is_refused(chain, request_, said):
    with pytest.raises(ValueError, match=said):
        chain.answer([request_])


def test_a_voice_of_other_units_is_refused(language, inventory):
    other = UnitInventory("mfcc", 0, 50.0, np.zeros((20, 39), np.float32), 20)
    with pytest.raises(ValueError, match="other units"):
        Chain(language, Tones(other))


def test_samples_that_are_not_finite_are_refused(chain, monkeypatch):
    monkeypatch.setattr(chain.voice, "speak", lambda *_: [np.array([0.0, np.nan], np.float32)])
    with pytest.raises(FloatingPointError, match="not finite"):
        chain.answer([Request("speech", text="a cat")])


def test_a_voice_without_durations_speaks_what_was_heard(chain, monkeypatch):
    monkeypatch.setattr(chain.voice, "timed", lambda *_, **__: pytest.fail("nothing is to be timed"))
    assert chain.answer([Request("voice", audio=noise(2), voice=noise())])[0].samples is not None


@pytest.mark.parametrize("how", ("answer", "stream"))
def test_what_cannot_be_spoken_is_known_before_the_language_model_runs(chain, how, monkeypatch):
    monkeypatch.setattr("jaxslm.generation.chain.complete", lambda *_, **__: pytest.fail("the language model ran"))
    run = chain.stream if how == "stream" else lambda request: chain.answer([request])
    with pytest.raises(ValueError, match="too short"):
        run(Request("speech", text="a cat", voice=noise(n=100)))
    monkeypatch.setattr(chain.voice, "untimed", "no durations", raising=False)
    with pytest.raises(ValueError, match="no durations"):
        run(Request("speech", text="a cat"))


def test_an_answer_that_is_cut_says_so(chain):
    short = chain.answer([Request("speech", text="a cat" * n) for n in range(1, 9)], sampling=dict(max_new_tokens=1))
    assert not all(answer.stopped for answer in short)
    assert all(len(answer.units) == (not answer.stopped) for answer in short)
    (long,) = chain.answer([Request("text", text="a " * 40)])
    assert long.too_long


class Unknowing:
    """A tokenizer that knows small letters and the blank."""

    def encode(self, text):
        return [3 + ord(c) - 97 if "a" <= c <= "z" else 29 if c == " " else 0 for c in text]

    def decode(self, ids):
        return "".join(chr(97 + i - 3) for i in ids if i >= 3)


def test_characters_outside_the_tokenizer_are_named(language):
    with pytest.raises(ValueError, match=r"does not know \(é ß\)"):
        Chain(replace(language, tokenizer=Unknowing()), None).check(Request("text", text="caféß é"))
    check_characters(language.vocabulary, Unknowing(), "a cat")
    # Transcripts that samples of a run are asked with may have such characters.
    assert prompt_ids(language.vocabulary, Unknowing(), text="café", to="speech")


def test_a_batch_answers_what_it_can_and_names_the_rest(chain, tmp_path):
    soundfile.write(tmp_path / "a.wav", noise().samples, RATE)
    (tmp_path / "broken.wav").write_bytes(b"RIFF")
    lines = [
        json.dumps(dict(id="one", text="a cat\u2028"), ensure_ascii=False),
        json.dumps(dict(audio="a.wav")),
        json.dumps(dict(audio="broken.wav", id="lost")),
        json.dumps(dict(text="")),
        json.dumps(dict(text="x", colour="red")),
        json.dumps(dict(id="one", text="again")),
        json.dumps(dict(id="../out", text="a cat")),
        json.dumps(dict(text=3)),
        "",
        "not json",
        json.dumps(dict(audio="a.wav", to="voice", voice="a.wav", id="last")),
    ]
    (tmp_path / "in.jsonl").write_text("\n".join(lines), encoding="utf-8-sig")
    assert answer_file(tmp_path / "in.jsonl", tmp_path / "out", chain, {}, seed=1) == (3, 7)
    rows = [json.loads(line) for line in (tmp_path / "out" / ANSWERS).read_text().splitlines()]
    assert [("error" in row) for row in rows] == [False, False, *[True] * 7, False]
    causes = ("broken.wav", "no words", "colour", "taken", "lead out", "string", "no JSON")
    for row, said in zip(rows[2:9], causes, strict=True):
        assert said in row["error"], row
    assert {p.name for p in (tmp_path / "out").iterdir()} == {ANSWERS, "one.wav", "last.wav"}
    assert rows[2]["id"] == "lost" and rows[8]["id"] == "00010"  # lines are counted as an editor counts them
    assert rows[0]["wav"] == "one.wav" and "[Hu" in rows[0]["units"] and rows[1]["text"] is not None
    with pytest.raises(ValueError, match="there already"):
        answer_file(tmp_path / "in.jsonl", tmp_path / "out", chain, {})
