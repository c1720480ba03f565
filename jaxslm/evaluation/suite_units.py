"""Units of a suite's sound files, made once for an inventory and kept beside the prepared data."""

import hashlib
import logging
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from jaxslm.audio.io import AudioError, read_audio
from jaxslm.data.report import Report
from jaxslm.evaluation.wording import Audio
from jaxslm.units.inventory import UnitInventory

log = logging.getLogger(__name__)

SOUND = "sound"  # what a report calls one that is left out
CLIPS = 16  # that are encoded at once


def units_of(sounds: Sequence[Audio], inventory: UnitInventory, cache: Path, report: Report) -> dict[Audio, np.ndarray]:
    """Unit indices of each sound, whose files are joined before they are encoded; without those that cannot be read,
    which the report names.

    Raises ValueError: as `UnitInventory.open_encoder`.
    """
    if not sounds:
        return {}
    kept = cache / "suites" / f"{_name(sounds, inventory)}.npz"
    if kept.is_file():
        with np.load(kept, allow_pickle=False) as arrays:
            ids, edges = arrays["ids"], arrays["edges"]
        found = [ids[a:b] for a, b in zip(edges[:-1], edges[1:], strict=True)]
        return {sound: each for sound, each in zip(sounds, found, strict=True) if len(each)}
    inventory.open_encoder()
    found = {}
    for first in tqdm(range(0, len(sounds), CLIPS), desc="units", unit=f" x {CLIPS} clips"):
        read = {sound: _read(sound, report) for sound in sounds[first : first + CLIPS]}
        heard = {sound: samples_N for sound, samples_N in read.items() if samples_N is not None}
        found |= {s: u.ids for s, u in zip(heard, inventory.encode_batch(list(heard.values())), strict=True)}
    ids = [found.get(sound, np.zeros(0, np.int32)) for sound in sounds]
    if len(found) == len(sounds):  # what cannot be read is read, and named, every time
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="partial-", dir=kept.parent) as scratch:  # others may write it, too
            whole = Path(scratch) / kept.name
            np.savez(whole, ids=np.concatenate(ids), edges=np.cumsum([0, *map(len, ids)]))
            whole.replace(kept)
    return found


def _read(sound: Audio, report: Report) -> np.ndarray | None:
    try:
        return np.concatenate([read_audio(path, where=str(path), max_seconds=math.inf).heard for path in sound])
    except (AudioError, OSError) as error:
        report.left_out(" + ".join(map(str, sound)), str(error), "restore the file", what=SOUND)
        return None


def _name(sounds: Sequence[Audio], inventory: UnitInventory) -> str:
    """Of the inventory and of all that tells whether the files are the same."""
    digest = hashlib.sha256(inventory.sha256.encode())
    for sound in sounds:
        for path in sound:
            facts = path.stat() if path.is_file() else None
            digest.update(f"{path}\0{facts and (facts.st_size, facts.st_mtime_ns)}\0".encode())
        digest.update(b"\n")
    return digest.hexdigest()[:16]
