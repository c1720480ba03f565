"""Log-likelihoods of token sequences, many in a row of the batch: what likelihood suites compare.

Sequences of similar length are packed into rows that are no longer than they need, as training packs documents;
attention, whose cost grows with the row, keeps them apart, so a score does not depend on what else is in the batch, but
for rounding: equal sequences are scored once, so that they tie. Only what is no number passes through the zeros of
attention: such a row is scored again, one by one. The loss is that of training, with a sum for each sequence in the
place of one for each objective, and sharded as it is.

N sequences, B rows, T places of a row.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np
from tqdm import tqdm

from jaxslm.data.packing import pack
from jaxslm.nn.attention import QUERY_BLOCK

GROUPS = 6  # of sequences by length: each has a program of its own


@dataclass(frozen=True)
class Tokens:
    """ids: vocabulary ids [n], the first is given. scored: bool [n], whose log-likelihoods are summed."""

    ids: np.ndarray
    scored: np.ndarray

    @property
    def key(self) -> tuple[bytes, bytes]:
        return self.ids.tobytes(), self.scored.tobytes()


class Scorer:
    """Scores sequences with any parameters of one shape of model.

    Args:
      make_sums: n -> a function (model, batch) -> {"nll_O", "weight_O"} of n numbers each, see chunked_cross_entropy.
      place: a batch of this process's rows -> arrays over all devices.
      rows: B, of `context` places, over all processes; of shorter rows as many more, of longer ones as many.
      context: T in training.
      unit: rows have a multiple of so many places, and above QUERY_BLOCK of that, too: what kernels and shards take.
    """

    def __init__(
        self,
        make_sums: Callable[[int], Callable[[Any, Any], Any]],
        place: Callable[[dict[str, np.ndarray]], Any],
        *,
        rows: int,
        context: int,
        unit: int = 32,
        process_index: int = 0,
        process_count: int = 1,
    ):
        self._make_sums, self._place = make_sums, place
        self._rows, self.context, self._unit = rows, context, unit
        self._process_index, self._process_count = process_index, process_count
        self._compiled: dict[int, Callable[[Any, Any], Any]] = {}

    def batches(self, sequences: Sequence[Tokens], *, apart: bool = False) -> "Batches":
        """The sequences in batches, to score again and again while a model is trained. apart: each in its own row."""
        if not sequences:
            raise ValueError("there is no sequence to score")
        different: dict[tuple[bytes, bytes], int] = {}
        number_N = np.array([different.setdefault(s.key, len(different)) for s in sequences])
        sequences = [sequences[i] for i in np.unique(number_N, return_index=True)[1]]
        lengths = np.array([len(s.ids) - 1 for s in sequences])
        return Batches(
            sequences,
            number_N,
            [batch for group in _groups(-(-lengths // self._unit)) for batch in self._rows_of(lengths, group, apart)],
        )

    def _rows_of(self, lengths: np.ndarray, group: np.ndarray, apart: bool) -> list["Rows"]:
        """Batches of the sequences `group`, rows of one length."""
        longest = int(lengths[group].max())
        unit = self._unit if longest <= QUERY_BLOCK else math.lcm(self._unit, QUERY_BLOCK)
        places = -(-longest // unit) * unit
        order, row_start = pack(np.full(len(group), places) if apart else lengths[group], places)
        rows = [group[order[a:b]] for a, b in zip(row_start[:-1], row_start[1:], strict=True)]
        needed = -(-len(rows) // self._rows)
        n_batches = -(-needed // max(1, self.context // places))
        n_rows = self._rows * -(-needed // n_batches)
        most = max(map(len, rows))
        return [Rows(rows[i : i + n_rows], n_rows, places, most) for i in range(0, len(rows), n_rows)]

    def __call__(self, model: Any, batches: "Batches", *, progress: str = "") -> np.ndarray:
        """Sums of log-likelihoods of the scored ids, float64 [N]: NaN or -inf as the model gives them."""
        found = np.zeros(len(batches.sequences))
        waiting = None  # the next batch is made while the device computes
        shown = tqdm(batches, total=len(batches), unit=" batches", desc=progress, disable=not progress)
        for members, batch in shown:
            if len(members) not in self._compiled:
                self._compiled[len(members)] = jax.jit(self._make_sums(len(members)))
            mine = {name: self._mine(values) for name, values in batch.items()}
            sums = self._compiled[len(members)](model, self._place(mine))["nll_O"]
            if waiting:
                self._take(found, *waiting)
            waiting = members, sums
        self._take(found, *waiting)
        lost = np.flatnonzero(~np.isfinite(found))
        if len(lost) and any(batch.most > 1 for batch in batches.in_batches):
            found[lost] = self(model, self.batches([batches.sequences[i] for i in lost], apart=True))
        return found[batches.number_N]

    def _mine(self, values: np.ndarray) -> np.ndarray:
        """This process's rows."""
        n = len(values) // self._process_count
        return values[n * self._process_index : n * (self._process_index + 1)]

    @staticmethod
    def _take(found: np.ndarray, members: np.ndarray, nll_O: jax.Array) -> None:
        nll_O = np.asarray(jax.device_get(nll_O), np.float64)
        used = members >= 0
        found[members[used]] = -nll_O[used]


