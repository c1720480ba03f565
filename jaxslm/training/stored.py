"""The parameters of a checkpoint on disk, read piece by piece: for exports of models that no host could hold."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import tensorstore

CHUNK_BYTES = 64 << 20  # of an array in a checkpoint; see `Checkpoints.save`


class StoredArray:
    """An array of a checkpoint. `array[index]` reads what the index names, in whole chunks of the file."""

    def __init__(self, store: tensorstore.TensorStore):
        self._store = store
        self.shape = tuple(store.shape)

    def __getitem__(self, index: Sequence[slice] | slice) -> np.ndarray:
        return self._store[index].read().result()

    def pieces(self, axis: int, stop: int | None = None) -> Iterator[slice]:
        """Slices of a dimension, up to `stop`, that cut no chunk in two: nothing is read twice."""
        stop = self.shape[axis] if stop is None else stop
        step = self._store.chunk_layout.read_chunk.shape[axis]
        for first in range(0, stop, step):
            yield slice(first, min(first + step, stop))


def zeros(*shape: int) -> StoredArray:
    """An array of float32 zeros in memory."""
    spec = {"driver": "zarr", "kvstore": "memory://"}
    return StoredArray(tensorstore.open(spec, create=True, dtype=tensorstore.float32, shape=shape).result())


def open_model(checkpoint: Path) -> dict[str, StoredArray]:
    """Arrays of `checkpoint`/model by name ("layers/attention/query/weight"); nothing is read yet."""
    folder = checkpoint.absolute() / "model"
    # Mapped files: read calls would copy everything once more.
    base = {"driver": "file", "path": f"{folder}/", "file_io_mode": {"mode": "memmap"}}
    files = {"driver": "ocdbt", "base": base}
    keys = tensorstore.KvStore.open(files).result().list().result()
    names = sorted(key.decode().removesuffix("/.zarray") for key in keys if key.endswith(b"/.zarray"))

    def opened(name: str) -> StoredArray:
        spec = {"driver": "zarr", "kvstore": files | {"path": f"{name}/"}}
        return StoredArray(tensorstore.open(spec, read=True).result())

    return {name.replace(".", "/"): opened(name) for name in names}
