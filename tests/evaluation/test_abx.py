import itertools

import numpy as np
import pytest

from jaxslm.evaluation import abx
from jaxslm.evaluation.abx import Item, abx_errors, dtw, dtw_distances, read_items

HEADER = "#file onset offset #phone prev-phone next-phone speaker\n"


def _angle(a, b) -> float:
    if not a.any() or not b.any():
        return float(a.any() or b.any())
    return np.arccos(np.clip(a @ b / np.linalg.norm(a) / np.linalg.norm(b), -1, 1)) / np.pi


def _warped(costs: np.ndarray) -> float:
    """Fills the table a cell at a time and walks back."""
    sums = np.zeros_like(costs)
    for i, j in np.ndindex(costs.shape):
        before = [sums[i - di, j - dj] for di, dj in ((1, 1), (0, 1), (1, 0)) if i >= di and j >= dj]
        sums[i, j] = costs[i, j] + (min(before) if before else 0)
    i, j = costs.shape[0] - 1, costs.shape[1] - 1
    steps = 1
    while i or j:
        ways = [(i - 1, j - 1), (i, j - 1), (i - 1, j)]
        i, j = min((way for way in ways if min(way) >= 0), key=sums.__getitem__)
        steps += 1
    return sums[-1, -1] / steps


def _distance(a, b) -> float:
    if a.ndim == 1:
        k = int(max(a.max(), b.max())) + 1
        a, b = np.eye(k)[a], np.eye(k)[b]
    return _warped(np.array([[_angle(x, y) for y in b] for x in a], np.float64))


@pytest.mark.parametrize("kind", ["features", "units", "zeros"])
def test_distances_are_those_of_a_loop(kind):
    rng = np.random.default_rng(0)
    if kind == "units":
        items = [rng.integers(0, 3, rng.integers(1, 9)) for _ in range(24)]
    else:
        items = [rng.normal(size=(rng.integers(1, 9), 5)) for _ in range(24)]
    if kind == "zeros":
        items = [item * (rng.random((len(item), 1)) < 0.5) for item in items]
    left, right = zip(*itertools.product(items, items), strict=True)
    expected = [_distance(a, b) for a, b in zip(left, right, strict=True)]
    np.testing.assert_allclose(dtw_distances(left, right), expected, atol=1e-6)


def test_batches_do_not_change_distances(monkeypatch):
    rng = np.random.default_rng(1)
    items = [rng.normal(size=(n, 4)) for n in (3, 9, 1, 6)]
    left, right = zip(*itertools.product(items, items), strict=True)
    expected = dtw_distances(left, right)
    monkeypatch.setattr(abx, "_CELLS", 60)
    np.testing.assert_allclose(dtw_distances(left, right), expected, atol=1e-6)


def test_the_path_is_the_mean_of_the_cells_it_crosses():
    costs = np.array([[[1, 9, 9], [2, 9, 9], [9, 3, 4]]], float)
    assert dtw(costs, np.array([3]), np.array([3])) == (1 + 2 + 3 + 4) / 4
    assert dtw(costs, np.array([2]), np.array([1])) == (1 + 2) / 2


def _brute(items: list[Item], frames: dict, mode: str) -> float:
    """One triplet at a time, and averages by the book."""
    rows: dict[tuple, dict[tuple, list]] = {}
    for a, b, x in itertools.product(items, items, items):
        same_speakers = a.speaker == x.speaker if mode == "within" else a.speaker != x.speaker
        if a is x or not (a.context == b.context == x.context and a.phone == x.phone != b.phone):
            continue
        if a.speaker != b.speaker or not same_speakers:
            continue
        xa, xb = _distance(frames[x], frames[a]), _distance(frames[x], frames[b])
        wrong = 0.5 if abs(xa - xb) < 1e-9 else float(xa > xb)
        key = (a.phone, b.phone), a.speaker
        rows.setdefault(key, {}).setdefault((a.context, x.speaker), []).append(wrong)
    by_pair: dict[tuple, list] = {}
    for (pair, _), cells in rows.items():
        by_pair.setdefault(pair, []).append(np.mean([np.mean(cell) for cell in cells.values()]))
    return float(np.mean([np.mean(speakers) for speakers in by_pair.values()]))


