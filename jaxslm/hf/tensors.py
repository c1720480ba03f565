"""Tensors of a model folder in safetensors files: read piece by piece, written one after another.

https://github.com/huggingface/safetensors: eight bytes of header length, a JSON header, then the tensors end to end.
"""

import contextlib
import json
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import ml_dtypes  # registers bfloat16 with numpy
import numpy as np
from safetensors import SafetensorError, safe_open

INDEX = "model.safetensors.index.json"
SINGLE = ("model.safetensors", "consolidated.safetensors")
Item, Result = TypeVar("Item"), TypeVar("Result")
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
DTYPES = {
    "float32": ("F32", np.dtype(np.float32)),
    "bfloat16": ("BF16", np.dtype(ml_dtypes.bfloat16)),
    "float16": ("F16", np.dtype(np.float16)),
}
READABLE = dict(DTYPES.values()) | {"F64": np.dtype(np.float64)}
TABLES = ("embedding/weight", "head/weight")  # our names of what has a row for each id
WORKERS = 4  # threads that read or convert ahead of what is at hand
ROWS_CHECKED = 256  # of a tensor at a time: they stay in the cache of the processor
HEADER_MULTIPLE = 8  # tensors begin at multiples of it, as the format's own writer has it


def ahead(work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[tuple[Item, Result]]:
    """(item, work(item)) in order, made by WORKERS threads a few items ahead. What `work` raises is raised here."""
    with ThreadPoolExecutor(WORKERS) as pool:
        begun: deque[tuple[Item, Future[Result]]] = deque()
        for item in items:
            begun.append((item, pool.submit(work, item)))
            if len(begun) > WORKERS:
                first, future = begun.popleft()
                yield first, future.result()
        for item, future in begun:
            yield item, future.result()


def saved_anew(folder: Path, model: str) -> str:
    """How transformers writes a folder of pickled weights as safetensors."""
    return (
        f'Convert them where you trust them: python -c "from transformers import {model} as M; '
        f"M.from_pretrained('{folder}').save_pretrained('NEW_FOLDER')\""
    )


def _convert_decoder(pickled: Path) -> str:
    if (pickled.parent / "config.json").exists():
        return f"{saved_anew(pickled.parent, 'AutoModelForCausalLM')}, and copy its tokenizer there"
    return (
        "Convert them where you trust them: transformers/models/llama/convert_llama_weights_to_hf.py of the "
        "transformers package"
    )


class TensorFolder:
    """The tensors of a folder, by name. Opening reads headers only; raises ValueError naming the file and the cure.

    files: names of its files to read, where they are not those of a whole model.
    cure: what to do about the path of a pickled file where there is nothing else; by default how to convert a decoder.
    """

    def __init__(self, folder: Path, files: Sequence[str] | None = None, *, cure: Callable[[Path], str] | None = None):
        self.folder, self._cure = folder, cure or _convert_decoder
        self._files = {}
        self._starts: dict[str, int] = {}  # of each tensor in its file; safe_open would copy what it is asked for
        self._where: dict[str, str] = {}
        for file in self._file_names() if files is None else files:
            try:
                self._files[file] = safe_open(folder / file, framework="np")
            except (SafetensorError, OSError) as error:
                raise ValueError(f"{folder / file} is truncated or damaged ({error}): copy it again") from error
            for name in self._files[file].keys():  # noqa: SIM118, not a dict
                if name in self._where:
                    raise ValueError(
                        f"{folder}: {name} is both in {self._where[name]} and in {file}; remove one of them"
                    )
                self._where[name] = file
            self._starts |= _starts(folder / file)

    def _file_names(self) -> list[str]:
        index = self.folder / INDEX
        if index.exists():
            try:
                names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
                assert all(isinstance(name, str) for name in names), names
            except (ValueError, KeyError, AttributeError, TypeError, AssertionError) as error:
                raise ValueError(f"{index} is damaged ({error!r}): copy it again") from error
            for name in names:
                if Path(name).name != name or name == "..":
                    raise ValueError(f"{index} names {name!r}, which is not a file of its folder: refused")
                if not (self.folder / name).is_file():
                    raise ValueError(f"{index} names {name}, which is not there: copy the missing file")
            return names
        for name in SINGLE:
            if (self.folder / name).is_file():
                return [name]
        if pickled := sorted(path.name for pattern in PICKLES for path in self.folder.glob(pattern)):
            raise ValueError(
                f"{self.folder} has pickled weights only ({pickled[0]}), which can run any code when they are read: "
                f"refused. {self._cure(self.folder / pickled[0])}"
            )
        raise ValueError(f"{self.folder} has no {SINGLE[0]} and no {INDEX}: copy the weights there")

    def paths(self) -> list[Path]:
        """Its files."""
        return [self.folder / file for file in self._files]

    def __contains__(self, name: str) -> bool:
        return name in self._where

    def names(self) -> list[str]:
        return list(self._where)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._slice(name).get_shape())

    def dtype(self, name: str) -> np.dtype:
        """Raises ValueError naming the tensor if it is not of floats."""
        return READABLE[self._slice(name).get_dtype()]

    def read(self, name: str, index: Any = ...) -> np.ndarray:
        """`tensor[index]` as it is stored, mapped from its file for as long as the array lives: bytes are read where
        they are used, and those of other shards never.
        """
        part = self._slice(name)
        return np.memmap(
            self.where(name), READABLE[part.get_dtype()], "r", self._starts[name], tuple(part.get_shape())
        )[index]

    def where(self, name: str) -> Path:
        """The file that has the tensor."""
        return self.folder / self._where[name]

    def _slice(self, name: str):
        part = self._files[self._where[name]].get_slice(name)
        if part.get_dtype() not in READABLE:
            raise ValueError(
                f"{self.folder / self._where[name]}: {name} is stored as {part.get_dtype()}, which is not read "
                "(quantised weights, say); use the model in bfloat16, float16 or float32"
            )
        return part


