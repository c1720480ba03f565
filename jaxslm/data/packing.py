"""Rows of the context length: which examples share a row is planned ahead, one epoch at a time.

A plan is a function of (seed, objective, epoch), so the k-th row of an objective can be made anywhere without iterating
to it. T context length, N examples, R rows.
"""

import dataclasses
import functools
import threading

import numpy as np

from jaxslm.data.draws import draw_bits, draw_order
from jaxslm.data.layouts import LAYOUTS
from jaxslm.data.segments import LayoutSettings, Segment
from jaxslm.data.token_index import EncodedUtterance, TokenIndex
from jaxslm.vocabulary import Vocabulary

_OPEN_ROWS = 256  # more would save little padding and keep short examples waiting for long
_ORDER, _SPANS, _ROWS = 1, 2, 3  # what a draw is for


def pack(lengths: np.ndarray, capacity: int) -> tuple[np.ndarray, np.ndarray]:
    """Best fit with a bounded number of open rows, in the given order.

    The free space of open rows is kept as the bits of one integer, so the tightest row that still fits is one shift and
    one lowest-bit away, whatever the number of rows.

    Args:
      lengths: tokens each example takes, all in 1..capacity: int [N].
      capacity: T.

    Returns:
      order: the examples row by row: int64 [N].
      row_start: row r holds order[row_start[r]:row_start[r + 1]]: int64 [R + 1].
    """
    rows: list[list[int]] = []
    open_rows: dict[int, list[int]] = {}  # free space -> rows that have it
    free_bits, n_open = 0, 0

    def take(free: int) -> int:
        nonlocal free_bits, n_open
        row = open_rows[free].pop()
        if not open_rows[free]:
            free_bits &= ~(1 << free)
        n_open -= 1
        return row

    for example, length in enumerate(lengths.tolist()):
        assert 0 < length <= capacity
        if fitting := free_bits >> length:
            free = length + (fitting & -fitting).bit_length() - 1
            row = take(free)
        else:
            if n_open == _OPEN_ROWS:
                take((free_bits & -free_bits).bit_length() - 1)  # the fullest row is closed
            row, free = len(rows), capacity
            rows.append([])
        rows[row].append(example)
        if free > length:
            open_rows.setdefault(free - length, []).append(row)
            free_bits |= 1 << (free - length)
            n_open += 1
    row_start = np.cumsum([0] + [len(row) for row in rows])
    return np.array([example for row in rows for example in row], np.int64), row_start


@dataclasses.dataclass(frozen=True)
class _Epoch:
    first_row: int  # rows of all epochs before
    examples: np.ndarray  # [N] into the objective's example table, row by row
    keys: np.ndarray  # [N] uint64, what each example's layout draws from
    row_start: np.ndarray  # [R + 1]
    row_order: np.ndarray  # [R]


