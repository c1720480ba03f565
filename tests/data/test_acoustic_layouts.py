"""Formats of the acoustic stages: golden ids written out by hand, crops, and the index and vocabulary behind them."""

import json
import pickle

import numpy as np
import pytest

from jaxslm.acoustic.frames import AcousticCrops, FrameRates
from jaxslm.codec.codes import CodeSequence
from jaxslm.data.draws import draw_bits
from jaxslm.data.layouts import LAYOUTS
from jaxslm.data.loader import check_codes
from jaxslm.data.packing import PackedRows
from jaxslm.data.records import Utterance, write_records
from jaxslm.data.segments import LayoutSettings
from jaxslm.data.token_index import EncodedUtterance, TokenIndex, build_token_index
from jaxslm.tokenizer import load_tokenizer
from jaxslm.units.units import UnitSequence
from jaxslm.vocabulary import Vocabulary, build_vocabulary, check_free
from tests.data.corpora import inventory

CODEC = dict(name="toy", sha256="c" * 64, frame_rate=50.0, codebook_sizes=[16] * 3)
TEXTLESS = load_tokenizer("none")
# <pad> <s> </s>, units 3..42, codes 43..90 (level q from 43 + 16 q), [Frames] 91, [Coarse] 92, [Fine] 93
VOCABULARY = build_vocabulary(TEXTLESS, 40, inventory().sha256, codec=CODEC)
CODES = np.array([[0, 1, 2], [15, 14, 13], [5, 6, 7], [8, 9, 10], [11, 12, 3]], np.uint16)
# Units 3 3 7 at 25 a second: 6 frames of codes, of which there are 5.
UTTERANCE = EncodedUtterance(
    np.array([], np.int32), np.array([3, 7]), np.array([0]), None, durations=np.array([2, 1]), codes=CODES,
    rates=FrameRates(25.0, 50.0),
)  # fmt: skip
GOLDEN_COARSE = [1, 91, 6, 6, 10, 92, 43, 60, 58, 73, 48, 65, 51, 68, 54, 71]
GOLDEN_FINE = [1, 92, 43, 60, 58, 73, 48, 65, 51, 68, 54, 71, 93, 77, 88, 82, 85, 78]


def settings(seconds: float, coarse_levels: int = 2) -> LayoutSettings:
    return LayoutSettings(acoustic=AcousticCrops(coarse_levels, seconds))


def flat(segments):
    return [int(i) for segment in segments for i in segment.ids]


@pytest.mark.parametrize(("stage", "golden"), [("coarse", GOLDEN_COARSE), ("fine", GOLDEN_FINE)])
def test_golden_ids_and_weights(stage, golden):
    segments = LAYOUTS[stage].build(UTTERANCE, VOCABULARY, 0, settings(10.0))
    assert flat(segments) == golden
    weights = [segment.loss_weight for segment in segments for _ in segment.ids]
    n_made = 10 if stage == "coarse" else 5
    assert weights == [0.0] * (len(golden) - n_made) + [1.0] * n_made
    assert [s.modality for s in segments] == ["marker", "speech" if stage == "coarse" else "codes", "marker", "codes"]


def test_golden_crops():
    """Two frames of five: from an even frame they are one unit's, from an odd one two units'."""
    crops = {
        0: [6, 92, 43, 60, 58, 73], 1: [6, 6, 92, 58, 73, 48, 65],
        2: [6, 92, 48, 65, 51, 68], 3: [6, 10, 92, 51, 68, 54, 71],
    }  # fmt: skip
    built = {tuple(flat(LAYOUTS["coarse"].build(UTTERANCE, VOCABULARY, key, settings(0.04)))) for key in range(40)}
    assert built == {(1, 91, *crop) for crop in crops.values()}
    built = {len(flat(LAYOUTS["fine"].build(UTTERANCE, VOCABULARY, key, settings(0.04)))) for key in range(40)}
    assert built == {3 + 2 * 3}


@pytest.mark.parametrize("units,codes", [(25.0, 50.0), (50.0, 50.0), (50.0, 12.5), (24.99, 50.0), (50.0, 75.0)])
def test_frames_of_both_rates(units, codes):
    rates = FrameRates(units, codes)
    for n_units in range(1, 2000, 7):
        n = int(rates.n_codes(n_units))
        assert n / codes <= n_units / units + 1e-6 and (n + 1) / codes > n_units / units - 1e-6
        first = np.arange(n)
        begin, end = rates.units_of(first, first + 1)
        assert (begin >= 0).all() and (end <= n_units).all() and (end > begin).all()
        # The unit that begins last before the middle of the frame is among them.
        middle = ((first + 0.5) / codes * units).astype(int)
        assert (begin <= middle).all() and (middle < end).all()


