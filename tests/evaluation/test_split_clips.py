import numpy as np
import pytest

from jaxslm.audio.io import encode_flac, read_audio
from jaxslm.data.records import Utterance
from jaxslm.data.report import Report
from jaxslm.evaluation.split_clips import write_split_clips
from jaxslm.evaluation.suites import read_suite
from jaxslm.units.alignment import Word


def clip(id: str, text: str, step: float, speaker: str = "a") -> Utterance:
    """Word w lasts `step` seconds and has the level (w + 1) / 10."""
    words = text.split()
    n = round(step * 16_000)
    samples = np.repeat((np.arange(len(words)) + 1) / 10, n).astype(np.float32)
    times = tuple(Word(word, i * step, (i + 1) * step) for i, word in enumerate(words))
    return Utterance(id, text, audio=encode_flac(samples), duration=len(samples) / 16_000, words=times, speaker=speaker)


def test_halves_meet_at_a_word(tmp_path):
    clips = [clip("x", "one two three four five", 0.3), clip("y", "a b c d", 0.3), clip("z", "q r s t", 0.5)]
    clips += [clip("short", "no no no", 0.3), clip("alone", "e f g h", 0.3, speaker="b")]
    assert write_split_clips(tmp_path, clips) == 3
    read = lambda name: (tmp_path / f"{name}.txt").read_text().strip()  # noqa: E731
    assert [read(f"0_{piece}") for piece in ("mutual", "correct", "incorrect")] == ["one two", "three four five", "s t"]
    assert [read(f"1_{piece}") for piece in ("mutual", "correct", "incorrect")] == ["a b", "c d", "three four five"]
    heard = read_audio(tmp_path / "0_correct.wav", where="x").samples
    assert len(heard) == round(0.9 * 16_000) and heard[0] == pytest.approx(0.3, abs=1e-3)
    spec = dict(kind="storycloze", path=str(tmp_path), modes=("T->S",))
    assert len(read_suite(spec, Report())) == 3


def test_nothing_to_cut(tmp_path):
    with pytest.raises(ValueError, match="no two clips of one speaker"):
        write_split_clips(tmp_path, [clip("x", "one two three four", 0.3)])
