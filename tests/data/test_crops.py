import pickle

import numpy as np
import pytest

from jaxslm.audio.io import encode_flac
from jaxslm.data.crops import AudioCrops
from jaxslm.data.loader import training_batches
from jaxslm.data.records import Records, Utterance, write_records

LENGTHS = (1_000, 4_000, 12_000)


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """A ramp in each clip: a sample tells its clip and its place."""
    folder = tmp_path_factory.mktemp("ramps")
    clips = [(1000 * (i + 1) + np.arange(n) // 16) / 32_768 for i, n in enumerate(LENGTHS)]
    utterances = [
        Utterance(id=f"c{i}", text="", audio=encode_flac(clip.astype(np.float32)), duration=len(clip) / 16_000)
        for i, clip in enumerate(clips)
    ]
    write_records(folder, [*utterances, Utterance(id="text", text="no audio")])
    return Records(folder)


def _told(crop):
    """(clip, sample it starts at, within 16)."""
    first = round(float(crop["samples"][0]) * 32_768)
    return first // 1000 - 1, first % 1000 * 16


def test_crops_are_stretches_of_the_clips_and_short_clips_come_whole(records):
    crops = AudioCrops(records, "train", 2_000, seed=0)
    assert crops.n_utterances == 3 and crops.seconds == sum(LENGTHS) / 16_000
    for row in range(200):
        crop = crops[row]
        clip, start = _told(crop)
        n = int(crop["length"][0])
        assert crop["samples"].shape == (2_000,) and n == min(2_000, LENGTHS[clip])
        assert start + n <= LENGTHS[clip] + 16 and not crop["samples"][n:].any()
        steps = np.diff(np.round(crop["samples"][:n] * 32_768))
        assert set(steps) <= {0, 1} and steps.sum() == pytest.approx(n / 16, abs=1)


def test_every_second_is_as_likely(records):
    crops = AudioCrops(records, "train", 2_000, seed=1)
    clips, starts = zip(*(_told(crops[row]) for row in range(1_500)), strict=True)
    np.testing.assert_allclose(np.bincount(clips) / 1_500, np.array([2, 4, 12]) / 18, atol=0.03)
    longest = np.array(starts)[np.array(clips) == 2]
    assert longest.min() < 500 and longest.max() > 9_500 and abs(longest.mean() - 5_000) < 300


def test_rows_are_a_function_of_seed_and_row_and_reach_the_loader(records):
    crops = AudioCrops(records, "train", 2_000, seed=3)
    again, other = pickle.loads(pickle.dumps(crops)), AudioCrops(records, "train", 2_000, seed=4)
    assert all(np.array_equal(crops[row]["samples"], again[row]["samples"]) for row in range(20))
    assert any(not np.array_equal(crops[row]["samples"], other[row]["samples"]) for row in range(20))
    batch = next(training_batches([crops], [1.0], batch_size=4, first_step=2))
    assert batch["samples"].shape == (4, 2_000) and batch["length"].shape == (4, 1)
    assert np.array_equal(batch["samples"][1], crops[9]["samples"])


def test_audio_at_another_rate_is_refused(records):
    crops = AudioCrops(records, "train", 2_000, seed=0, sample_rate=24_000)
    with pytest.raises(ValueError, match="holds audio at 16000 Hz where 24000 Hz are asked for: prepare it with"):
        crops[0]


def test_heldout_clips_begin_at_their_beginning(records):
    crops = AudioCrops(records, "train", 2_000, seed=0).firsts(2)
    assert len(crops) == 2 and all(_told(crop)[1] == 0 for crop in crops)
    with pytest.raises(ValueError, match="no audio in the split 'heldout'; give data.sources with audio"):
        AudioCrops(records, "heldout", 2_000, seed=0)
