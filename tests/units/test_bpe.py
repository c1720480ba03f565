import json
from collections import Counter

import numpy as np
import pytest

from jaxslm.units.bpe import UnitBpe, train_unit_bpe

UNITS = 40


def sequences(n=60, seed=0):
    """Units in words that come back, as phones do."""
    rng = np.random.default_rng(seed)
    words = [rng.integers(0, UNITS - 5, rng.integers(2, 6)) for _ in range(30)]
    chance = 1 / np.arange(1, 31)
    return [np.concatenate([words[i] for i in rng.choice(30, 20, p=chance / chance.sum())]) for _ in range(n)]


@pytest.fixture(scope="module")
def bpe():
    return train_unit_bpe(sequences(), UNITS, 120, "inventory")


def merges_by_counting(corpus, n_units, size):
    """Byte-pair encoding as Sennrich et al. (2016) give it: join the most frequent pair, and again."""
    corpus, tokens = [[(int(unit),) for unit in ids] for ids in corpus], n_units
    while tokens < size:
        pairs = Counter(pair for ids in corpus for pair in zip(ids, ids[1:], strict=False))
        most = max(pairs.values())
        best = min((pair for pair in pairs if pairs[pair] == most), key=lambda pair: (pair[0], pair[1]))
        tokens += 1
        for ids in corpus:
            at = 0
            while at < len(ids) - 1:
                if (ids[at], ids[at + 1]) == best:
                    ids[at : at + 2] = [ids[at] + ids[at + 1]]
                at += 1
    return corpus


def test_the_first_merges_are_the_most_frequent_pairs():
    corpus = [np.array([1, 2, 3, 1, 2, 4, 1, 2, 3, 9, 1, 2])] * 2
    model = train_unit_bpe(corpus, 10, 12, "x")
    assert model.encode(corpus[0]).tolist() == [11, 10, 4, 11, 9, 10]  # 10 is "1 2", 11 is "1 2 3"
    joined = merges_by_counting(corpus, 10, 12)[0]
    assert [len(token) for token in joined] == [len(model.decode([token])) for token in model.encode(corpus[0])]


def test_whatever_is_encoded_is_decoded(bpe):
    rng = np.random.default_rng(1)
    for ids in [*sequences(20, seed=2), *(rng.integers(0, UNITS, n) for n in (0, 1, 2, 3, 50, 3000))]:
        tokens = bpe.encode(ids)
        assert tokens.dtype == np.int32 and np.array_equal(bpe.decode(tokens), ids)


def test_units_are_the_first_tokens_and_all_of_them_are_there(bpe):
    assert bpe.size == 120
    for unit in range(UNITS):
        assert bpe.encode([unit]).tolist() == [unit] and bpe.decode([unit]).tolist() == [unit]


def test_16384_units_stay_apart():
    ids = np.random.default_rng(0).permutation(16_384)
    model = train_unit_bpe([ids[:100], ids[:100]], 16_384, 16_400, "x")
    assert np.array_equal(model.decode(model.encode(ids)), ids)


def test_compression_is_counted(bpe):
    report = bpe.compression(sequences())
    assert report.units == sum(map(len, sequences()))
    assert report.tokens == sum(len(bpe.encode(ids)) for ids in sequences()) < report.units
    assert report.ratio == report.units / report.tokens > 2
    assert report.usage == len({t for ids in sequences() for t in bpe.encode(ids).tolist()}) / 120


def test_saved_and_loaded_for_its_own_inventory_only(bpe, tmp_path):
    bpe.save(tmp_path / "bpe.json")
    loaded = UnitBpe.load(tmp_path / "bpe.json", "inventory")
    ids = sequences(1, seed=5)[0]
    assert np.array_equal(loaded.encode(ids), bpe.encode(ids)) and (loaded.size, loaded.n_units) == (120, UNITS)
    with pytest.raises(ValueError, match="made for the inventory inventory, but the units are of another; train one"):
        UnitBpe.load(tmp_path / "bpe.json", "another")
    record = json.loads((tmp_path / "bpe.json").read_text())
    for broken in ({**record, "version": 9}, {**record, "tokenizer": {}}, []):
        (tmp_path / "bpe.json").write_text(json.dumps(broken))
        with pytest.raises(ValueError, match="bpe.json: not a usable unit BPE .*train it anew"):
            UnitBpe.load(tmp_path / "bpe.json", "inventory")


def test_foreign_ids_and_sizes_are_refused(bpe):
    with pytest.raises(ValueError, match="unit ids from 0 to 40 are not among the 40"):
        bpe.encode([0, 40])
    with pytest.raises(ValueError, match="tokens from -1 to 3 are not among the 120"):
        bpe.decode([-1, 3])
    with pytest.raises(ValueError, match="39 tokens cannot hold the 40 units"):
        train_unit_bpe([], 40, 39, "x")
    with pytest.raises(ValueError, match="70000 units are more than the 65534"):
        train_unit_bpe([], 70_000, 80_000, "x")
