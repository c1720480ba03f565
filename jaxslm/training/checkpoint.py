"""Checkpoints: written by Orbax in the background, sealed with checksums, restored on any number of devices.

    checkpoints/300/model/      parameters, a nested dict with the names of the model's attributes
    checkpoints/300/training/   everything else of the state
    checkpoints/300/manifest.json   shapes and types of all arrays; size and SHA-256 of every file

Why checksums: Orbax restores a data file with a flipped byte without complaint. Why not its CheckpointManager: after
saves that failed it counts them as kept ones and deletes good checkpoints in their place.
"""

import hashlib
import json
import logging
import re
import shutil
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from jaxslm.naming import parameter_name, parameter_names
from jaxslm.training.distributed import agree, barrier
from jaxslm.training.stored import CHUNK_BYTES, open_model

log = logging.getLogger(__name__)
# What goes wrong there is raised, too, and reported here in one line instead of a page.
logging.getLogger("absl").addFilter(lambda record: "orbax" not in record.pathname)

MANIFEST = "manifest.json"
UNFINISHED = re.compile(r"(\d+)\..*tmp.*")
NONE, ALL_DAMAGED = -1, -2


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be written or read; the message says which and what to do."""


def to_plain(tree: Any) -> dict[str, Any]:
    """Any pytree as nested dicts of its leaves, by attribute name, key and index, without the names of wrappers."""
    plain: dict[str, Any] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        *parents, last = parameter_names(path)
        node = plain
        for name in parents:
            node = node.setdefault(name, {})
        assert last not in node, f"two leaves named {path}"
        node[last] = leaf
    return plain


def from_plain(plain: Mapping[str, Any], like: Any) -> Any:
    """The inverse of `to_plain`, in the structure of `like`."""

    def find(path: tuple) -> Any:
        node = plain
        for name in parameter_names(path):
            node = node[name]
        return node

    paths, treedef = jax.tree_util.tree_flatten_with_path(like)
    return jax.tree.unflatten(treedef, [find(path) for path, _ in paths])


class Checkpoints:
    """The checkpoints of one run. All processes call every method; process 0 alone touches names and deletes.

    Saves run in the background, one at a time; a failed one is reported, leaves older ones as they are and does not
    stop the run. `finish` raises CheckpointError if the last one failed. The newest `keep` are kept, and those `in_use`
    until they are not.
    """

    def __init__(self, folder: Path, keep: int):
        assert keep >= 1, keep
        self.folder, self.keep = folder.absolute(), keep
        self.in_use: set[int] = set()  # of process 0; added and taken away by what reads them, in any thread
        self._saving: int | None = None
        self._failed: str | None = None
        self._began = self._checking = 0.0
        self._orbax = ocp.AsyncCheckpointer(
            _handler(), async_options=ocp.AsyncOptions(post_finalization_callback=self._seal)
        )
        if jax.process_index() == 0:
            self.folder.mkdir(parents=True, exist_ok=True)

    def newest(self) -> int | None:
        """The newest step that is complete and unharmed, None if nothing was ever saved.

        Unfinished ones are reported and removed, damaged ones reported and set aside as `<step>.damaged`. Raises
        CheckpointError if there are only damaged ones: starting afresh would be a silent loss.
        """
        began = time.perf_counter()
        found = agree(self._newest_here() if jax.process_index() == 0 else NONE)
        self._checking = time.perf_counter() - began
        if found == ALL_DAMAGED:
            raise CheckpointError(
                f"every checkpoint in {self.folder} is damaged. Copy one back from a backup, or use a new --workdir."
            )
        return None if found == NONE else found

    def _newest_here(self) -> int:
        for path in _unfinished(self.folder):
            log.warning("checkpoint %s was never finished (the run ended while writing it); removed", path.name)
            shutil.rmtree(path)
        damaged = []
        for step in saved_steps(self.folder):
            if harm := damage(self.folder / str(step)):
                log.warning("checkpoint %d is damaged (%s); looking at the one before", step, harm)
                damaged.append(step)
                continue
            for newer in damaged:  # the run will come past these steps again
                aside = self.folder / f"{newer}.damaged"
                shutil.rmtree(aside, ignore_errors=True)
                (self.folder / str(newer)).rename(aside)
            return step
        return ALL_DAMAGED if damaged else NONE

    def save(self, step: int, state: Any) -> None:
        """Copies `state` to the host and returns; writing goes on in the background."""
        self.wait()
        self._remove_unfinished()
        plain = to_plain(state)
        model = plain.pop("model")
        self._saving, self._arrays, self._began = step, _described(state), time.perf_counter()
        items = ocp.args.Composite(
            model=ocp.args.PyTreeSave(model, save_args=jax.tree.map(_in_chunks, model)),
            training=ocp.args.PyTreeSave(plain),
        )
        try:
            self._orbax.save(self.folder / str(step), args=items)
        except Exception as error:  # a full disk comes as OSError, ValueError or RuntimeError, by layer
            self.failed(step, error)

    def wait(self) -> None:
        """Until the save under way has ended; reports it if it failed, else deletes the oldest."""
        if self._saving is None:
            return
        try:
            self._orbax.wait_until_finished()
        except Exception as error:
            self.failed(self._saving, error)
            return
        self._saving = self._failed = None
        self._remove_unfinished()
        self.delete_oldest()

    def delete_oldest(self) -> None:
        """Leaves the newest `keep`, and those in use: their turn comes at the next call."""
        if jax.process_index() == 0:
            for step in saved_steps(self.folder)[self.keep :]:
                if step not in self.in_use:
                    shutil.rmtree(self.folder / str(step))

    def finish(self) -> None:
        """Waits for the last save; raises CheckpointError if it failed."""
        self.wait()
        if self._failed:
            raise CheckpointError(f"{self._failed} Free some space and run the same command again.")

    def failed(self, step: int, error: Exception) -> None:
        """Reports that `step` is not saved, and why."""
        self._remove_unfinished()
        free = shutil.disk_usage(self.folder).free / 1e9
        self._failed = (
            f"checkpoint {step} could not be written to {self.folder} ({free:.2f} GB free there): "
            f"{_first_line(error)}. Older checkpoints are untouched."
        )
        self._saving = None
        log.error("%s The run goes on and tries again at the next checkpoint.", self._failed)

    def _remove_unfinished(self) -> None:
        """Half a checkpoint on a full disk is in the way of the next. Some of its writers may still be at work when the
        failure of another is known, so this is tried again before the next save and after it."""
        if jax.process_index() == 0:
            for path in _unfinished(self.folder):
                shutil.rmtree(path, ignore_errors=True)

    def _seal(self) -> None:
        """Runs in Orbax's thread when all is written, before the folder gets its final name."""
        if jax.process_index() == 0:
            folder = next((p for p in _unfinished(self.folder) if p.name.startswith(f"{self._saving}.")), None)
            assert folder is not None, "Orbax no longer writes to <step>.<...>tmp before the rename"
            manifest = {"arrays": self._arrays, "files": _checksums(folder)}
            (folder / MANIFEST).write_text(json.dumps(manifest, indent=1))
            log.info("checkpoint %d: wrote %s", self._saving, _speed(manifest["files"], self._began))

    def restore(self, step: int, abstract_state: Any) -> Any:
        """State of `step` in the shardings of `abstract_state`. Raises ValueError naming what does not fit.

        Each process reads what lies on its own devices, and nothing else; process 0 alone checks files, in `newest`.
        """
        self.wait()
        barrier("restore")
        _check_fits(self.folder / str(step), abstract_state)
        plain = to_plain(abstract_state)
        model = plain.pop("model")
        items = ocp.args.Composite(model=_restoring(model), training=_restoring(plain))
        began = time.perf_counter()
        restored = self._orbax.restore(self.folder / str(step), args=items)
        state = from_plain({"model": restored.model} | restored.training, abstract_state)
        jax.block_until_ready(state)
        files = json.loads((self.folder / str(step) / MANIFEST).read_text())["files"]
        log.info("checkpoint %d: read %s; checked before in %.1f s", step, _speed(files, began), self._checking)
        return state