class PackedRows:
    """All rows of one objective, epoch after epoch without end, by random access. Pickles cheaply; thread-safe.

    `rows[k]` is a dict of arrays [T]: tokens, targets, segment_ids, positions, objective int32, loss_weights float32.
    Targets are the next token of the same example; padding has segment 0 and weight 0.
    """

    def __init__(
        self,
        index: TokenIndex,
        vocabulary: Vocabulary,
        objective: str,
        *,
        objective_id: int,
        context_length: int,
        seed: int,
        settings: LayoutSettings,
        loss_weight: float = 1.0,
        heldout: bool = False,
    ):
        if objective not in LAYOUTS:
            raise ValueError(f"data.mixture names the objective {objective!r}; there are {sorted(LAYOUTS)}")
        self.index, self.vocabulary, self.objective, self.objective_id = index, vocabulary, objective, objective_id
        self.context_length, self.seed, self.settings, self.loss_weight = context_length, seed, settings, loss_weight
        self.layout = LAYOUTS[objective]
        split = np.asarray(index.heldout) == heldout
        self._make_examples(np.flatnonzero(split & self.layout.eligible(index)))
        self._lock = threading.Lock()
        self._first_rows = [0]
        self._epoch: tuple[int, _Epoch] | None = None

    def __getstate__(self):
        return {k: v for k, v in self.__dict__.items() if k not in ("_lock", "_epoch", "layout")}

    def __setstate__(self, state):
        self.__dict__.update(state, _lock=threading.Lock(), _epoch=None, layout=LAYOUTS[state["objective"]])

    def _make_examples(self, items: np.ndarray) -> None:
        """The example table: (item, piece) pairs. Documents longer than the context become several pieces, if the
        layout allows.
        """
        self._piece = self.context_length  # ids of a piece, where documents are cut
        if not self.layout.splits or not len(items):
            self._items, self._pieces, self._cut = items, np.zeros(len(items), np.int64), np.zeros(len(items), bool)
            return
        sizes = (self.index.n_text if self.layout.splits == "text" else self.index.n_units)[items]
        whole = self.layout.lengths(self.index, self.vocabulary, items[:1], np.zeros(1, np.uint64), self.settings)
        around = int(whole[0] - sizes[0])  # begin, end and modality marker; n ids take one place less
        self._piece = self.context_length + 1 - around
        n_pieces = -(-sizes // self._piece)
        self._items = np.repeat(items, n_pieces)
        self._pieces = np.arange(len(self._items)) - np.repeat(np.cumsum(n_pieces) - n_pieces, n_pieces)
        self._cut = np.repeat(n_pieces > 1, n_pieces)

    @functools.cached_property
    def n_fitting(self) -> int:
        """Examples of the first epoch that fit the context."""
        return len(self._fitting(0)[0])

    def _lengths(self, examples: np.ndarray, keys: np.ndarray) -> np.ndarray:
        """Places each example takes in a row: its ids less one, since the last id is only a target."""
        items, cut = self._items[examples], self._cut[examples]
        whole = self.layout.lengths(self.index, self.vocabulary, items, keys, self.settings) - 1
        left = whole - self._piece * self._pieces[examples]
        goes_on = left > self.context_length  # a piece with another behind it: begin and modality marker, but no end
        return np.where(cut, np.where(goes_on, self.context_length - 1, left), whole)

    def _fitting(self, epoch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(examples in the epoch's order, their keys, their lengths), without those longer than the context."""
        order = draw_order(len(self._items), self.seed, _ORDER, self.objective_id, epoch)
        keys = draw_bits(self.seed, _SPANS, self.objective_id, epoch, order)
        lengths = self._lengths(order, keys)
        fits = lengths <= self.context_length
        return order[fits], keys[fits], lengths[fits]

    def _plan(self, epoch: int, first_row: int) -> _Epoch:
        order, keys, lengths = self._fitting(epoch)
        packed, row_start = pack(lengths, self.context_length)
        if not len(packed):
            raise ValueError(
                f"objective {self.objective!r}: no utterance can be laid out in data.context_length="
                f"{self.context_length} tokens; give it data (asr, tts: speech with text; interleaved: speech with "
                "word times; text: text-only documents; coarse, fine: speech, with data.codec), raise the context "
                "length or drop it from data.mixture"
            )
        row_order = draw_order(len(row_start) - 1, self.seed, _ROWS, self.objective_id, epoch)
        return _Epoch(first_row, order[packed], keys[packed], row_start, row_order)

    def epoch(self, epoch: int) -> _Epoch:
        """The plan of one epoch; those before it are planned too, once, to know where it begins."""
        with self._lock:
            if self._epoch is None or self._epoch[0] != epoch:
                for e in range(min(epoch, len(self._first_rows) - 1), epoch + 1):
                    plan = self._plan(e, self._first_rows[e])
                    if e + 1 == len(self._first_rows):
                        self._first_rows.append(plan.first_row + len(plan.row_order))
                self._epoch = (epoch, plan)
            return self._epoch[1]

    def describe(self) -> str:
        """What the first epoch holds, in one line."""
        plan = self.epoch(0)
        used = self._lengths(plan.examples, plan.keys).sum()
        rows = len(plan.row_order)
        left_out = len(self._items) - len(plan.examples)
        full = used / rows / self.context_length
        line = f"{self.objective}: {len(plan.examples)} examples in {rows} rows, {full:.0%} full"
        return line + (
            f"; {left_out} longer than data.context_length={self.context_length} left out" if left_out else ""
        )

    def __len__(self) -> int:
        return 2**40  # without end, as far as mixing is concerned

    def _locate(self, row: int) -> tuple[_Epoch, int]:
        epoch = int(np.searchsorted(self._first_rows, row, side="right")) - 1
        plan = self.epoch(epoch)
        while row >= plan.first_row + len(plan.row_order):
            epoch += 1
            plan = self.epoch(epoch)
        return plan, int(plan.row_order[row - plan.first_row])

    def _example(self, example: int) -> EncodedUtterance:
        utterance = self.index[self._items[example]]
        if not self._cut[example]:
            return utterance
        first = int(self._pieces[example]) * self._piece
        piece = slice(first, first + self._piece)
        if self.layout.splits == "text":
            complete = piece.stop >= len(utterance.text_ids)
            return utterance._replace(text_ids=utterance.text_ids[piece], complete=complete)
        complete = piece.stop >= len(utterance.unit_ids)
        return utterance._replace(unit_ids=utterance.unit_ids[piece], complete=complete)

    def segments(self, row: int) -> list[list[Segment]]:
        """The examples of a row as their layouts made them."""
        plan, r = self._locate(row)
        where = range(plan.row_start[r], plan.row_start[r + 1])
        return [
            self.layout.build(self._example(plan.examples[i]), self.vocabulary, plan.keys[i], self.settings)
            for i in where
        ]

    def __getitem__(self, row: int) -> dict[str, np.ndarray]:
        length = self.context_length
        out = {name: np.zeros(length, np.int32) for name in ("tokens", "targets", "segment_ids", "positions")}
        out["loss_weights"] = np.zeros(length, np.float32)
        out["objective"] = np.full(length, self.objective_id, np.int32)
        at = 0
        for number, segments in enumerate(self.segments(row)):
            ids = np.concatenate([segment.ids for segment in segments])
            weights = np.concatenate([np.full(len(segment.ids), segment.loss_weight) for segment in segments])
            here = slice(at, at + len(ids) - 1)
            assert here.stop <= length, "a layout gave more ids than its lengths said"
            out["tokens"][here], out["targets"][here] = ids[:-1], ids[1:]
            out["loss_weights"][here] = weights[1:] * self.loss_weight
            out["segment_ids"][here] = number + 1
            out["positions"][here] = np.arange(len(ids) - 1)
            at = here.stop
        return out
