"""Batches as a function of (seed, step): the same global batch for any number of hosts, workers and restarts.

B rows of the global batch, T context length.
"""

from collections.abc import Iterator, Mapping, Sequence

import grain
import numpy as np
from absl import flags

from jaxslm.data.layouts import LAYOUTS
from jaxslm.data.packing import PackedRows

Batch = dict[str, np.ndarray]


def training_batches(
    rows: Sequence[PackedRows],
    weights: Sequence[float],
    *,
    batch_size: int,
    first_step: int = 0,
    process_index: int = 0,
    process_count: int = 1,
    workers: int = 0,
) -> Iterator[Batch]:
    """Endless batches from `first_step` on: this process's rows of each.

    Rows of the objectives alternate in proportion to `weights`, so weights are shares of tokens.

    Args:
      rows: one source an objective.
      weights: share of each, positive.
      batch_size: B, over all processes; a multiple of `process_count`.
      workers: processes that make batches; 0 makes them in threads of this one.

    Returns:
      An iterator of dicts of arrays [B / process_count, T], with the contents of PackedRows.
    """
    if batch_size % process_count:
        raise ValueError(f"data.batch_size={batch_size} is no multiple of the {process_count} processes")
    mixed = grain.MapDataset.mix([grain.MapDataset.source(source) for source in rows], list(weights))
    here = mixed.batch(batch_size // process_count, drop_remainder=True)
    here = here[first_step * process_count + process_index :: process_count]
    if workers:
        if not flags.FLAGS.is_parsed():  # as in a notebook; Grain reads its flags when it starts processes
            flags.FLAGS.mark_as_parsed()
        options = grain.MultiprocessingOptions(num_workers=workers)
        return iter(here.to_iter_dataset(grain.ReadOptions(num_threads=0)).mp_prefetch(options))
    return iter(here.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=4)))


def heldout_batches(
    rows: PackedRows, *, batch_size: int, most: int, process_index: int = 0, process_count: int = 1
) -> Iterator[Batch]:
    """The first `most` batches of the first epoch, or as many as there are; the last is filled up with empty rows."""
    n_rows = len(rows.epoch(0).row_order)
    empty = {name: np.zeros_like(values) for name, values in rows[0].items()}
    share = batch_size // process_count
    for first in range(0, min(n_rows, most * batch_size), batch_size):
        mine = range(first + process_index * share, first + (process_index + 1) * share)
        batch = [rows[row] if row < n_rows else empty for row in mine]
        yield {name: np.stack([row[name] for row in batch]) for name in empty}


def mixture_shares(mixture: Mapping[str, float]) -> tuple[list[str], list[float]]:
    """Objectives with a positive weight, and their shares of the tokens (which sum to 1)."""
    if any(weight < 0 for weight in mixture.values()) or not sum(mixture.values()) > 0:
        raise ValueError(f"data.mixture needs weights of at least 0, one of them more: {dict(mixture)}")
    total = sum(mixture.values())
    used = {objective: weight / total for objective, weight in mixture.items() if weight > 0}
    return list(used), list(used.values())


def check_text(mixture: Mapping[str, float], tokenizer) -> None:
    """Raises ValueError if a tokenizer without text is given a mixture that asks for text."""
    names = [] if tokenizer.has_text else mixture_shares(mixture)[0]
    if wrong := [name for name in names if name in LAYOUTS and LAYOUTS[name].needs_text]:
        cure = " ".join(f"--config.data.mixture.{name}=0" for name in wrong)
        raise ValueError(
            f"data.mixture asks for {', '.join(wrong)}, and data.tokenizer='none' has no text: set data.tokenizer "
            f"('byte' needs no file), or leave speech alone in the mixture: {cure}"
        )


def check_codes(mixture: Mapping[str, float], codec: str) -> None:
    """Raises ValueError if a mixture asks for codes and no `codec` is named, or for two stages in one run."""
    stages = [name for name in mixture_shares(mixture)[0] if name in LAYOUTS and LAYOUTS[name].needs_codes]
    if len(stages) > 1:
        cure = " or ".join(f"--config.data.mixture.{name}=0" for name in stages)
        raise ValueError(
            f"data.mixture asks for {' and '.join(stages)}, which see crops of their own lengths: set {cure}"
        )
    if stages and not codec:
        raise ValueError(
            f"data.mixture asks for {stages[0]}, and data.codec is empty: name the folder of a codec, a workdir or of "
            "Hugging Face, by --config.data.codec=FOLDER; `python launch/train.py --config=configs/small_16k.py:tiny "
            "--workdir=runs/codec` trains a small one, for --config.data.codec=runs/codec"
        )