def restore_model(folder: Path, abstract_model: Any, step: int | None = None) -> tuple[Any, int]:
    """(model, step): parameters alone from a run's `checkpoints` folder, the newest unharmed step unless one is given.

    Changes nothing in the folder. `abstract_model` is `jax.eval_shape` of the model, with or without shardings. Raises
    CheckpointError if there is none, ValueError naming what does not fit.
    """
    folder = folder.absolute()
    step = unharmed(folder, step)
    _check_fits(folder / str(step), {"model": abstract_model})
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    plain = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding or device), to_plain(abstract_model)
    )
    with ocp.Checkpointer(_handler()) as orbax:
        restored = orbax.restore(folder / str(step), args=ocp.args.Composite(model=_restoring(plain)))
    return from_plain(restored.model, abstract_model), step


def restore_parts(folder: Path, abstract: Any, prefixes: Sequence[str], step: int | None = None) -> tuple[Any, int]:
    """(tree, step): as `restore_model`, of a model that holds more than `abstract`: each of its arrays is looked up by
    its name behind the first of `prefixes` that has it.
    """
    step = unharmed(folder.absolute(), step)
    stored = open_model(folder / str(step))

    def read(path: tuple, leaf: Any) -> jax.Array:
        name = parameter_name(path)
        found = next((stored[full] for p in prefixes if (full := f"{p}/{name}") in stored), None)
        if found is None or found.shape != leaf.shape:
            has = "nothing of that name" if found is None else f"shape {list(found.shape)}"
            raise ValueError(
                f"{folder / str(step)} has {has} where {prefixes[-1]}/{name} {list(leaf.shape)} is looked for: its "
                "settings were changed after training; restore the JSON files of the workdir, or train again in another"
            )
        return jnp.asarray(found[...], leaf.dtype)

    return jax.tree_util.tree_map_with_path(read, abstract), step


