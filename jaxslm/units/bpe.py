"""Byte-pair encoding over units: frequent sequences of units become one token.

Units are written as one character each, from the supplementary private use area U+F0000, where 65,534 characters mean
nothing else; sequences of them are what the `tokenizers` library merges. A model is bound to its inventory by hash.

Shape letters: U units, V tokens.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, trainers

_FIRST = 0xF0000
_MOST = 0xFFFE  # characters there
_VERSION = 1


@dataclass(frozen=True)
class Compression:
    """Of some sequences: units and tokens in all, and the share of the tokens that occur."""

    units: int
    tokens: int
    usage: float

    @property
    def ratio(self) -> float:
        """Units a token."""
        return self.units / max(self.tokens, 1)


class UnitBpe:
    """Token ids 0..size-1, of which the first n_units are the units themselves, so anything can be encoded."""

    def __init__(self, tokenizer: Tokenizer, n_units: int, inventory_sha256: str):
        self._tokenizer, self.n_units, self.inventory_sha256 = tokenizer, n_units, inventory_sha256

    @property
    def size(self) -> int:
        return self._tokenizer.get_vocab_size()

    def encode(self, ids_U: np.ndarray) -> np.ndarray:
        """Tokens, int32 [V], of deduplicated unit ids [U].

        Raises:
          ValueError: an id outside the inventory.
        """
        return np.asarray(self._tokenizer.encode(_characters(ids_U, self.n_units)).ids, np.int32)

    def decode(self, tokens_V: np.ndarray) -> np.ndarray:
        """Unit ids, int32 [U]: what `encode` was given.

        Raises:
          ValueError: a token that there is not.
        """
        tokens_V = np.asarray(tokens_V, np.int64)
        if tokens_V.size and not 0 <= tokens_V.min() <= tokens_V.max() < self.size:
            raise ValueError(
                f"tokens from {tokens_V.min()} to {tokens_V.max()} are not among the {self.size} of the model"
            )
        text = self._tokenizer.decode(tokens_V.tolist())
        return np.frombuffer(text.encode("utf-32-le"), "<i4").astype(np.int32) - _FIRST

    def compression(self, sequences: Iterable[np.ndarray]) -> Compression:
        n_units, n_tokens, used = 0, 0, set()
        for ids_U in sequences:
            tokens_V = self.encode(ids_U)
            n_units, n_tokens = n_units + len(ids_U), n_tokens + len(tokens_V)
            used.update(tokens_V.tolist())
        return Compression(n_units, n_tokens, len(used) / self.size)

    def save(self, path: str | Path) -> None:
        record = dict(
            version=_VERSION,
            inventory_sha256=self.inventory_sha256,
            n_units=self.n_units,
            tokenizer=json.loads(self._tokenizer.to_str()),
        )
        Path(path).write_text(json.dumps(record) + "\n")

    @classmethod
    def load(cls, path: str | Path, inventory_sha256: str) -> "UnitBpe":
        """Reads what `save` wrote.

        Raises:
          ValueError: another file, or one made for the units of another inventory.
        """
        try:
            record = json.loads(Path(path).read_text())
            if record["version"] != _VERSION:
                raise ValueError(f"version {record['version']} is not the {_VERSION} this release reads")
            made_for, n_units = record["inventory_sha256"], record["n_units"]
            tokenizer = Tokenizer.from_str(json.dumps(record["tokenizer"]))
        except Exception as error:  # the tokenizers library raises bare Exceptions
            raise ValueError(f"{path}: not a usable unit BPE ({error}); copy the file again or train it anew") from None
        if made_for != inventory_sha256:
            raise ValueError(
                f"{path}: made for the inventory {made_for[:12]}, but the units are of {inventory_sha256[:12]}; "
                "train one for these units"
            )
        return cls(tokenizer, n_units, made_for)


def train_unit_bpe(sequences: Iterable[np.ndarray], n_units: int, size: int, inventory_sha256: str) -> UnitBpe:
    """Learns merges on deduplicated unit ids until there are `size` tokens, or none that occur twice.

    Raises:
      ValueError: a size below the number of units, too many units, or an id outside the inventory.
    """
    if not n_units <= size:
        raise ValueError(f"{size} tokens cannot hold the {n_units} units; ask for more")
    if n_units > _MOST:
        raise ValueError(f"{n_units} units are more than the {_MOST} that unit BPE can write")
    alphabet = [chr(_FIRST + i) for i in range(n_units)]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.decoder = decoders.Fuse()
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, min_frequency=2, show_progress=False)
    tokenizer.train_from_iterator((_characters(ids_U, n_units) for ids_U in sequences), trainer)
    assert [tokenizer.token_to_id(unit) for unit in alphabet] == list(range(n_units))
    return UnitBpe(tokenizer, n_units, inventory_sha256)


def _characters(ids_U: Sequence[int] | np.ndarray, n_units: int) -> str:
    ids_U = np.asarray(ids_U, np.int64)
    if ids_U.size and not 0 <= ids_U.min() <= ids_U.max() < n_units:
        raise ValueError(f"unit ids from {ids_U.min()} to {ids_U.max()} are not among the {n_units} of the inventory")
    return (ids_U + _FIRST).astype("<i4").tobytes().decode("utf-32-le")