def _starts(path: Path) -> dict[str, int]:
    """Byte at which each tensor of a file with a valid header begins."""
    with open(path, "rb") as file:
        n_bytes = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(n_bytes))
    return {name: 8 + n_bytes + entry["data_offsets"][0] for name, entry in header.items() if name != "__metadata__"}


def all_finite(values: np.ndarray) -> bool:
    """Whether no value is NaN or infinite."""
    for first in range(0, len(values), ROWS_CHECKED):
        rows = values[first : first + ROWS_CHECKED]
        finite = (rows.view(np.uint16) & 0x7F80 < 0x7F80) if rows.dtype == "bfloat16" else np.isfinite(rows)
        if not finite.all():
            return False
    return True


def plan_files(shapes: Mapping[str, Sequence[int]], dtype: str, max_bytes: int) -> dict[str, list[str]]:
    """Which tensors go into which file, in order: each file as full as `max_bytes` allows."""
    groups: list[list[str]] = [[]]
    size = 0
    for name, shape in shapes.items():
        n_bytes = int(np.prod(shape)) * DTYPES[dtype][1].itemsize
        if groups[-1] and size + n_bytes > max_bytes:
            groups.append([])
            size = 0
        groups[-1].append(name)
        size += n_bytes
    if len(groups) == 1:
        return {SINGLE[0]: groups[0]}
    return {f"model-{i + 1:05d}-of-{len(groups):05d}.safetensors": names for i, names in enumerate(groups)}


class TensorWriter:
    """Writes tensors of known shapes in any order, in pieces: memory is that of the piece at hand."""

    def __init__(self, folder: Path, shapes: Mapping[str, Sequence[int]], dtype: str, max_bytes: int):
        self._code, self.dtype = DTYPES[dtype]
        self._shapes = shapes
        self.total_bytes = sum(int(np.prod(shape)) for shape in shapes.values()) * self.dtype.itemsize
        if (free := shutil.disk_usage(folder).free) < self.total_bytes:
            raise OSError(
                f"{folder}: the model takes {self.total_bytes / 1e9:.2f} GB and {free / 1e9:.2f} GB are free: make "
                "room, or write it elsewhere"
            )
        self._places: dict[str, tuple] = {}
        self._left = {name: int(np.prod(shape)) for name, shape in shapes.items()}
        with contextlib.ExitStack() as stack:
            plan = plan_files(shapes, dtype, max_bytes)
            for file, names in plan.items():
                handle = stack.enter_context(open(folder / file, "wb"))
                self._begin(handle, names)
            self._stack = stack.pop_all()
        if len(plan) > 1:
            weight_map = {name: file for file, names in plan.items() for name in names}
            index = {"metadata": {"total_size": self.total_bytes}, "weight_map": weight_map}
            (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n")

    def _begin(self, handle, names: Sequence[str]) -> None:
        header: dict = {"__metadata__": {"format": "pt"}}
        offset = 0
        for name in names:
            stop = offset + self._left[name] * self.dtype.itemsize
            header[name] = {"dtype": self._code, "shape": list(self._shapes[name]), "data_offsets": [offset, stop]}
            offset = stop
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % HEADER_MULTIPLE)
        handle.write(len(text).to_bytes(8, "little") + text)
        for name in names:
            self._places[name] = (handle, 8 + len(text) + header[name]["data_offsets"][0])

    def write(self, name: str, rows: np.ndarray, first: int = 0) -> int:
        """Puts `rows` (any float dtype) at `tensor[first:first + len(rows)]`; returns their bytes in the file."""
        assert rows.shape[1:] == tuple(self._shapes[name][1:]), (name, rows.shape, self._shapes[name])
        handle, offset = self._places[name]
        row_bytes = int(np.prod(rows.shape[1:])) * self.dtype.itemsize
        handle.seek(offset + first * row_bytes)
        handle.write(np.ascontiguousarray(rows, dtype=self.dtype).reshape(-1).view(np.uint8))
        self._left[name] -= rows.size
        return rows.size * self.dtype.itemsize

    def __enter__(self) -> "TensorWriter":
        return self

    def __exit__(self, kind, *_) -> None:
        self._stack.close()
        missing = [name for name, left in self._left.items() if left]
        assert kind is not None or not missing, f"never written whole: {missing}"
