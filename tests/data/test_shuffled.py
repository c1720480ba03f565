"""What a deliberate failure changes, and what it leaves alone."""

import shutil

import numpy as np
import pytest

from jaxslm.data.shuffled import shuffled_index
from jaxslm.data.token_index import _ARRAYS, TokenIndex


@pytest.fixture
def index(tmp_path) -> TokenIndex:
    """Nine utterances of three words: units 10i to 10i + 2i + 2; the last is held out, the one before has no times."""
    n = 9
    units = [np.arange(10 * i, 10 * i + 2 * i + 3) for i in range(n)]
    arrays = dict(
        text_ids=np.arange(3 * n),
        unit_ids=np.concatenate(units),
        text_edges=np.tile(np.arange(4), n),
        unit_edges=np.concatenate([[0, 1, 2, len(u)] for u in units]),
        text_start=3 * np.arange(n + 1),
        unit_start=np.cumsum([0, *map(len, units)]),
        edge_start=4 * np.arange(n + 1),
        aligned=np.arange(n) != n - 2,
        heldout=np.arange(n) == n - 1,
    )
    folder = tmp_path / "tokens-1"
    folder.mkdir()
    for name, dtype in _ARRAYS.items():
        np.save(folder / f"{name}.npy", np.asarray(arrays[name], dtype))
    return TokenIndex(folder)


def _same(a, b) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(a[:4], b[:4], strict=True) if x is not None)


@pytest.mark.parametrize("how", ["units", "times"])
def test_others_stay_as_they_are(index, how):
    changed = shuffled_index(index, how, 0)
    assert len(changed) == len(index)
    for i in (7, 8):
        assert _same(changed[i], index[i])
    assert all(np.array_equal(changed[i].text_ids, index[i].text_ids) for i in range(9))


def test_units_of_another(index):
    changed = shuffled_index(index, "units", 0)
    given = [changed[i].unit_ids[0] // 10 for i in range(7)]
    assert sorted(given) == list(range(7)) and all(g != i for i, g in enumerate(given))
    for i in range(7):
        assert np.array_equal(changed[i].unit_ids, index[given[i]].unit_ids)
        edges = changed[i].unit_edges
        assert edges[0] == 0 and edges[-1] == len(changed[i].unit_ids) and np.all(np.diff(edges) >= 0)


def test_two_makers_at_once(index, monkeypatch):
    """The second begins and ends while the first one writes."""
    whole, second = shutil.copytree, []

    def copy(*given, **how):
        made = whole(*given, **how)
        if not second:
            second.append(None)
            second.append(shuffled_index(index, "units", 0))
        return made

    monkeypatch.setattr(shutil, "copytree", copy)
    first = shuffled_index(index, "units", 0)
    assert all(_same(first[i], second[1][i]) for i in range(9))
    assert len(list(index.folder.parent.iterdir())) == 2  # and nothing half made


def test_times_at_random(index):
    changed = shuffled_index(index, "times", 0)
    assert all(np.array_equal(changed[i].unit_ids, index[i].unit_ids) for i in range(9))
    edges = [changed[i].unit_edges for i in range(7)]
    assert all(e[0] == 0 and e[-1] == 2 * i + 3 and np.all(np.diff(e) >= 0) for i, e in enumerate(edges))
    assert sum(not np.array_equal(e, index[i].unit_edges) for i, e in enumerate(edges)) >= 5


def test_it_is_kept_and_depends_on_the_seed(index):
    first, again, other = (shuffled_index(index, "units", seed) for seed in (0, 0, 1))
    assert first.folder == again.folder != other.folder
    assert set(index.folder.parent.iterdir()) == {index.folder, first.folder, other.folder}


def test_another_shuffle_is_named(index):
    with pytest.raises(ValueError, match="data.shuffle='words' is not one of '', units, times"):
        shuffled_index(index, "words", 0)
