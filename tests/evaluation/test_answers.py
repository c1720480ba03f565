"""What a page asks of a chain and shows of its answer. With a browser: tests/end_to_end/test_demo_page.py."""

import os
import re
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from jaxslm.audio.io import encode_wav
from jaxslm.evaluation.answers import MODES, Asked, about, modes_of, show, speakers_of
from jaxslm.evaluation.demo_page import build_page, kept_in, load_gradio
from jaxslm.evaluation.unit_strip import unit_strip
from jaxslm.generation.chain import Answer, Chain
from jaxslm.stopwatch import Stopwatch
from jaxslm.units.inventory import UnitInventory
from jaxslm.units.units import UnitSequence

INVENTORY = UnitInventory("mfcc", 0, 50.0, np.ones((20, 39), np.float32), 20)
PRECOMPUTED = UnitInventory("precomputed:<test>", 0, 50.0, None, 12)
SPEAK, TRANSCRIBE, CONTINUE_SPEECH, CONTINUE_TEXT, CHANGE = MODES


class Recorded(Chain):
    """A chain that keeps what is asked and gives the answer it is given."""

    def __init__(self, answer=None, *, text=True, language=True, voice=None, inventory=INVENTORY):
        vocabulary = SimpleNamespace(has_text=text, unit_inventory_sha256=inventory.sha256)
        self.language = SimpleNamespace(vocabulary=vocabulary) if language else None
        self.voice, self.inventory, self.given, self.asked = voice, inventory, answer, None

    def answer(self, requests, **options):
        self.asked = (*requests, options)
        if isinstance(self.given, Exception):
            raise self.given
        return [self.given]


def voice(clones=False, **more):
    return SimpleNamespace(sample_rate=16_000, clones=clones, **more)


SAID = Answer(
    units=UnitSequence([3, 19, 3], [1, 2, 1], 50.0), samples=np.full(1600, 0.5, np.float32), sample_rate=16_000
)
NAMED = dict(a=encode_wav(np.sin(np.arange(1600)) / 2, 16_000), b=encode_wav(np.zeros(1600), 16_000))


@pytest.mark.parametrize(
    ("chain", "names"),
    [
        (Recorded(voice=voice()), list(MODES)),
        (Recorded(), [SPEAK, TRANSCRIBE, CONTINUE_SPEECH, CONTINUE_TEXT]),
        (Recorded(text=False), [CONTINUE_SPEECH]),
        (Recorded(language=False, voice=voice(clones=True)), [CHANGE]),
        (Recorded(inventory=PRECOMPUTED, voice=voice()), [SPEAK, CONTINUE_TEXT]),
        (Recorded(text=False, inventory=PRECOMPUTED), []),
    ],
)
def test_modes_are_those_that_the_runs_can_do(chain, names):
    assert modes_of(chain) == names
    if not names:
        with pytest.raises(ValueError, match="--workdir"):
            build_page(chain, None, None)


