import sys

import pytest

from jaxslm.audio.io import encode_flac, read_audio
from jaxslm.data.records import Utterance
from jaxslm.evaluation.phones import load_phones, phone_labels
from jaxslm.units.alignment import AlignmentError, PocketSphinxAligner, Word

TEXTGRID = """File type = "ooTextFile"
Object class = "TextGrid"
0 1 <exists> 2
"IntervalTier" "words" 0 1 1 0 1 "a"
"IntervalTier" "phones" 0 1 2 0 0.25 "" 0.25 1 "AH0"
"""


def test_frames_take_the_phone_at_their_centre():
    intervals = [Word("AH0", 0.02, 0.06), Word("T", 0.06, 0.0701), Word("", 0.08, 0.12), Word("IY1", 0.12, 0.2)]
    labels = phone_labels(intervals, 8, 50.0)  # centres at 10, 30, 50, 70, 90, 110, 130 and 150 ms
    assert labels.tolist() == ["SIL", "AH", "AH", "T", "SIL", "SIL", "IY", "IY"]


def test_gaps_and_the_ends_are_silence_and_no_interval_is_all_silence():
    assert phone_labels([Word("S", 0.1, 0.2)], 4, 10.0).tolist() == ["SIL", "S", "SIL", "SIL"]
    assert phone_labels([], 2, 50.0).tolist() == ["SIL", "SIL"]


@pytest.mark.parametrize("label, plain", [("sp", "SIL"), ("SIL", "SIL"), ("ER2", "ER"), ("t͡ʃ", "t͡ʃ"), ("a3", "a3")])
def test_labels_lose_stress_and_pauses_are_one(label, plain):
    assert phone_labels([Word(label, 0, 1)], 1, 50.0).tolist() == [plain]


@pytest.fixture(scope="module")
def clip():
    pytest.importorskip("espeakng_loader", reason="pip install 'jaxslm[demo]'")
    from jaxslm.data.sources.espeak import Synthesizer

    synthesizer = Synthesizer()
    spoken = synthesizer.speak("please enter your password", "en-us")[0]
    return read_audio((spoken, synthesizer.rate), where="espeak-ng").samples


def test_phones_are_those_of_the_dictionary_inside_their_words(clip):
    pytest.importorskip("pocketsphinx", reason="pip install 'jaxslm[demo]'")
    aligner = PocketSphinxAligner()
    text = "please enter your password"
    words = aligner.align(clip, text)
    phones = aligner.align_phones(clip, text)
    assert all(before.end == after.start for before, after in zip(phones[:-1], phones[1:], strict=True))
    spoken = [[p.text for p in phones if w.start <= p.start < w.end and p.text != "SIL"] for w in words]
    assert spoken[0] == ["P", "L", "IY", "Z"] and spoken[3] == ["P", "AE", "S", "W", "ER", "D"]
    assert spoken[1][0] in ("EH", "IH") and spoken[2][0] == "Y"
    assert aligner.align(clip, text) == words  # the second pass leaves nothing behind
    with pytest.raises(AlignmentError, match="no word to align"):
        aligner.align_phones(clip, "...")


def test_phones_of_a_record_by_pocketsphinx(clip):
    pytest.importorskip("pocketsphinx", reason="pip install 'jaxslm[demo]'")
    phones_of = load_phones("pocketsphinx")
    utterance = Utterance("a/b", "please enter your password", encode_flac(clip))
    assert {"P", "AE", "S"} <= {phone.text for phone in phones_of(utterance)}
    for fields, why in [(dict(language="fr"), "English"), (dict(audio=None), "no audio"), (dict(text=""), "no word")]:
        with pytest.raises(AlignmentError, match=why):
            phones_of(Utterance(**dict(id="a/b", text="hello", audio=encode_flac(clip)) | fields))


def test_phones_from_textgrids(tmp_path):
    (tmp_path / "audio").mkdir()
    (tmp_path / "audio" / "one.TextGrid").write_text(TEXTGRID)
    (tmp_path / "two.TextGrid").write_text(TEXTGRID)
    phones_of = load_phones(str(tmp_path))
    expected = (Word("", 0, 0.25), Word("AH0", 0.25, 1))
    assert phones_of(Utterance("corpus/audio/one")) == phones_of(Utterance("corpus/audio/two")) == expected
    with pytest.raises(AlignmentError, match="no TextGrid file of that id"):
        phones_of(Utterance("corpus/three"))


def test_no_file_outside_the_folder_is_read(tmp_path):
    (tmp_path / "secret.TextGrid").write_text(TEXTGRID)
    (tmp_path / "grids").mkdir()
    with pytest.raises(AlignmentError, match="no TextGrid"):
        load_phones(str(tmp_path / "grids"))(Utterance("corpus/../secret"))


def test_missing_sources_are_named(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="--phones=.*nowhere: no such folder"):
        load_phones(str(tmp_path / "nowhere"))
    monkeypatch.setitem(sys.modules, "pocketsphinx", None)
    with pytest.raises(ValueError, match=r"jaxslm\[demo\].*or name a folder of TextGrid files by --phones"):
        load_phones("pocketsphinx")