def unharmed(folder: Path, step: int | None = None) -> int:
    """The newest step of a run's `checkpoints` folder that is not damaged, or `step` if that is not.

    Raises CheckpointError if there is none.
    """
    steps = saved_steps(folder)
    if step is not None and step not in steps:
        there = f"there are {', '.join(map(str, sorted(steps)))}" if steps else "there are none: train first"
        raise CheckpointError(f"{folder} has no checkpoint of step {step}; {there}.")
    for candidate in steps if step is None else [step]:
        if not (harm := damage(folder / str(candidate), "model")):
            return candidate
        log.warning("checkpoint %d is damaged (%s)", candidate, harm)
    raise CheckpointError(f"{folder} holds no unharmed checkpoint; train first, or name the workdir of another run.")


def saved_steps(folder: Path) -> list[int]:
    """Steps with a finished checkpoint, newest first."""
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return sorted((int(name) for name in names if name.isdecimal()), reverse=True)


def damage(checkpoint: Path, item: str = "*", *, checksums: bool = True) -> str:
    """What is wrong with a finished checkpoint, '' if every file (of one item: "model") has its size and, unless
    `checksums` is False, its SHA-256."""
    try:
        files = json.loads((checkpoint / MANIFEST).read_text())["files"]
    except (OSError, ValueError, KeyError) as error:
        return f"{MANIFEST}: {_first_line(error)}"
    expected = {name: entry for name, entry in files.items() if item in ("*", name.split("/")[0])}
    for name, (size, _) in expected.items():
        path = checkpoint / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size} of {size} bytes"
    if not checksums:
        return ""
    found = _checksums(checkpoint, item)
    return next((f"{name} has changed" for name, entry in expected.items() if found[name] != entry), "")


def _checksums(checkpoint: Path, item: str = "*") -> dict[str, list]:
    """[size, SHA-256] of the files of one item or all; Orbax may still write its own notes at the top."""

    def entry(path: Path) -> list:
        with path.open("rb") as file:
            return [path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest()]

    paths = sorted(path for path in checkpoint.glob(f"{item}/**/*") if path.is_file())
    with ThreadPoolExecutor(8) as pool:  # hashing releases the interpreter lock
        return dict(zip((str(path.relative_to(checkpoint)) for path in paths), pool.map(entry, paths), strict=True))


def _speed(files: Mapping[str, list], began: float) -> str:
    """'84,086.2 MB in 21.3 s (3,948 MB/s)', of files of a manifest."""
    megabytes, seconds = sum(entry[0] for entry in files.values()) / 1e6, time.perf_counter() - began
    return f"{megabytes:,.1f} MB in {seconds:.1f} s ({megabytes / seconds:,.0f} MB/s)"


def _handler() -> ocp.CompositeCheckpointHandler:
    """Writes without compression: trained floats shrink by a tenth at most, and exports would wait for it."""
    items = {name: ocp.PyTreeCheckpointHandler(use_compression=False) for name in ("model", "training")}
    return ocp.CompositeCheckpointHandler(**items)


def _restoring(abstract: Any) -> ocp.args.PyTreeRestore:
    return ocp.args.PyTreeRestore(abstract, restore_args=ocp.checkpoint_utils.construct_restore_args(abstract))


def _in_chunks(array: jax.Array) -> ocp.SaveArgs:
    """Arrays lie in pieces on disk, stacked ones cut between layers first, so that an export reads piece by piece."""
    return ocp.SaveArgs(chunk_byte_size=CHUNK_BYTES, shard_axes=(0,) if array.ndim == 3 else ())


def _described(state: Any) -> dict[str, list]:
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {parameter_name(path): [list(leaf.shape), str(leaf.dtype)] for path, leaf in leaves}


def _check_fits(checkpoint: Path, abstract: Any) -> None:
    saved = json.loads((checkpoint / MANIFEST).read_text())["arrays"]
    ours = _described(abstract)
    tops = {name.split("/")[0] for name in ours}
    wrong = [f"{name} is not in the checkpoint" for name in ours if name not in saved]
    wrong += [f"{name} is only in the checkpoint" for name in saved if name not in ours and name.split("/")[0] in tops]
    wrong += [
        f"{name} is {saved[name][0]} in the checkpoint and {shape} here"
        for name, (shape, _) in ours.items()
        if name in saved and saved[name][0] != shape
    ]
    if wrong:
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        raise ValueError(
            f"{checkpoint} does not fit this config: {wrong[0]}{more}. "
            "Use the model and optimizer settings it was trained with, or a new --workdir."
        )


def _unfinished(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if UNFINISHED.fullmatch(path.name)]


def _first_line(error: Exception) -> str:
    text = f"{type(error).__name__} {error}".splitlines()[0]
    return text if len(text) < 300 else f"{text[:120]} ... {text[-160:]}"  # TensorStore names the cause at the end
