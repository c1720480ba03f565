import json

import numpy as np
import pytest

from jaxslm.audio.io import encode_flac
from jaxslm.data.calibrate import calibrate_on
from jaxslm.data.records import Records, Utterance, write_records
from jaxslm.units.alignment import Word, load_aligner, read_calibration
from jaxslm.units.ctc_aligner import CtcAligner
from tests.units.test_ctc_aligner import UPPER, Written

WRITTEN = "_A_|_NO_T____DO__"


def records(folder, words_from):
    """Clips in which the sound of a word begins 50 ms before its letters and ends 10 ms after them."""
    model, utterances = Written(UPPER), []
    for n in range(1, 6):
        clip = model.clip("_" * (n + 3) + WRITTEN)
        words = CtcAligner(model, spread=0.0).align(clip, "a not do")
        utterances.append(
            Utterance(
                id=f"c{n}", text="a not do", audio=encode_flac(clip), duration=len(clip) / 16_000,
                words=tuple(Word(word.text, word.start - 0.05, word.end + 0.01) for word in words),
                words_from=words_from if n < 5 else "pocketsphinx",
            )
        )  # fmt: skip
    write_records(folder, utterances)
    return Records(folder)


def test_delay_and_spread_are_measured_on_word_times_that_came_with_the_speech(tmp_path):
    found = calibrate_on(records(tmp_path, "record"), CtcAligner(Written(UPPER)))
    np.testing.assert_allclose((found.delay, found.spread), (0.02, 0.03), atol=1e-3)
    assert found.clips == 4 and found.error_after < 1e-3 < 0.02 < found.error_before


def test_word_times_of_an_aligner_are_not_believed(tmp_path):
    with pytest.raises(ValueError, match="has no utterance whose word times came with it"):
        calibrate_on(records(tmp_path, "ctc:elsewhere"), CtcAligner(Written(UPPER)))


def test_an_aligner_takes_the_calibration_from_its_folder(tmp_path):
    pytest.importorskip("transformers")
    from tests.units.test_neural_ctc import save_ctc

    save_ctc(tmp_path)
    name = f"ctc:{tmp_path}"
    assert (load_aligner(name).delay, load_aligner(name).spread) == (0.0, 0.02)
    (tmp_path / "calibration.json").write_text(json.dumps(dict(delay=0.04, spread=0.03, clips=9)))
    assert (load_aligner(name).delay, load_aligner(name).spread) == (0.04, 0.03)
    assert read_calibration(f"{name}@eng") == (0.0, None)  # another language has its own
    (tmp_path / "calibration.json").write_text("[]")
    with pytest.raises(ValueError, match="calibration.json is damaged .*remove it, or calibrate again"):
        load_aligner(name)
