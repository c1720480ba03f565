"""Log-likelihoods of token sequences, many in a row of the batch: what likelihood suites compare.

Sequences are packed into rows as training packs documents; attention keeps them apart, so a score does not depend on
what else is in the batch, but for rounding: equal sequences are scored once, so that they tie. Only what is no number
passes through the zeros of attention: such a row is scored again, one by one. The loss is that of training, with a sum
for each sequence in the place of one for each objective, and sharded as it is.

N sequences, B rows, T places of a row.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from jaxslm.data.packing import pack

ROUND = 128  # a row longer than the context has a multiple of so many places


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
      rows: B, over all processes. context: T; longer sequences make all rows as long as they need.
    """

    def __init__(
        self,
        make_sums: Callable[[int], Callable[[Any, Any], Any]],
        place: Callable[[dict[str, np.ndarray]], Any],
        *,
        rows: int,
        context: int,
        process_index: int = 0,
        process_count: int = 1,
    ):
        self._make_sums, self._place = make_sums, place
        self._rows, self.context = rows, context
        self._mine = slice(rows // process_count * process_index, rows // process_count * (process_index + 1))
        self._compiled: dict[int, Callable[[Any, Any], Any]] = {}

    def batches(self, sequences: Sequence[Tokens], *, apart: bool = False) -> "Batches":
        """The sequences in batches, to score again and again while a model is trained. apart: each in its own row."""
        different: dict[tuple[bytes, bytes], int] = {}
        number_N = np.array([different.setdefault(s.key, len(different)) for s in sequences])
        sequences = [sequences[i] for i in np.unique(number_N, return_index=True)[1]]
        lengths = np.array([len(s.ids) - 1 for s in sequences])
        longest = int(lengths.max())
        places = self.context if longest <= self.context else -(-longest // ROUND) * ROUND
        order, row_start = pack(np.full_like(lengths, places) if apart else lengths, places)
        rows = [order[a:b] for a, b in zip(row_start[:-1], row_start[1:], strict=True)]
        in_batches = [rows[i : i + self._rows] for i in range(0, len(rows), self._rows)]
        return Batches(sequences, number_N, in_batches, self._rows, places, max(map(len, rows)))

    def __call__(self, model: Any, batches: "Batches", *, progress: str = "") -> np.ndarray:
        """Sums of log-likelihoods of the scored ids, float64 [N]: NaN or -inf as the model gives them."""
        slots = batches.rows * batches.most
        if slots not in self._compiled:
            self._compiled[slots] = jax.jit(self._make_sums(slots))
        found = np.zeros(len(batches.sequences))
        waiting = None  # the next batch is made while the device computes
        shown = tqdm(batches, total=len(batches), unit=" batches", desc=progress, disable=not progress)
        for members, batch in shown:
            mine = {name: values[self._mine] for name, values in batch.items()}
            sums = self._compiled[slots](model, self._place(mine))["nll_O"]
            if waiting:
                self._take(found, *waiting)
            waiting = members, sums
        self._take(found, *waiting)
        lost = np.flatnonzero(~np.isfinite(found))
        if len(lost) and batches.most > 1:
            found[lost] = self(model, self.batches([batches.sequences[i] for i in lost], apart=True))
        return found[batches.number_N]

    @staticmethod
    def _take(found: np.ndarray, members: np.ndarray, nll_O: jax.Array) -> None:
        nll_O = np.asarray(jax.device_get(nll_O), np.float64)
        used = members >= 0
        found[members[used]] = -nll_O[used]


@dataclass(frozen=True)
class Batches:
    """Iterates over (sequence of each slot, -1 for none: [rows * most], batch); slot r * most + i is the i-th of row
    r. sequences: the different ones; number_N: which of them each of the N that were given is."""

    sequences: Sequence[Tokens]
    number_N: np.ndarray
    in_batches: list[list[np.ndarray]]
    rows: int
    places: int
    most: int

    def __len__(self) -> int:
        return len(self.in_batches)

    def __iter__(self) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
        for rows in self.in_batches:
            shape = (self.rows, self.places)
            batch = {name: np.zeros(shape, np.int32) for name in ("tokens", "targets", "segment_ids", "positions")}
            batch["loss_weights"], batch["objective"] = np.zeros(shape, np.float32), np.zeros(shape, np.int32)
            members = np.full(self.rows * self.most, -1)
            for r, row in enumerate(rows):
                at = 0
                for i, n in enumerate(row):
                    sequence = self.sequences[n]
                    here = (r, slice(at, at + len(sequence.ids) - 1))
                    batch["tokens"][here], batch["targets"][here] = sequence.ids[:-1], sequence.ids[1:]
                    batch["loss_weights"][here] = sequence.scored[1:]
                    batch["segment_ids"][here], batch["objective"][here] = i + 1, r * self.most + i
                    batch["positions"][here] = np.arange(len(sequence.ids) - 1)
                    members[r * self.most + i] = n
                    at += len(sequence.ids) - 1
            yield members, batch
