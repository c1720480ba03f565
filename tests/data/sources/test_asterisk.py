"""The layout of Debian's packages, with sound that PyAV encodes."""

import builtins
import gzip

import numpy as np
import pytest

from jaxslm.audio.io import AudioTooLong, read_audio
from jaxslm.data.report import Report
from jaxslm.data.sources import count_utterances, read_source

TRANSCRIPT = """; Core Asterisk Sounds in English

activated: Activated.
beep: [this is a simple beep tone]
digits/1:  one, at 1:30
lost: Never recorded.
silence/1: (1 second of silence)
empty:
no colon
"""
SECONDS = 0.5


def tone(hertz, seconds=SECONDS):
    return (8000 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * 16_000)) / 16_000)).astype(np.int16)


def write_g722(path, samples_N):
    av = pytest.importorskip("av", reason="PyAV, extra `asterisk`, makes and decodes G.722")
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format="g722") as container:
        stream = container.add_stream("g722", rate=16_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples_N[None], format="s16", layout="mono")
        frame.sample_rate = 16_000
        container.mux([*stream.encode(frame), *stream.encode(None)])


def pack(root, transcript, language="en", voice="en_US_f_Allison", names=("activated", "beep", "digits/1", "spare")):
    doc = root / f"usr/share/doc/asterisk-core-sounds-{language}"
    doc.mkdir(parents=True)
    (doc / f"core-sounds-{language}.txt.gz").write_bytes(gzip.compress(transcript))
    for i, name in enumerate(names):
        write_g722(root / "usr/share/asterisk/sounds" / voice / f"{name}.g722", tone(300 * (i + 1)))
    return dict(kind="asterisk", path=str(root), language=language, heldout=0.0)


def test_layout_and_report(tmp_path):
    spec, report = pack(tmp_path, TRANSCRIPT.encode()), Report()
    for name in ("silence/1", "empty"):
        write_g722(tmp_path / f"usr/share/asterisk/sounds/en_US_f_Allison/{name}.g722", tone(100))
    (tmp_path / "usr/share/asterisk/sounds/en").symlink_to("en_US_f_Allison")  # as installations have it
    raws = list(read_source(spec, report))
    assert [(raw.id, raw.text, raw.speaker, raw.language, raw.split) for raw in raws] == [
        ("activated", "Activated.", "Allison Smith", "en", "train"),
        ("digits/1", "one, at 1:30", "Allison Smith", "en", "train"),
    ]
    assert raws[0].where.endswith("core-sounds-en.txt.gz:3") and count_utterances(spec) == 2
    assert [(entry["where"].rsplit("/", 1)[1], entry["cause"]) for entry in report.entries] == [
        ("core-sounds-en.txt.gz:4", "brackets in the transcript: it says what is heard, not what is said"),
        ("core-sounds-en.txt.gz:6", "no file 'lost.g722' in en_US_f_Allison"),
        ("core-sounds-en.txt.gz:7", "brackets in the transcript: it says what is heard, not what is said"),
        ("core-sounds-en.txt.gz:8", "no transcript after the name"),
        ("core-sounds-en.txt.gz:9", "no transcript after the name"),
        ("spare.g722", "no line for it in 'core-sounds-en.txt.gz'"),
    ]
    assert [raw.split for raw in read_source(spec | dict(heldout=1.0), Report())] == ["heldout"] * 2


@pytest.mark.parametrize("encoding", ["utf-8-sig", "latin-1"])
def test_encodings(tmp_path, encoding):
    spec = pack(tmp_path, "; sons\nactivated: activé\n".encode(encoding), "fr", "fr_CA_f_June", ["activated"])
    (raw,) = read_source(spec, Report())
    assert (raw.text, raw.speaker, raw.language) == ("activé", "June Wallack", "fr")


def test_sound_is_decoded(tmp_path):
    (raw,) = read_source(pack(tmp_path, b"digits/1: one\n", names=["digits/1"]), Report())
    clip = read_audio(raw.audio, where=raw.where)
    assert clip.rate == 16_000 and clip.duration == SECONDS and not clip.notes
    said_N = tone(300) / 32768
    # G.722 is a filter bank that comes 22 samples late, and quantizes
    error_N = clip.samples[400:-400] - said_N[400 - 22 : -400 - 22]
    assert np.sqrt(np.mean(error_N**2)) < 0.02 * np.sqrt(np.mean(said_N**2))
    with pytest.raises(AudioTooLong, match=r"0\.5 s is longer than"):
        read_audio(raw.audio, where=raw.where, max_seconds=0.4)


def test_nothing_there(tmp_path):
    pytest.importorskip("av")
    with pytest.raises(ValueError, match="apt-get download asterisk-core-sounds-en,"):
        list(read_source(dict(kind="asterisk", path=str(tmp_path)), Report()))
    spec = pack(tmp_path, b"a: b\n", names=[])
    with pytest.raises(ValueError, match="apt-get download asterisk-core-sounds-en-g722,"):
        list(read_source(spec, Report()))
    write_g722(tmp_path / "usr/share/asterisk/sounds/en_US_f_Allison/a.g722", tone(300))
    next(tmp_path.rglob("*.gz")).write_bytes(b"\x1f\x8bhalf")
    with pytest.raises(ValueError, match="cannot be unpacked"):
        list(read_source(spec, Report()))


def test_without_av_the_cure_is_named(tmp_path, monkeypatch):
    whole = builtins.__import__

    def without(name, *arguments, **how):
        if name == "av":
            raise ModuleNotFoundError("No module named 'av'")
        return whole(name, *arguments, **how)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ValueError, match="pip install av"):
        list(read_source(dict(kind="asterisk", path=str(tmp_path)), Report()))
    (tmp_path / "a.g722").write_bytes(bytes(8000))
    with pytest.raises(ValueError, match=r"a\.wav:1: .*pip install av"):
        read_audio(tmp_path / "a.g722", where="a.wav:1")
