"""ABX: is a phone nearer to another of its kind than to another phone in the same context? As Libri-Light measures it.

An item is a stretch of speech around one phone. For items A and X of a phone and B of another, all between the same two
neighbours, the error is the share of (A, B, X) in which X is nearer to B (a tie counts half). A and B are of one
speaker; X is of the same ("within") or of another ("across"). Errors are averaged over contexts (and speakers of X),
then over speakers, then over pairs of phones (Libri-Light, Kahn et al. 2020; facebookresearch/libri-light, eval/).

Shape letters: T frames, S frames of an item (L and M in a pair), D features, P pairs of items, N items.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

_CELLS = 1 << 24  # numbers that a batch of pairs may hold

Group = tuple[str, str, str]  # context, speaker, phone


@dataclass(frozen=True)
class Item:
    """Seconds `onset` to `offset` of a file; `context` is both neighbours of the phone."""

    file: str
    onset: float
    offset: float
    phone: str
    context: str
    speaker: str


def read_items(path: str | Path) -> list[Item]:
    """Lines `file onset offset phone previous next speaker` behind a header (the .item files of ZeroSpeech).

    Raises:
      ValueError: no such file, or a malformed line; names it.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such item file; give one in the form of ZeroSpeech's .item files")
    items = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if number == 1 or not line.strip():
            continue
        try:
            file, onset, offset, phone, before, after, speaker = line.split()
            items.append(Item(file, float(onset), float(offset), phone, f"{before}+{after}", speaker))
        except ValueError as error:
            raise ValueError(
                f"{path}:{number}: {line!r} is not `file onset offset phone previous next speaker`; correct the line"
            ) from error
    if not items:
        raise ValueError(f"{path}: holds no items below its header line")
    return items


def abx_errors(
    items: Sequence[Item],
    features: Mapping[str, np.ndarray],
    frame_rate: float,
    *,
    group_size: int = 10,
    across_speakers: int = 5,
    seed: int = 0,
    progress: bool = False,
) -> dict[str, float | None]:
    """ABX errors "within" and "across" speakers, in 0 to 1 (chance is .5), None where no triplet exists, and how many
    "items" were used.

    The distance of two items is the mean angle between frames, over pi, along the dynamic time warping path; unit ids
    stand for one-hot frames.

    Args:
      features: by the file names of the items: float [T, D], or unit ids, int [T].
      group_size: of a phone in a context by a speaker at most so many items are used, drawn by the seed; more take
        longer and are more exact. across_speakers: the same for the speakers of X. The defaults are Libri-Light's.
    """
    rng = np.random.default_rng(seed)
    contexts: dict[str, dict[tuple[str, str], list[np.ndarray]]] = defaultdict(lambda: defaultdict(list))
    for item in items:
        if (frames := _frames_of(item, features.get(item.file), frame_rate)) is not None:
            contexts[item.context][item.speaker, item.phone].append(frames)
    used = sum(len(group) for groups in contexts.values() for group in groups.values())
    scores = {"within": defaultdict(list), "across": defaultdict(list)}
    for groups in tqdm(contexts.values(), desc="ABX", unit=" contexts", disable=not progress):
        sampled = {key: _draw(group, group_size, rng) for key, group in sorted(groups.items())}
        for mode, key, error in _context_errors(sampled, across_speakers, rng):
            scores[mode][key].append(error)
    return {mode: _average(found) for mode, found in scores.items()} | {"items": used}


def _frames_of(item: Item, frames: np.ndarray | None, frame_rate: float) -> np.ndarray | None:
    """The item's frames [S] or [S, D]; None if it has none."""
    if frames is None:
        return None
    first = max(0, int(np.ceil(frame_rate * item.onset - 0.5)))
    last = min(len(frames), int(np.floor(frame_rate * item.offset - 0.5)))
    return frames[first:last] if last > first else None


