"""Every utterance of a prepared corpus as token ids in flat memory-mapped arrays: what layouts and packing read.

Records are made to be complete, this index to be fast: it holds ids and word edges only, so that planning an epoch is
array arithmetic and a training row costs microseconds. It is made once for a (corpus, tokenizer, unit inventory) and
cached.
"""

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from jaxslm.data.records import Records
from jaxslm.units.units import unit_word_offsets

SCHEMA = 1
_ARRAYS = {
    "text_ids": np.int32,
    "unit_ids": np.int32,
    "text_edges": np.int32,
    "unit_edges": np.int32,
    "text_start": np.int64,
    "unit_start": np.int64,
    "edge_start": np.int64,
    "aligned": np.bool_,
    "heldout": np.bool_,
}


class EncodedUtterance(NamedTuple):
    """One utterance as ids.

    Attributes:
      text_ids: int32, ids of the text block.
      unit_ids: int32, unit indices from 0, deduplicated.
      text_edges, unit_edges: int32 [words + 1]; word w is ids[edges[w]:edges[w + 1]]. unit_edges is None without word
        times.
      complete: False for a piece of a longer document that goes on.
    """

    text_ids: np.ndarray
    unit_ids: np.ndarray
    text_edges: np.ndarray
    unit_edges: np.ndarray | None
    complete: bool = True


class TokenIndex:
    """Random access to the EncodedUtterances of a folder that `build_token_index` made. Pickles as its path."""

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        for name in _ARRAYS:
            setattr(self, name, np.load(self.folder / f"{name}.npy", mmap_mode="r", allow_pickle=False))

    def __reduce__(self):
        return TokenIndex, (self.folder,)

    def __len__(self) -> int:
        return len(self.aligned)

    def __getitem__(self, i: int) -> EncodedUtterance:
        edges = slice(self.edge_start[i], self.edge_start[i + 1])
        return EncodedUtterance(
            np.asarray(self.text_ids[self.text_start[i] : self.text_start[i + 1]]),
            np.asarray(self.unit_ids[self.unit_start[i] : self.unit_start[i + 1]]),
            np.asarray(self.text_edges[edges]),
            np.asarray(self.unit_edges[edges]) if self.aligned[i] else None,
        )

    @property
    def n_text(self) -> np.ndarray:
        """Text ids of each utterance: int64 [N]."""
        return np.diff(self.text_start)

    @property
    def n_units(self) -> np.ndarray:
        """Units of each utterance: int64 [N]."""
        return np.diff(self.unit_start)

    @property
    def n_words(self) -> np.ndarray:
        """Words of each utterance: int64 [N]."""
        return np.diff(self.edge_start) - 1


def build_token_index(records_folder: Path, tokenizer, inventory, cache: Path, *, progress: bool = True) -> TokenIndex:
    """Tokenizes every record and deals ids and units out to the words; reuses what an earlier call left in `cache`.

    Args:
      records_folder: a folder of records.py.
      tokenizer: see tokenizer.py; one without text leaves all text out.
      inventory: units.inventory.UnitInventory whose units the records carry.
      cache: where index folders are kept, named by the digest of what went in.
    """
    records = Records(records_folder, inventory.sha256)
    made_from = json.dumps([SCHEMA, records.shards, tokenizer.sha256, inventory.sha256], sort_keys=True)
    folder = Path(cache) / f"tokens-{hashlib.sha256(made_from.encode()).hexdigest()[:16]}"
    if not folder.exists():
        scratch = folder.with_name(f"{folder.name}.{os.getpid()}")
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        _write(records, tokenizer, inventory, scratch, progress)
        try:
            scratch.rename(folder)
        except OSError:  # another process was first; its index is the same
            shutil.rmtree(scratch)
    return TokenIndex(folder)


def _write(records: Records, tokenizer, inventory, folder: Path, progress: bool) -> None:
    columns = {name: [] for name in _ARRAYS}
    for name in ("text_start", "unit_start", "edge_start"):
        columns[name].append([0])
    bar = tqdm(range(len(records)), desc="tokenizing", unit="utt", disable=not progress, leave=False, mininterval=1.0)
    for i in bar:
        utterance = records[i]
        words = utterance.text.split() if tokenizer.has_text else []
        word_ids = tokenizer.encode_words(words)
        units = utterance.units.get(inventory.sha256)
        aligned = units is not None and len(utterance.words) == len(words) > 0
        no_edges = np.zeros(len(words) + 1, np.int32)
        row = {
            "text_ids": [token_id for ids in word_ids for token_id in ids],
            "unit_ids": [] if units is None else units.ids,
            "text_edges": np.cumsum([0] + [len(ids) for ids in word_ids]),
            "unit_edges": unit_word_offsets(units, utterance.words) if aligned else no_edges,
            "aligned": [aligned],
            "heldout": [utterance.split == "heldout"],
        }
        for name, values in row.items():
            columns[name].append(np.asarray(values, _ARRAYS[name]))
        for start, of in (("text_start", "text_ids"), ("unit_start", "unit_ids"), ("edge_start", "text_edges")):
            columns[start].append([columns[start][-1][0] + len(row[of])])
    for name, dtype in _ARRAYS.items():
        parts = columns[name]
        np.save(folder / f"{name}.npy", np.concatenate(parts).astype(dtype) if parts else np.zeros(0, dtype))