def test_what_the_fields_hold_becomes_a_request_and_options():
    chain = Recorded(SAID, voice=voice(speakers=("Ann", "Bob")))
    shown = show(chain, Asked(SPEAK, " hello ", "a", "Bob", 7, 2.0, 0.5), NAMED.__getitem__)
    request, options = chain.asked
    assert (request.to, request.text, request.audio, request.voice) == ("speech", "hello", None, "Bob")
    assert options == dict(seed=7, speed=2.0, sampling={"temperature": 0.5})
    assert shown.text == "hello" and shown.details.count("<rect") == 3 and "[Hu3][Hu19][Hu3]" in shown.details
    rate, samples_N = shown.sound
    assert rate == 16_000 and samples_N.dtype == np.int16 and set(samples_N.tolist()) == {16_384}
    assert "no speaker" in show(chain, Asked(SPEAK, "hello", voice="Eve"), NAMED.__getitem__).message
    clones = Recorded(SAID, voice=voice(clones=True))
    assert not show(clones, Asked(CHANGE, "hello", "a", "a"), NAMED.__getitem__).message
    request, _ = clones.asked
    assert request.text is None and len(request.audio.samples) == len(request.voice.samples) == 1600
    assert speakers_of(chain) == ["Ann", "Bob"] and speakers_of(clones) == []


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (Asked("sing", "a"), "choose what"),
        (Asked(SPEAK, None), "there is no text"),
        (Asked(SPEAK, "a" * 1001), "1001 characters"),
        (Asked(TRANSCRIBE, "a"), "there is no recording"),
        (Asked(TRANSCRIBE, audio="b"), "silent"),
        (Asked(SPEAK, "a", voice="b"), "the recording of the voice: the clip is silent"),
        (Asked(SPEAK, "a", seed=None), "seed is no number"),
        (Asked(SPEAK, "a", seed=2.0**40), "seed is"),
        (Asked(SPEAK, "a", speed=float("nan")), "speed is no number"),
        (Asked(SPEAK, "a", speed=0.0), "0.5 to 2"),
        (Asked(SPEAK, "a", temperature=9), "0 to 1.5"),
        (Asked(SPEAK, "a", temperature="1"), "temperature is no number"),
    ],
)
def test_what_cannot_be_asked_is_named_and_not_asked(asked, message):
    chain = Recorded(SAID, voice=voice(clones=True))
    shown = show(chain, asked, NAMED.__getitem__)
    assert message in shown.message and chain.asked is None and not shown.details


def test_nothing_from_outside_becomes_markup():
    shown = show(Recorded(ValueError("<script>")), Asked(SPEAK, "a"), NAMED.__getitem__)
    assert "&lt;script&gt;" in shown.message and "<script" not in shown.message
    times = Stopwatch({"<i>": 1.0})
    shown = show(Recorded(Answer(text="<b>", seconds=times)), Asked(CONTINUE_TEXT, "a"), NAMED.__getitem__)
    assert shown.text == "<b>" and "<i>" not in shown.details  # the text goes to a text box
    assert "&lt;test&gt;" in about(Recorded(inventory=PRECOMPUTED))
    with pytest.raises(ValueError):
        unit_strip(["<b>"])


def test_warnings():
    cut = Answer(text="", stopped=False, too_long=True)
    warned = show(Recorded(cut), Asked(CONTINUE_TEXT, "a"), NAMED.__getitem__).message
    assert re.findall("cut at|longer than|no words", warned) == ["cut at", "longer than", "no words"]
    nothing = Answer(units=UnitSequence([], [], 50.0))
    assert "said nothing" in show(Recorded(nothing), Asked(SPEAK, "a"), NAMED.__getitem__).message


def test_only_files_of_the_folder_are_read(tmp_path):
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "a.wav").write_bytes(b"a")
    (tmp_path / "other.wav").write_bytes(b"b")
    os.symlink(tmp_path / "other.wav", tmp_path / "kept" / "link.wav")
    read = kept_in(tmp_path / "kept")
    assert read(str(tmp_path / "kept" / "a.wav")) == b"a"
    for name in ("other.wav", "kept/../other.wav", "kept/link.wav", "kept", "kept/none.wav"):
        with pytest.raises(ValueError, match="upload it again"):
            read(str(tmp_path / name))


def test_without_gradio_the_extra_is_named(monkeypatch):
    for name in ("GRADIO_ANALYTICS_ENABLED", "GRADIO_TEMP_DIR", "HF_HUB_OFFLINE"):
        monkeypatch.setenv(name, "")  # so that they are put back
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(ValueError, match=r"pip install -e '\.\[demo\]'"):
        load_gradio("folder")


def test_a_strip_has_rows_of_columns():
    strip = unit_strip(range(7), columns=3)
    assert strip.count("<rect") == 7 and 'width="24" height="48"' in strip and "7 units" in strip