def _draw(group: list, size: int, rng: np.random.Generator) -> list:
    return group if len(group) <= size else [group[i] for i in rng.choice(len(group), size, replace=False)]


def _context_errors(
    groups: Mapping[tuple[str, str], list[np.ndarray]], across_speakers: int, rng: np.random.Generator
) -> Iterator[tuple[str, tuple[str, str, str], float]]:
    """(mode, (speaker, phone of A and X, phone of B), error) of every such choice in one context."""
    triples = []  # (mode, key, A, B, X), as keys of groups
    for speaker, a in groups:
        others = [b for other, b in groups if other == speaker and b != a]
        speakers = [(other, phone) for other, phone in groups if phone == a and other != speaker] if others else []
        for b in others:
            if len(groups[speaker, a]) > 1:
                triples.append(("within", (speaker, a, b), (speaker, a), (speaker, b), (speaker, a)))
        for x in _draw(speakers, across_speakers, rng):
            triples += [("across", (speaker, a, b), (speaker, a), (speaker, b), x) for b in others]
    wanted = sorted({(x, other) for _, _, a, b, x in triples for other in (a, b)})
    distances = _group_distances(groups, wanted)
    for mode, key, a, b, x in triples:
        yield mode, key, abx_error(distances[x, a], distances[x, b], same=x == a)


def abx_error(xa: np.ndarray, xb: np.ndarray, same: bool) -> float:
    """Share of triplets in which X is nearer to B, from distances X to A [X, A] and X to B [X, B]; ties count half.

    same: A and X are the same items, and none is compared with itself.
    """
    correct_XxAxB = (xa[:, :, None] < xb[:, None, :]) + 0.5 * (xa[:, :, None] == xb[:, None, :])
    if same:
        return 1 - float(correct_XxAxB[~np.eye(len(xa), dtype=bool)].mean())
    return 1 - float(correct_XxAxB.mean())


def _group_distances(groups: Mapping, wanted: Sequence[tuple]) -> dict[tuple, np.ndarray]:
    """[items of x, items of y] for each pair (x, y) of groups."""
    left, right = [], []
    for x, y in wanted:
        for i, item in enumerate(groups[x]):
            # Within a group the distance is taken once, from the earlier item: where ties leave a choice of paths,
            # their lengths depend on the direction.
            left += [groups[y][j] if x == y and j < i else item for j in range(len(groups[y]))]
            right += [item if x == y and j < i else other for j, other in enumerate(groups[y])]
    flat, at, found = dtw_distances(left, right), 0, {}
    for x, y in wanted:
        shape = len(groups[x]), len(groups[y])
        found[x, y] = flat[at : at + shape[0] * shape[1]].reshape(shape)
        at += shape[0] * shape[1]
    return found


def dtw_distances(left: Sequence[np.ndarray], right: Sequence[np.ndarray]) -> np.ndarray:
    """Distance [P] of each pair left[p], right[p] of items, [L, D] and [M, D] or ids [L] and [M]: the least sum of
    angles over pi along a warping path, over the length of that path (of equal ones the diagonal step is taken, then
    the one along `right`).
    """
    sizes = [(len(a), len(b)) for a, b in zip(left, right, strict=True)]
    order = sorted(range(len(sizes)), key=sizes.__getitem__)  # pairs of like sizes side by side: little padding
    distances_P = np.zeros(len(sizes))
    at = 0
    while at < len(order):
        batch, cells = [], 0
        longest = [0, 0]
        for p in order[at:]:
            longest = [max(pair) for pair in zip(longest, sizes[p], strict=True)]
            width = left[p].shape[1] if left[p].ndim == 2 else 1
            cells = (len(batch) + 1) * max(longest[0] * longest[1], sum(longest) * width)
            if batch and cells > _CELLS:
                break
            batch.append(p)
        at += len(batch)
        costs_PxLxM = _angles(*(_stack([side[p] for p in batch]) for side in (left, right)))
        distances_P[batch] = dtw(costs_PxLxM, *np.array([sizes[p] for p in batch]).T)
    return distances_P


