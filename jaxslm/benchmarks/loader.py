"""Tokens a second from the token index to packed batches, interleaving included, against Grain's own streaming packer.

The peer lays the same utterances out with the same code and packs them as Grain does it, while they stream by
(`FirstFitPackIterDataset`): that stream cannot start at any step nor keep its order when workers change.
"""

import argparse
import itertools
import statistics
import tempfile
import time
from pathlib import Path

import grain
import numpy as np

from jaxslm.benchmarks.measure import report
from jaxslm.data.draws import draw_bits
from jaxslm.data.layouts import LAYOUTS
from jaxslm.data.loader import training_batches
from jaxslm.data.packing import PackedRows
from jaxslm.data.records import Utterance, write_records
from jaxslm.data.segments import LayoutSettings
from jaxslm.data.token_index import build_token_index
from jaxslm.tokenizer import load_tokenizer
from jaxslm.units.alignment import Word
from jaxslm.units.inventory import UnitInventory
from jaxslm.units.units import UnitSequence
from jaxslm.vocabulary import build_vocabulary

MIXTURE = {"text": 1 / 3, "speech": 1 / 3, "interleaved": 1 / 9, "asr": 1 / 9, "tts": 1 / 9}


def run(argv: list[str]) -> dict:
    """Measures both sides in turn, from nothing planned to the last of `--batches`; see `measure.report`."""
    parser = argparse.ArgumentParser(prog="bench.py loader")
    parser.add_argument("--utterances", type=int, default=20_000)
    parser.add_argument("--context_length", type=int, default=4096)
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--batches", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=0)
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        index, vocabulary = _corpus(Path(folder), args.utterances)
        ours, peer = [], []
        for _ in range(args.rounds):  # alternating, so that a change of the machine's speed meets both
            ours.append(_speed(_ours, index, vocabulary, args))
            peer.append(_speed(_peer, index, vocabulary, args))
    return report(
        "loader",
        ours=statistics.median(ours),
        peer=statistics.median(peer),
        unit="tokens/s that are not padding, planning included",
        shapes=vars(args) | {"mixture": MIXTURE},
        packages=("grain", "numpy"),
        runs={"ours": ours, "peer": peer},
    )


def _corpus(folder: Path, n: int):
    """`n` utterances of 15 to 60 words with word times and 25 Hz units, and as many text documents."""
    rng = np.random.default_rng(0)
    inventory = UnitInventory(encoder="precomputed:bench", layer=0, frame_rate=25.0, centroids=None, size=500)
    lexicon = ["".join(rng.choice(list("abcdefghijklmnopqrstuvwxyz"), rng.integers(2, 9))) for _ in range(5000)]

    def utterances():
        for i in range(n):
            words = [lexicon[j] for j in rng.integers(0, len(lexicon), rng.integers(15, 61))]
            times = np.cumsum(rng.uniform(0.15, 0.5, len(words) + 1))
            timed = tuple(Word(w, *map(float, times[k : k + 2])) for k, w in enumerate(words))
            ids = np.cumsum(rng.integers(1, 500, int(times[-1] * 25))) % 500
            units = {inventory.sha256: UnitSequence(ids, np.ones(len(ids)), 25.0)}
            yield Utterance(id=f"u{i}", text=" ".join(words), duration=float(times[-1]), words=timed, units=units)
        for i in range(n):
            words = [lexicon[j] for j in rng.integers(0, len(lexicon), rng.integers(20, 400))]
            yield Utterance(id=f"d{i}", text=" ".join(words))

    write_records(folder / "records", utterances(), inventories=[inventory])
    tokenizer = load_tokenizer("byte")
    index = build_token_index(folder / "records", tokenizer, inventory, folder, progress=False)
    return index, build_vocabulary(tokenizer, inventory.size, inventory.sha256)


def _speed(make, index, vocabulary, args) -> float:
    start = time.perf_counter()  # before anything is planned, shuffled or packed
    batches = itertools.islice(make(index, vocabulary, args), args.batches)
    tokens = sum(int((batch["segment_ids"] > 0).sum()) for batch in batches)
    return tokens / (time.perf_counter() - start)


def _rows(index, vocabulary, args) -> list[PackedRows]:
    options = dict(context_length=args.context_length, seed=0, settings=LayoutSettings())
    return [PackedRows(index, vocabulary, name, objective_id=i, **options) for i, name in enumerate(MIXTURE)]


def _ours(index, vocabulary, args):
    rows = _rows(index, vocabulary, args)
    return training_batches(rows, list(MIXTURE.values()), batch_size=args.batch_size, workers=args.workers)


class _Examples:
    """Examples of one objective as Grain's packer wants them: one dict of ids each."""

    def __init__(self, index, vocabulary, objective: str):
        self.index, self.vocabulary, self.build = index, vocabulary, LAYOUTS[objective].build
        self.items = np.flatnonzero(LAYOUTS[objective].eligible(index))

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, i: int) -> dict[str, np.ndarray]:
        segments = self.build(self.index[self.items[i]], self.vocabulary, int(draw_bits(0, i)), LayoutSettings())
        ids = np.concatenate([segment.ids for segment in segments]).astype(np.int32)
        return {"tokens": ids[:-1], "targets": ids[1:]}


def _peer(index, vocabulary, args):
    sources = [
        grain.MapDataset.source(_Examples(index, vocabulary, name)).seed(0).shuffle().repeat() for name in MIXTURE
    ]
    lengths = {"tokens": args.context_length, "targets": args.context_length}
    packed = [
        grain.experimental.FirstFitPackIterDataset(source.to_iter_dataset(), length_struct=lengths, num_packing_bins=32)
        for source in sources
    ]
    batches = grain.IterDataset.mix(packed, list(MIXTURE.values())).batch(args.batch_size)
    return ({"segment_ids": batch["tokens_segment_ids"]} for batch in batches)