def _groups(places: np.ndarray) -> list[np.ndarray]:
    """Which sequences have rows of one length: of at most GROUPS lengths, such that rows of a sequence each have the
    fewest places in all. places: that each sequence needs, in units."""
    sizes, counts = np.unique(places, return_counts=True)
    below = np.concatenate([[0], np.cumsum(counts)])
    cuts = {0: (0, (0,))}  # sizes that have a group -> (places, the ends of the groups)
    for _ in range(min(GROUPS, len(sizes))):
        for end in range(len(sizes), 0, -1):
            found = [
                (cost + (below[end] - below[at]) * sizes[end - 1], (*ends, end))
                for at, (cost, ends) in cuts.items()
                if at < end
            ]
            cuts[end] = min([*found, *([cuts[end]] if end in cuts else [])])
    ends = cuts[len(sizes)][1]
    group = np.searchsorted(np.array([sizes[end - 1] for end in ends[1:]]), places)
    return [np.flatnonzero(group == g) for g in range(len(ends) - 1)]


class Rows(NamedTuple):
    """A batch: the sequences of each row; how many rows it has, some of which may be empty, of how many places each,
    and how many sequences a row has at most."""

    members: list[np.ndarray]
    n: int
    places: int
    most: int


@dataclass(frozen=True)
class Batches:
    """Iterates over (sequence of each slot, -1 for none: [rows * most], batch); slot r * most + i is the i-th of row
    r. sequences: the different ones; number_N: which of them each of the N that were given is."""

    sequences: Sequence[Tokens]
    number_N: np.ndarray
    in_batches: list[Rows]

    def __len__(self) -> int:
        return len(self.in_batches)

    def __iter__(self) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
        for rows in self.in_batches:
            shape = (rows.n, rows.places)
            batch = {name: np.zeros(shape, np.int32) for name in ("tokens", "targets", "segment_ids", "positions")}
            batch["loss_weights"], batch["objective"] = np.zeros(shape, np.float32), np.zeros(shape, np.int32)
            members = np.full(rows.n * rows.most, -1)
            for r, row in enumerate(rows.members):
                at = 0
                for i, n in enumerate(row):
                    sequence = self.sequences[n]
                    here = (r, slice(at, at + len(sequence.ids) - 1))
                    batch["tokens"][here], batch["targets"][here] = sequence.ids[:-1], sequence.ids[1:]
                    batch["loss_weights"][here] = sequence.scored[1:]
                    batch["segment_ids"][here], batch["objective"][here] = i + 1, r * rows.most + i
                    batch["positions"][here] = np.arange(len(sequence.ids) - 1)
                    members[r * rows.most + i] = n
                    at += len(sequence.ids) - 1
            yield members, batch