def test_ids_and_codes_there_and_back():
    assert VOCABULARY.describe() == "text 0..2, units 3..42, codes 43..90, acoustic 91..93, padded to 128"
    assert VOCABULARY.token(43) == "[Ac0]" and VOCABULARY.id("[Ac47]") == 90 and VOCABULARY.id("[Fine]") == 93
    np.testing.assert_array_equal(VOCABULARY.codes_of(VOCABULARY.code_ids(CODES), 3), CODES)
    np.testing.assert_array_equal(VOCABULARY.codes_of(VOCABULARY.code_ids(CODES[:, 1:], 1), 2, 1), CODES[:, 1:])
    masks = VOCABULARY.code_masks(1, 2)
    assert [np.flatnonzero(mask).tolist() for mask in masks] == [[*range(59, 75)], [*range(75, 91)]]
    with_text = build_vocabulary(load_tokenizer("byte"), 40, "b" * 64, codec=CODEC)
    assert [block.name for block in with_text.blocks] == ["text", "markers", "units", "tasks", "codes", "acoustic"]
    assert not with_text.modality_mask("speech")[with_text.block("codes").first :].any()


def test_vocabularies_without_codes_are_as_they_were():
    old = build_vocabulary(TEXTLESS, 40, "b" * 64)
    saved = old.to_json()
    assert list(saved) == [
        "blocks", "bos_id", "eos_id", "text_special_ids", "tokenizer_sha256", "unit_inventory_sha256", "pad_multiple",
        "size", "padded_size",
    ]  # fmt: skip
    assert Vocabulary.from_json(json.loads(json.dumps(saved))) == old
    assert Vocabulary.from_json(json.loads(json.dumps(VOCABULARY.to_json()))) == VOCABULARY


def test_another_codec_is_refused():
    VOCABULARY.check_same(VOCABULARY, "run/vocabulary.json")
    for other, theirs in ((CODEC | dict(sha256="d" * 64), "dddd"), (None, "none there")):
        vocabulary = build_vocabulary(TEXTLESS, 40, inventory().sha256, codec=other)
        with pytest.raises(ValueError, match=f"run/vocabulary.json was made with another codec.*{theirs}.*cccc"):
            VOCABULARY.check_same(vocabulary, "run/vocabulary.json")
    with pytest.raises(ValueError, match="toy has codebooks of several sizes"):
        build_vocabulary(TEXTLESS, 40, "b" * 64, codec=CODEC | dict(codebook_sizes=[8, 16]))


def test_names_that_a_tokenizer_has_already():
    class Tokens:
        tokens = ("a", "[Ac7]")

    check_free(Tokens)
    with pytest.raises(ValueError, match=r"\[Ac7\]"):
        check_free(Tokens, codes=True)


@pytest.fixture(scope="module")
def coded(tmp_path_factory):
    """(folder, index): 60 utterances, some without units, codes or both, at rates of 25 and 50."""
    folder, rng = tmp_path_factory.mktemp("coded"), np.random.default_rng(0)
    units = inventory()  # 50 frames a second
    about = CODEC | dict(frame_rate=75.0)

    def utterance(i: int) -> Utterance:
        durations = rng.integers(1, 5, rng.integers(1, 60))
        n_codes = int(durations.sum() * 1.5) + int(rng.integers(-1, 3))
        made = UnitSequence(np.cumsum(rng.integers(1, 40, len(durations))) % 40, durations, 50.0)
        codes = CodeSequence(rng.integers(0, 16, (n_codes, 3)), 75.0, 213 * n_codes)
        return Utterance(
            id=f"u{i}", split="heldout" if i % 5 == 4 else "train",
            units={} if i % 7 == 3 else {units.sha256: made}, codes={} if i % 9 == 3 else {about["sha256"]: codes},
        )  # fmt: skip

    utterances = [utterance(i) for i in range(60)]
    write_records(folder / "records", utterances, inventories=[units], codecs=[about])
    index = build_token_index(folder / "records", TEXTLESS, units, folder, codec=about, progress=False)
    return folder, index, utterances, units, about