def _corpus(kind: str):
    """Items of three phones, two contexts and three speakers, unevenly many, in one file a speaker."""
    rng = np.random.default_rng(3)
    phones = {"a": 0, "e": 1, "o": 2}
    items, files = [], {}
    for speaker in ("s0", "s1", "s2"):
        at, parts = 0, []
        for context, phone in itertools.product(("n+d", "t+k"), phones):
            for _ in range(rng.integers(0, 4)):
                n = int(rng.integers(2, 6))
                items.append(Item(speaker, at / 50, (at + n + 1) / 50, phone, context, speaker))
                parts.append(0.9 * np.eye(4)[phones[phone]] + rng.normal(scale=0.5, size=(n, 4)))
                at += n
        frames = np.concatenate(parts)
        files[speaker] = frames if kind == "features" else frames.argmax(axis=1)
    return items, files


@pytest.mark.parametrize("kind", ["features", "units"])
def test_errors_are_those_of_all_triplets(kind):
    items, files = _corpus(kind)
    errors = abx_errors(items, files, 50.0)
    assert errors["items"] == len(items)
    frames = {item: files[item.file][round(50 * item.onset) : round(50 * item.offset) - 1] for item in items}
    tolerance = 1e-6 if kind == "features" else 0.02  # direction decides the path where units leave a choice
    for mode in ("within", "across"):
        assert 0 < errors[mode] < 0.5
        assert errors[mode] == pytest.approx(_brute(items, frames, mode), abs=tolerance)


def test_groups_are_sampled_by_the_seed():
    items, files = _corpus("features")
    few = [abx_errors(items, files, 50.0, group_size=2, across_speakers=1, seed=seed) for seed in (0, 0, 1)]
    assert few[0] == few[1] != few[2]


def test_what_has_no_triplet_has_no_error():
    frames = {"f": np.ones((50, 2))}
    items = [Item("f", 0, 0.2, "a", "n+d", "s"), Item("f", 0.3, 0.5, "e", "n+d", "s"), Item("g", 0, 1, "a", "n+d", "s")]
    assert abx_errors(items, frames, 50.0) == {"within": None, "across": None, "items": 2}


def test_item_files_are_read(tmp_path):
    path = tmp_path / "a.item"
    path.write_text(HEADER + "2107 0.3225 0.5225 n ae d 8193\n\n42 0. 0.25 q n l 2222\n")
    assert read_items(path) == [
        Item("2107", 0.3225, 0.5225, "n", "ae+d", "8193"),
        Item("42", 0.0, 0.25, "q", "n+l", "2222"),
    ]


@pytest.mark.parametrize(
    "text, message",
    [
        (HEADER + "2107 0.1 0.2 n ae d\n", "a.item:2: '2107 0.1 0.2 n ae d' is not `file onset"),
        (HEADER + "2107 0.1 x n ae d 1\n", "a.item:2"),
        (HEADER, "holds no items"),
        (None, "no such item file"),
    ],
)
def test_bad_item_files_are_named(tmp_path, text, message):
    path = tmp_path / "a.item"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_items(path)


def test_errors_are_those_of_libriabx2(tmp_path):
    """What zerospeech-libriabx2 0.9.8 says of the same files (within context, 10 items a group, 7 speakers of X)."""
    rng = np.random.default_rng(7)
    lines, files, means = [HEADER.strip()], {}, rng.normal(size=(5, 8))
    for speaker in range(8):
        parts, at = [], 0
        for context, phone in itertools.product(range(6), range(5)):
            for _ in range(rng.integers(0, 7)):
                n = int(rng.integers(3, 12))
                parts.append(means[phone] + 0.4 * rng.normal(size=8) + 1.6 * rng.normal(size=(n, 8)))
                times = f"{at * 0.02:.4f} {(at + n) * 0.02 + 0.013:.4f}"
                lines.append(f"f{speaker} {times} p{phone} c{context} d{context} s{speaker}")
                at += n
        files[f"f{speaker}"] = np.concatenate(parts).astype(np.float32)
    (tmp_path / "a.item").write_text("\n".join(lines) + "\n")
    errors = abx_errors(read_items(tmp_path / "a.item"), files, 50.0, across_speakers=7)
    assert errors == {
        "within": pytest.approx(0.18455184996128082, abs=1e-6),
        "across": pytest.approx(0.18218635022640228, abs=1e-6),
        "items": 676,
    }