def _stack(items: list[np.ndarray]) -> np.ndarray:
    padded = np.zeros((len(items), max(map(len, items)), *items[0].shape[1:]), items[0].dtype)
    for row, item in zip(padded, items, strict=True):
        row[: len(item)] = item
    return padded


def _angles(a_PxLxD: np.ndarray, b_PxMxD: np.ndarray) -> np.ndarray:
    """Angle over pi between frames, [P, L, M] float32; a frame of zeros is at 1 from all others and at 0 from another.

    Ids [P, L] and [P, M]: 0 if they are equal, else 1/2.
    """
    if a_PxLxD.ndim == 2:
        return np.where(a_PxLxD[:, :, None] == b_PxMxD[:, None, :], 0, 0.5).astype(np.float32)
    (a_PxLxD, zero_PxL), (b_PxMxD, zero_PxM) = _unit_length(a_PxLxD), _unit_length(b_PxMxD)
    angles_PxLxM = np.arccos(np.clip(a_PxLxD @ b_PxMxD.transpose(0, 2, 1), -1, 1)) / np.pi
    zeros_PxLxM = zero_PxL[:, :, None].astype(int) + zero_PxM[:, None, :]
    return np.where(zeros_PxLxM == 2, 0, np.where(zeros_PxLxM == 1, 1, angles_PxLxM)).astype(np.float32)


def _unit_length(frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    norms = np.linalg.norm(frames, axis=-1, keepdims=True)
    return frames / np.where(norms == 0, 1, norms), norms[..., 0] == 0


def dtw(costs_PxLxM: np.ndarray, lengths_P: np.ndarray, widths_P: np.ndarray) -> np.ndarray:
    """Mean cost along the cheapest path from the first cell to cell (length - 1, width - 1) of each matrix, [P].

    All matrices are filled at once, a diagonal at a time; a cell keeps the sum and the length of the path to it.
    """
    n, rows, columns = costs_PxLxM.shape
    # Cell (i, j) is kept at [i + 1] of diagonal i + j, so that all three ways into it lie in the two diagonals before.
    sums = np.full((3, rows + 1, n), np.inf)
    steps = np.zeros((3, rows + 1, n), np.int32)
    result_P = np.zeros(n)
    for diagonal in range(rows + columns - 1):
        now, before, earlier = (diagonal - k for k in range(3))
        i = np.arange(max(0, diagonal - columns + 1), min(rows, diagonal + 1))
        cost = costs_PxLxM[:, i, diagonal - i].T
        ways = np.stack([sums[earlier % 3, i], sums[before % 3, i + 1], sums[before % 3, i]])  # diagonal, left, up
        lengths = np.stack([steps[earlier % 3, i], steps[before % 3, i + 1], steps[before % 3, i]])
        best = np.argmin(ways, axis=0)[None]  # the first of equal ones
        sums[now % 3], steps[now % 3] = np.inf, 0
        if diagonal == 0:
            sums[0, 1], steps[0, 1] = cost[0], 1
        else:
            sums[now % 3, i + 1] = cost + np.take_along_axis(ways, best, axis=0)[0]
            steps[now % 3, i + 1] = 1 + np.take_along_axis(lengths, best, axis=0)[0]
        (done,) = np.nonzero(lengths_P + widths_P - 2 == diagonal)
        result_P[done] = sums[now % 3, lengths_P[done], done] / steps[now % 3, lengths_P[done], done]
    return result_P


def _average(scores: Mapping[tuple[str, str, str], Sequence[float]]) -> float | None:
    """Over contexts, then over speakers, then over pairs of phones."""
    pairs = defaultdict(list)
    for (_, a, b), errors in scores.items():
        pairs[a, b].append(np.mean(errors))
    return float(np.mean([np.mean(errors) for errors in pairs.values()])) if pairs else None