def test_index_holds_units_as_they_last_and_codes(coded):
    folder, index, utterances, units, about = coded
    copy = pickle.loads(pickle.dumps(index))
    for i, utterance in enumerate(utterances):
        encoded, made = copy[i], utterance.units.get(units.sha256)
        frames = [] if made is None else made.expand()
        np.testing.assert_array_equal(np.repeat(encoded.unit_ids, encoded.durations), frames)
        assert index.n_unit_frames[i] == len(frames)
        codes = utterance.codes.get(about["sha256"])
        np.testing.assert_array_equal(encoded.codes, np.zeros((0, 3)) if codes is None else codes.ids)
        assert index.n_frames[i] == len(encoded.codes) and encoded.rates == FrameRates(50.0, 75.0)
    plain = build_token_index(folder / "records", TEXTLESS, units, folder, progress=False)
    assert plain.folder != index.folder and plain.rates is None and plain[0].codes is None
    assert isinstance(index.codes, np.memmap) and not (plain.folder / "codes.bin").exists()
    assert not LAYOUTS["coarse"].eligible(plain).any()


def test_an_index_whose_rates_are_not_as_said(coded):
    folder, _, _, units, about = coded
    with pytest.raises(ValueError, match="u0 has 75 frames a second where 50 are said"):
        build_token_index(
            folder / "records", TEXTLESS, units, folder / "wrong", codec=about | dict(frame_rate=50.0), progress=False
        )
    assert TokenIndex(coded[1].folder).rates == FrameRates(50.0, 75.0)


@pytest.mark.parametrize("stage", ["coarse", "fine"])
@pytest.mark.parametrize("seconds", [0.2, 10.0])
def test_lengths_are_what_build_gives(coded, stage, seconds):
    index, layout, how = coded[1], LAYOUTS[stage], settings(seconds)
    items = np.flatnonzero(layout.eligible(index))
    assert 40 < len(items) < 60 and set(items).isdisjoint([i for i in range(60) if i % 7 == 3 or i % 9 == 3])
    for epoch in range(3):
        keys = draw_bits(7, epoch, items)
        lengths = layout.lengths(index, VOCABULARY, items, keys, how)
        built = [len(flat(layout.build(index[i], VOCABULARY, key, how))) for i, key in zip(items, keys, strict=True)]
        assert lengths.tolist() == built


def test_rows_learn_codes_alone_and_crops_change_with_the_epoch(coded):
    more = dict(objective_id=0, context_length=64, seed=1, settings=settings(0.2))
    rows = PackedRows(coded[1], VOCABULARY, "fine", **more)
    fine = VOCABULARY.code_masks(2, 1)[0]
    seen = []
    for epoch in range(2):
        plan = rows.epoch(epoch)
        batch = [rows[k] for k in range(plan.first_row, plan.first_row + len(plan.row_order))]
        for row in batch:
            np.testing.assert_array_equal(row["loss_weights"] > 0, fine[row["targets"]])
        seen.append(np.sort(np.concatenate([row["targets"][row["loss_weights"] > 0] for row in batch])).tolist())
    assert seen[0] != seen[1] and "left out" not in rows.describe()


@pytest.mark.parametrize(
    ("mixture", "codec", "message"),
    [
        (dict(coarse=1.0), "", "small_16k.py:tiny --workdir=runs/codec.*--config.data.codec=runs/codec"),
        (dict(coarse=1.0, fine=0.5), "codec", "mixture.coarse=0 or --config.data.mixture.fine=0"),
    ],
)
def test_mixtures_that_cannot_be(mixture, codec, message):
    check_codes(dict(coarse=1.0, fine=0.0), "codec")
    check_codes(dict(speech=1.0, coarse=0.0), "")
    with pytest.raises(ValueError, match=message):
        check_codes(mixture, codec)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(coarse_levels=0), "coarse_levels=0: set it to 1"),
        (dict(seconds=0.0), "seconds=0.0: set it to a positive"),
        (dict(prompt_seconds=float("nan")), "prompt_seconds=nan"),
    ],
)
def test_impossible_crops(fields, message):
    with pytest.raises(ValueError, match=message):
        AcousticCrops(**fields)


def test_levels_that_leave_a_stage_nothing():
    AcousticCrops(coarse_levels=2).check_levels(3)
    with pytest.raises(ValueError, match="coarse_levels=3, and the codec has 3 codes a frame.*fine.*set it to 1 to 2"):
        AcousticCrops(coarse_levels=3).check_levels(3)
    with pytest.raises(ValueError, match="use a codec of two levels or more"):
        AcousticCrops(coarse_levels=1).check_levels(1)
