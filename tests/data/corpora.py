"""A small corpus of ids for the data tests: no audio, word times that differ by utterance."""

import numpy as np

from jaxslm.data.records import Utterance, write_records
from jaxslm.units.alignment import Word
from jaxslm.units.inventory import UnitInventory
from jaxslm.units.units import UnitSequence

WORDS = "the old ferry left before anyone had bought a ticket so we walked along river".split()


def inventory(size: int = 40) -> UnitInventory:
    return UnitInventory(encoder="precomputed:test", layer=0, frame_rate=50.0, centroids=None, size=size)


def utterance(i: int, n_words: int, rng: np.random.Generator, units: UnitInventory, aligned: bool = True) -> Utterance:
    """`n_words` words of 0.1 to 0.5 s each, with units of 1 to 4 frames."""
    lengths = rng.uniform(0.1, 0.5, n_words)
    stops = np.cumsum(lengths)
    text = " ".join(rng.choice(WORDS, n_words))
    words = tuple(Word(w, float(b - n), float(b)) for w, n, b in zip(text.split(), lengths, stops, strict=True))
    durations, left = [], int(stops[-1] * 50)
    while left > 0:
        durations.append(min(left, int(rng.integers(1, 5))))
        left -= durations[-1]
    ids = np.cumsum(rng.integers(1, units.size, len(durations))) % units.size  # neighbours differ
    sequence = UnitSequence(ids, durations, 50.0)
    return Utterance(
        id=f"u{i:04d}", text=text, duration=float(stops[-1]), words=words if aligned else (),
        units={units.sha256: sequence}, split="heldout" if i % 10 == 9 else "train",
    )  # fmt: skip


def write_corpus(folder, n: int = 120, n_documents: int = 40, seed: int = 0) -> UnitInventory:
    """`n` spoken utterances of 1 to 60 words (every seventh without word times) and text documents of 5 to 300
    words.
    """
    rng, units = np.random.default_rng(seed), inventory()
    spoken = [utterance(i, int(rng.integers(1, 61)), rng, units, aligned=i % 7 != 3) for i in range(n)]
    documents = [
        Utterance(
            id=f"d{i}",
            text=" ".join(rng.choice(WORDS, int(rng.integers(5, 301)))),
            split="heldout" if i % 10 == 9 else "train",
        )
        for i in range(n_documents)
    ]
    write_records(folder, spoken + documents, inventories=[units], records_per_shard=64)
    return units
