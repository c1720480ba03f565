"""Every utterance of a prepared corpus as token ids in flat memory-mapped arrays: what layouts and packing read.

Records are made to be complete, this index to be fast: it holds ids and word edges only, so that planning an epoch is
array arithmetic and a training row costs microseconds. It is made once for a (corpus, tokenizer, unit inventory) and
cached. With the codes of a codec it is one of its own, which knows how long each unit lasts, too.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from jaxslm.acoustic.frames import FrameRates
from jaxslm.data.records import Records, Utterance
from jaxslm.locking import whole_folder
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
_CODED_ARRAYS = {"durations": np.int32, "n_unit_frames": np.int64, "code_start": np.int64}
_CODES = "codes.bin"  # written as it comes, as codes are most of the bytes
_CODED = "codes.json"


class EncodedUtterance(NamedTuple):
    """One utterance as ids.

    Attributes:
      text_ids: int32, ids of the text block.
      unit_ids: int32, unit indices from 0, deduplicated.
      text_edges, unit_edges: int32 [words + 1]; word w is ids[edges[w]:edges[w + 1]]. unit_edges is None without word
        times.
      complete: False for a piece of a longer document that goes on.
      durations, codes, rates: in an index with codes: frames of each unit, int32, and codes [T, Q], int32 or uint16, at
        these rates; T is 0 for an utterance without any.
    """

    text_ids: np.ndarray
    unit_ids: np.ndarray
    text_edges: np.ndarray
    unit_edges: np.ndarray | None
    complete: bool = True
    durations: np.ndarray | None = None
    codes: np.ndarray | None = None
    rates: FrameRates | None = None


class TokenIndex:
    """Random access to the EncodedUtterances of a folder that `build_token_index` made. Pickles as its path.

    rates: of units and codes; None in an index without codes.
    """

    def __init__(self, folder: Path):
        self.folder, self.rates = Path(folder), None
        coded = self.folder / _CODED
        if coded.exists():
            facts = json.loads(coded.read_text())
            self.rates = FrameRates(facts["unit_rate"], facts["code_rate"])
            codes = np.memmap(self.folder / _CODES, facts["dtype"], mode="r")
            self.codes = codes.reshape(-1, facts["codes_per_frame"])
        for name in (*_ARRAYS, *(_CODED_ARRAYS if self.rates else ())):
            setattr(self, name, np.load(self.folder / f"{name}.npy", mmap_mode="r", allow_pickle=False))

    def __reduce__(self):
        return TokenIndex, (self.folder,)

    def __len__(self) -> int:
        return len(self.aligned)

    def __getitem__(self, i: int) -> EncodedUtterance:
        edges = slice(self.edge_start[i], self.edge_start[i + 1])
        units = slice(self.unit_start[i], self.unit_start[i + 1])
        coded = {}
        if self.rates:
            codes = np.asarray(self.codes[self.code_start[i] : self.code_start[i + 1]])
            coded = dict(durations=np.asarray(self.durations[units]), codes=codes, rates=self.rates)
        return EncodedUtterance(
            np.asarray(self.text_ids[self.text_start[i] : self.text_start[i + 1]]),
            np.asarray(self.unit_ids[units]),
            np.asarray(self.text_edges[edges]),
            np.asarray(self.unit_edges[edges]) if self.aligned[i] else None,
            **coded,
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

    @property
    def n_frames(self) -> np.ndarray:
        """Frames of codes of each utterance, in an index with codes: int64 [N]."""
        return np.diff(self.code_start)


def build_token_index(
    records_folder: Path,
    tokenizer,
    inventory,
    cache: Path,
    *,
    codec: Mapping | None = None,
    progress: bool = True,
) -> TokenIndex:
    """Tokenizes every record and deals ids and units out to the words; reuses what an earlier call left in `cache`.

    Args:
      records_folder: a folder of records.py.
      tokenizer: see tokenizer.py; one without text leaves all text out.
      inventory: units.inventory.UnitInventory whose units the records carry.
      cache: where index folders are kept, named by the digest of what went in.
      codec: what `describe_codec` says of the one whose codes are to be in it.
    Raises:
      ValueError: no record has codes of the codec, or units or codes have another frame rate than the inventory and the
        codec.
    """
    records = Records(records_folder, inventory.sha256, codec["sha256"] if codec else "")
    parts = [SCHEMA, records.shards, tokenizer.sha256, inventory.sha256, *([codec["sha256"]] if codec else [])]
    made_from = json.dumps(parts, sort_keys=True)
    folder = Path(cache) / f"tokens-{hashlib.sha256(made_from.encode()).hexdigest()[:16]}"
    if not folder.exists():
        with whole_folder(folder) as new:
            _write(records, tokenizer, inventory, codec, new, progress)
    return TokenIndex(folder)


def _write(records: Records, tokenizer, inventory, codec: Mapping | None, folder: Path, progress: bool) -> None:
    arrays = _ARRAYS | (_CODED_ARRAYS if codec else {})
    columns = {name: [] for name in arrays}
    for name in ("text_start", "unit_start", "edge_start"):
        columns[name].append([0])
    codes = _CodesFile(folder, inventory, codec) if codec else None
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
        if codes:
            row["durations"] = [] if units is None else units.durations
            row["n_unit_frames"] = [np.sum(row["durations"], dtype=np.int64)]
            codes.add(utterance)
        for name, values in row.items():
            columns[name].append(np.asarray(values, arrays[name]))
        for start, of in (("text_start", "text_ids"), ("unit_start", "unit_ids"), ("edge_start", "text_edges")):
            columns[start].append([columns[start][-1][0] + len(row[of])])
    if codes:
        columns["code_start"] = [codes.close(records)]
    for name, dtype in arrays.items():
        parts = columns[name]
        np.save(folder / f"{name}.npy", np.concatenate(parts).astype(dtype) if parts else np.zeros(0, dtype))


class _CodesFile:
    """The codes of all utterances, one behind the other."""

    def __init__(self, folder: Path, inventory, codec: Mapping):
        self._folder, self._inventory, self._codec = folder, inventory, codec
        self._dtype = "<u2" if max(codec["codebook_sizes"]) <= 2**16 else "<i4"
        self._starts, self._file = [0], open(folder / _CODES, "wb")

    def add(self, utterance: Utterance) -> None:
        codes, units = utterance.codes.get(self._codec["sha256"]), utterance.units.get(self._inventory.sha256)
        for made, rate in ((units, self._inventory.frame_rate), (codes, self._codec["frame_rate"])):
            if made is not None and not np.isclose(made.frame_rate, rate):
                raise ValueError(
                    f"{utterance.id} has {made.frame_rate:g} frames a second where {rate:g} are said: prepare it again"
                )
        if codes is not None:
            assert codes.ids.shape[1] == len(self._codec["codebook_sizes"]), f"{utterance.id} lacks levels"
            self._file.write(codes.ids.astype(self._dtype).tobytes())
        self._starts.append(self._starts[-1] + (0 if codes is None else len(codes)))

    def close(self, records: Records) -> list[int]:
        """Where the codes of each utterance begin."""
        self._file.close()
        if not self._starts[-1]:
            raise ValueError(f"no utterance of {records.folder} has codes: data.sources need audio")
        facts = dict(unit_rate=self._inventory.frame_rate, code_rate=self._codec["frame_rate"], dtype=self._dtype)
        facts["codes_per_frame"] = len(self._codec["codebook_sizes"])
        (self._folder / _CODED).write_text(json.dumps(facts) + "\n")
        return self._starts
