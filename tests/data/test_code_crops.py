"""Crops of codes: they go on from one utterance of a speaker to the next, units and durations with them."""

import pickle

import numpy as np
import pytest

from jaxslm.codec.codes import CodeSequence
from jaxslm.data.code_crops import CodeCrops
from jaxslm.data.records import Records, Utterance, write_records
from jaxslm.units.units import deduplicate

INVENTORY, CODEC = "a" * 64, "b" * 64
T = 30


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """Codes say where they are from: [utterance, frame]; units are at twice the rate of the codes."""
    rng, utterances = np.random.default_rng(0), []
    for i in range(9):
        n = int(rng.integers(8, 40))
        codes = CodeSequence(np.stack([np.full(n, i), np.arange(n)], axis=1), 25.0, n * 10)
        units = deduplicate(rng.integers(0, 5, 2 * n), 50.0)
        speaker, split = ("anna" if i < 4 else "ben" if i < 7 else ""), ("heldout" if i == 8 else "train")
        made = dict(units={INVENTORY: units}, codes={CODEC: codes}, duration=n / 25, speaker=speaker, split=split)
        utterances.append(Utterance(f"u{i}", **made))
    utterances.append(Utterance("text", text="no sound"))
    folder = tmp_path_factory.mktemp("records") / "all"
    write_records(folder, utterances)
    return Records(folder), utterances


def crops(records, split="train", n_frames=T, seed=0):
    return CodeCrops(records, INVENTORY, CODEC, split, n_frames, 2, seed)


def test_a_crop_is_speech_of_one_speaker_whole_utterances_but_for_its_ends(records):
    stored, utterances = records
    seen = set()
    for row in map(crops(stored).__getitem__, range(60)):
        n = int(row["frames"][0])
        which, at = row["codes"][:n].T
        cuts = np.flatnonzero(np.diff(which) != 0) + 1
        pieces = np.split(np.arange(n), cuts)
        seen.add(len(pieces))
        assert len({utterances[which[p[0]]].speaker for p in pieces}) == 1
        for number, piece in enumerate(pieces):
            utterance = utterances[which[piece[0]]]
            np.testing.assert_array_equal(np.diff(at[piece]), 1)
            assert number == 0 or at[piece[0]] == 0
            assert number == len(pieces) - 1 or at[piece[-1]] == len(utterance.codes[CODEC]) - 1
            own = utterance.units[INVENTORY].expand()
            np.testing.assert_array_equal(row["units"][piece], own[2 * at[piece] + 1])
        assert n == T or utterances[which[0]].speaker == ""
        assert not row["codes"][n:].any() and not row["units"][n:].any()
    assert max(seen) >= 2


def test_runs_have_durations_but_where_the_crop_cuts_them(records):
    stored, utterances = records
    for row in map(crops(stored).__getitem__, range(30)):
        n, n_runs = int(row["frames"][0]), int(row["n_runs"][0])
        which, at = row["codes"][:n].T
        begins = [0, *(np.flatnonzero(np.diff(which)) + 1), n]
        ids, durations = [], []
        for first, stop in zip(begins[:-1], begins[1:], strict=True):
            own = utterances[which[first]].units[INVENTORY].expand()
            part = deduplicate(own[2 * at[first] : 2 * at[stop - 1] + 2], 50.0)
            lasting = part.durations.copy()
            if at[first] > 0:
                lasting[0] = 0
            if 2 * at[stop - 1] + 2 < len(own):
                lasting[-1] = 0
            ids.append(part.ids)
            durations.append(lasting)
        np.testing.assert_array_equal(row["runs"][:n_runs], np.concatenate(ids)[: 2 * T])
        np.testing.assert_array_equal(row["durations"][:n_runs], np.concatenate(durations)[: 2 * T])


def test_a_row_is_a_function_of_seed_and_number_and_every_frame_is_as_likely(records):
    stored, utterances = records
    first, again = crops(stored, n_frames=1), crops(stored, n_frames=1)
    assert all(np.array_equal(a, b) for a, b in zip(first[7].values(), again[7].values(), strict=True))
    assert any(not np.array_equal(first[7][k], crops(stored, n_frames=1, seed=1)[7][k]) for k in ("codes", "draw"))
    copy = pickle.loads(pickle.dumps(first))  # as loaders in processes get it
    assert all(np.array_equal(a, b) for a, b in zip(first[7].values(), copy[7].values(), strict=True))
    drawn = np.array([first[row]["codes"][0, 0] for row in range(4000)])
    lengths = np.array([len(u.codes[CODEC]) for u in utterances[:8]])
    np.testing.assert_allclose(np.bincount(drawn, minlength=8) / 4000, lengths / lengths.sum(), atol=0.03)
    assert len({tuple(first[row]["draw"]) for row in range(100)}) == 100


def test_a_split_without_codes_is_refused(records, tmp_path):
    stored, _ = records
    assert crops(stored, "heldout").chosen == [8]
    write_records(tmp_path / "none", [Utterance("text", text="no sound")])
    with pytest.raises(ValueError, match="no utterance with units and codes in the split 'train'"):
        crops(Records(tmp_path / "none"))
