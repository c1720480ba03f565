"""Deliberate failures: the training data with what ties speech to text torn apart, and nothing else.

A gain that survives this was not one of pairing: what interleaving teaches must vanish (run F of BUILD_NOTES.md).
"""

import hashlib
import shutil

import numpy as np

from jaxslm.data.draws import draw_integers, draw_order
from jaxslm.data.token_index import TokenIndex
from jaxslm.locking import whole_folder

SHUFFLES = {
    "units": "each utterance has the units of another, its words dealt out to them evenly",
    "times": "each utterance has its own units, its words begin at random places of them",
}


def shuffled_index(index: TokenIndex, how: str, seed: int) -> TokenIndex:
    """The index with the word-timed training utterances changed as SHUFFLES says; kept beside `index`.

    Held-out utterances stay as they are. Raises ValueError for another `how`, or for an index with codes.
    """
    if how not in SHUFFLES:
        raise ValueError(f"data.shuffle={how!r} is not one of '', {', '.join(SHUFFLES)}")
    if index.rates:
        raise ValueError("data.shuffle is for text and units: leave it empty where data.codec is set")
    name = hashlib.sha256(f"{index.folder.name} {how} {seed} 1".encode()).hexdigest()[:16]
    folder = index.folder.with_name(f"shuffled-{name}")
    if not folder.exists():
        with whole_folder(folder) as new:
            shutil.copytree(index.folder, new, dirs_exist_ok=True)
            arrays = _of_others(index, seed) if how == "units" else {"unit_edges": _random_edges(index, seed)}
            for array, values in arrays.items():
                np.save(new / f"{array}.npy", values)
    return TokenIndex(folder)


def _changed(index: TokenIndex) -> np.ndarray:
    return np.flatnonzero(np.asarray(index.aligned) & ~np.asarray(index.heldout))


def _of_others(index: TokenIndex, seed: int) -> dict[str, np.ndarray]:
    donors, changed = np.arange(len(index)), _changed(index)
    order = changed[draw_order(len(changed), seed)]
    donors[order] = np.roll(order, 1)  # a circle: none keeps its own
    units = [np.asarray(index.unit_ids[index.unit_start[d] : index.unit_start[d + 1]]) for d in donors]
    edges = np.array(index.unit_edges)
    for i in changed:
        here = slice(index.edge_start[i], index.edge_start[i + 1])
        edges[here] = np.round(np.linspace(0, len(units[i]), here.stop - here.start))
    starts = np.cumsum([0, *map(len, units)])
    ids = np.concatenate(units) if units else np.array(index.unit_ids)
    return {"unit_ids": ids, "unit_edges": edges, "unit_start": starts.astype(np.int64)}


def _random_edges(index: TokenIndex, seed: int) -> np.ndarray:
    edges = np.array(index.unit_edges)
    for i in _changed(index):
        here = slice(int(index.edge_start[i]) + 1, int(index.edge_start[i + 1]) - 1)  # the first and the last stay
        edges[here] = np.sort(draw_integers(0, int(index.n_units[i]), seed, i, np.arange(here.stop - here.start)))
    return edges
