import pickle

import numpy as np
import pytest

from jaxslm.audio.io import encode_flac
from jaxslm.data.loader import training_batches
from jaxslm.data.records import Records, Utterance, write_records
from jaxslm.data.unit_crops import UnitCrops, find_spoken, runs_of
from jaxslm.units.inventory import UnitInventory
from jaxslm.units.units import UnitSequence

HOP, RATE = 160, 16_000
INVENTORY = UnitInventory("precomputed:ramp", 0, 100.0, None, 300)
FRAMES = (12, 40, 90)  # of units; the audio of the second is a frame shorter, that of the third two frames longer


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """Every sample and every unit tells its frame: samples of frame t of clip c are (100 c + t) / 512."""
    folder = tmp_path_factory.mktemp("spoken")
    utterances = []
    for c, (n, more, speaker) in enumerate(zip(FRAMES, (0, -1, 2), ("ann", "bob", "ann"), strict=True)):
        frame = np.arange(n + more)
        audio = np.repeat((100 * c + frame) / 512, HOP)[: (n + more) * HOP].astype(np.float32)
        units = UnitSequence(100 * c + np.arange(0, n, 2), np.full(n // 2, 2), 100.0)
        utterances.append(
            Utterance(
                f"c{c}", "", encode_flac(audio), len(audio) / RATE, units={INVENTORY.sha256: units}, speaker=speaker
            )
        )
    held = Utterance("h", "", utterances[0].audio, utterances[0].duration, units=utterances[0].units, speaker="eve",
                     split="heldout")  # fmt: skip
    write_records(folder, [*utterances, held, Utterance("text", "no audio")], inventories=[INVENTORY])
    return Records(folder)


def crops(records, n_frames=20, seed=0, split="train", speakers=None, **more):
    found = find_spoken(records, INVENTORY.sha256, HOP, RATE)
    speakers = {"ann": 0, "bob": 1} if speakers is None else speakers
    return UnitCrops(records, INVENTORY.sha256, found[split], n_frames, HOP, seed, speakers=speakers, **more)


def test_units_and_samples_of_a_crop_are_those_of_one_place(records):
    made, clips = crops(records), set()
    assert made.seconds == pytest.approx((12 + 39 + 90) * HOP / RATE)
    for row in range(100):
        crop = made[row]
        n = int(crop["length"][0]) // HOP
        told = np.round(crop["samples"][: n * HOP].reshape(n, HOP) * 512).astype(int)
        clip, first = divmod(int(told[0, 0]), 100)
        clips.add(clip)
        np.testing.assert_array_equal(told, (100 * clip + first + np.arange(n))[:, None].repeat(HOP, 1))
        np.testing.assert_array_equal(crop["units"][:n], 100 * clip + (first + np.arange(n)) // 2 * 2)
        assert n == min(20, (12, 39, 90)[clip]) and crop["speaker"][0] == (0, 1, 0)[clip]
        assert not crop["units"][n:].any() and not crop["samples"][n * HOP :].any()
        runs = int(crop["n_runs"][0])
        assert np.repeat(crop["run_ids"][:runs], crop["run_frames"][:runs]).tolist() == crop["units"][:n].tolist()
        inner = crop["measured"] > 0
        assert (
            inner.sum() == runs - 2 and not inner[0] and not inner[runs - 1] and set(crop["run_frames"][inner]) == {2}
        )
    assert clips == {0, 1, 2}


@pytest.mark.parametrize("ids, frames, measured", [
    ([3, 3, 3, 5, 5, 3, 0, 0], [3, 2, 1, 2], [0, 1, 1, 0]), ([4, 4], [2], [0]), ([4, 2], [1, 1], [0, 0]),
])  # fmt: skip
def test_the_first_and_the_last_run_are_not_measured(ids, frames, measured):
    row = runs_of(np.array(ids + [7]), len(ids), 9)
    n = len(frames)
    assert row["n_runs"].tolist() == [n] and row["run_frames"].tolist() == frames + [0] * (9 - n)
    assert row["measured"].tolist() == measured + [0] * (9 - n)


def test_rows_are_a_function_of_seed_and_row_and_reach_the_loader(records):
    made = crops(records, seed=3)
    again, other = pickle.loads(pickle.dumps(made)), crops(records, seed=4)
    assert all(np.array_equal(made[row]["units"], again[row]["units"]) for row in range(20))
    assert any(not np.array_equal(made[row]["units"], other[row]["units"]) for row in range(20))
    batch = next(training_batches([made], [1.0], batch_size=4, first_step=2))
    assert batch["units"].shape == (4, 20) and batch["samples"].shape == (4, 20 * HOP)
    np.testing.assert_array_equal(batch["run_ids"][1], made[9]["run_ids"])


def test_speakers_without_training_data_are_left_out(records):
    with pytest.raises(ValueError, match="no utterance with audio, units and a known speaker"):
        crops(records, split="heldout")
    [(id, _, speaker, samples, units)] = crops(records, split="heldout", speakers={}).whole(3, 8)
    assert (id, speaker) == ("h", "eve") and len(samples) == 8 * HOP and units.expand().tolist() == [
        0, 0, 2, 2, 4, 4, 6, 6,
    ]  # fmt: skip
    [crop] = crops(records, split="heldout", speakers={}).firsts(3)
    assert crop["speaker"] == [0] and crop["units"][0] == 0


def test_audio_at_another_rate_is_refused(records):
    with pytest.raises(ValueError, match="holds audio at 16000 Hz where 24000 Hz are asked for: prepare it with"):
        crops(records, sample_rate=24_000)[0]
