"""The sources as shards of audio: read, checked, aligned; everything of an utterance but units computed from it.

The sources are walked in one fixed order and cut into shards of `SHARD` raw utterances. A shard depends on nothing but
these, whoever makes it and whatever was made before.
"""

from __future__ import annotations

import collections
import hashlib
import itertools
import json
import logging
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from jaxslm.data.aligning import align_in_batches
from jaxslm.data.progress import HoursBar
from jaxslm.data.readers import read_utterances
from jaxslm.data.reading import Reading, Result
from jaxslm.data.records import MANIFEST, manifest_of, to_bytes
from jaxslm.data.report import Coverage, Report
from jaxslm.data.shards import (
    SUFFIX,
    ShardWriter,
    Tally,
    beside,
    disk_errors,
    facts_of,
    holds,
    whole,
    write_json,
)
from jaxslm.data.sharing import Behind, Part, scratch, sweep, wait
from jaxslm.data.sources import RawUtterance, read_source
from jaxslm.units.alignment import CLIP_BY_CLIP, load_aligner
from jaxslm.units.inventory import UnitInventory

logger = logging.getLogger(__name__)

SHARD = 512  # raw utterances: about an hour and a half of audio is lost by a kill, a process
REPORT = "report.jsonl"


class Walk:
    """The raw utterances of all sources in their order, as (shard, source, raw utterance); ids that are taken left out.

    Attributes:
      counts: raw utterances of each shard, as far as the walk has come.
      report: what the sources could not use.
    """

    def __init__(self, sources: Mapping[str, Mapping], *, log: bool):
        self.report, self.counts, self._digests = Report(log=log), [], []
        self._sources = {name: _opened(name, spec, self.report) for name, spec in sources.items()}

    def __iter__(self) -> Iterator[tuple[int, str, RawUtterance]]:
        for name, raws in self._sources.items():
            taken = set()
            for raw in raws:
                if raw.id in taken:
                    cure = "give every utterance an id of its own"
                    self.report.left_out(raw.where, f"the id '{raw.id}' is taken", cure)
                    continue
                taken.add(raw.id)
                if not self.counts or self.counts[-1] == SHARD:
                    self.counts.append(0)
                    self._digests.append(hashlib.sha256())
                self.counts[-1] += 1
                self._digests[-1].update(json.dumps([name, raw.id, raw.where, raw.text, raw.split]).encode())
                yield len(self.counts) - 1, name, raw

    def digest(self, shard: int) -> str:
        """Of what a shard is made from: a shard of other utterances than the sources have now is not taken over."""
        return self._digests[shard].hexdigest()


class _Shard:
    """A shard that is being made, with what its JSON file is to say."""

    def __init__(self, path: Path, sources: Mapping):
        self.writer, self.tally, self.entries = ShardWriter(path), Tally(), []
        self.used, self.coverage = collections.Counter(), {name: Coverage() for name in sources}

    def add(self, source: str, result: Result) -> bytes | None:
        raw, utterance, entries = result
        self.entries.extend(entries)
        if utterance is None:
            return None
        self.used[source] += 1
        self.coverage[source].add(utterance)
        utterance = replace(utterance, id=f"{source}/{raw.id}")
        self.tally.add(utterance)
        return to_bytes(utterance)

    def said(self, raws: int, digest: str) -> dict:
        coverage = {name: coverage.to_json() for name, coverage in self.coverage.items() if coverage.utterances}
        said = dict(raws=raws, digest=digest, tally=self.tally.counts(), used=self.used, coverage=coverage)
        return said | dict(report=self.entries)


def make_audio_shards(
    folder: Path,
    config: Mapping,
    given: UnitInventory | None,
    *,
    part: Part,
    check: bool,
    careful: bool,
    progress: bool,
    workers: int,
) -> bool:
    """Makes the shards of this part that are missing or damaged, and, as process 0, the report and the manifest.

    Args:
      config: `sources`, `alignment` and `max_seconds`, see `prepare`.
      given: the inventory of precomputed units that come with the sources, or None.
      check: read the shards that are there and compare their SHA-256.
      careful: see `read_utterances`.
    Returns:
      False if everything was there. All processes return the same, and only when the shards of all are sound.
    Raises:
      ValueError: a source of which nothing can be used. Finished shards of which all could be used are kept.
      OSError: a full disk; finished shards are kept.
    """
    if part.all_say("complete", _complete(folder, part, check)):
        return False
    try:
        with scratch(folder, part) as partial:
            again = True
            while again:
                walk = Walk(_specs(config, given), log=part.index == 0)
                again = _pass(folder, partial, walk, config, given, part, careful, progress, workers)
    except ValueError:
        if not any(folder.glob(f"records-*{SUFFIX}")):
            shutil.rmtree(folder, ignore_errors=True)
        raise
    shards = [_path(folder, shard) for shard in range(len(walk.counts))]

    def ready(shard: int) -> bool:
        said = whole(shards[shard])
        return said is not None and said["digest"] == walk.digest(shard)

    wait(range(len(shards)), ready, lambda shard: shards[shard].name, folder, part)
    _conclude(folder, shards, walk, config, given, part)
    return True


def _path(folder: Path, shard: int) -> Path:
    return folder / f"records-{shard:05d}{SUFFIX}"


def _number(name: str) -> int:
    return int(name.removeprefix("records-"))


def _complete(folder: Path, part: Part, check: bool) -> bool:
    """Whether the folder is complete as far as this part goes. Damaged shards are named, and the files beside them go,
    so that nobody takes them for whole.
    """
    try:
        listed = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["shards"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        listed = None
    facts = {entry["file"].removesuffix(SUFFIX): entry for entry in listed or ()}
    complete = listed is not None and (folder / REPORT).is_file()
    for name in sorted({path.stem for path in folder.glob("records-*.json")} | set(facts)):
        if not part.has(_number(name)):
            continue
        shard = folder / f"{name}{SUFFIX}"
        said = whole(shard, check=check)
        if said is None:
            logger.warning("%s is damaged or gone: it is made again", shard)
            beside(shard).unlink(missing_ok=True)
        if said is None or (name in facts and facts_of(said) != facts[name]):
            complete = False
    return complete


def _specs(config: Mapping, given: UnitInventory | None) -> dict[str, Mapping]:
    rate = {"frame_rate": given.frame_rate} if given else {}
    return {name: rate | spec for name, spec in config["sources"].items()}


def _pass(folder, partial, walk, config, given, part, careful, progress, workers) -> bool:
    """Walks the sources once and makes the shards of this part that are not whole; True if it must be done again."""
    kept = {}
    for shard in filter(part.has, sorted(_number(path.stem) for path in folder.glob("records-*.json"))):
        said = whole(_path(folder, shard))
        if said and said["file"]:
            kept[shard] = said
        else:  # one that holds nothing is read again: what was wrong there may be mended
            beside(_path(folder, shard)).unlink()
    places, logged, reading = collections.deque(), Report(), _reading(config, given)

    def wanted() -> Iterator[RawUtterance]:
        for shard, source, raw in walk:
            if part.has(shard) and shard not in kept:
                places.append((shard, source))
                yield raw

    def results() -> Iterator[tuple[int, str, list[Result]]]:
        for pieces in read_utterances(wanted(), reading, workers, careful=careful):
            bar.add(1, sum(utterance.duration for _, utterance, _ in pieces if utterance))
            yield *places.popleft(), pieces

    aligner = load_aligner(config["alignment"]) if config["alignment"] else None  # says now if it cannot be had
    aligner = None if config["alignment"] in CLIP_BY_CLIP else aligner
    done = sum(said["raws"] for said in kept.values()), sum(sum(s["tally"]["seconds"].values()) for s in kept.values())
    with HoursBar("reading", show=progress, done=done) as bar, Behind() as behind:
        if progress:
            bar.count(config["sources"], part.count)
        for shard, group in itertools.groupby(results(), key=lambda result: result[0]):
            making = _Shard(partial / _path(folder, shard).name, config["sources"])
            sources = collections.deque()
            read = (sources.append(source) or pieces for _, source, pieces in group)
            if aligner:  # batches end with the shard, so that they are the same whoever makes it
                read = align_in_batches(read, aligner, config["alignment"].split(":")[0], reading)
            for pieces in read:
                source = sources.popleft()
                for piece in pieces:
                    logged.extend(piece[2])
                    record = making.add(source, piece)
                    if record is not None:
                        behind(making.writer.write, record)
            behind(making.writer.close_into, folder, making.said(walk.counts[shard], walk.digest(shard)))
    stale = [shard for shard, said in kept.items() if shard >= len(walk.counts) or said["digest"] != walk.digest(shard)]
    for shard in stale:
        logger.warning("the sources changed since %s was made: it is made again", _path(folder, shard))
        beside(_path(folder, shard)).unlink()
        _path(folder, shard).unlink(missing_ok=True)
    return any(shard < len(walk.counts) for shard in stale)


def _reading(config: Mapping, given: UnitInventory | None) -> Reading:
    aligner = config["alignment"]
    aligner = dict(aligner=aligner) if aligner in CLIP_BY_CLIP else dict(aligned_later=bool(aligner))
    units = dict(units_sha256=given.sha256, units_size=given.size, frame_rate=given.frame_rate) if given else {}
    return Reading(max_seconds=config["max_seconds"], sample_rate=config["sample_rate"], **aligner, **units)


def _opened(name: str, spec: Mapping, report: Report) -> Iterator[RawUtterance]:
    """A source whose first utterance was found: a wrong path must not wait for the sources before it."""
    raws = read_source(spec, report)
    first = next(raws, None)
    if first is None:
        raise _nothing(name, report)
    return itertools.chain([first], raws)


def _nothing(name: str, report: Report) -> ValueError:
    return ValueError(
        f"nothing in the source '{name}' can be used: correct it, or take it out of data.sources\n{report.summary()}"
    )


def _conclude(folder: Path, paths: list[Path], walk: Walk, config: Mapping, given, part: Part) -> None:
    """What the shards say together: report and manifest, by process 0; the others wait for them."""
    shards = [whole(path) for path in paths]
    report, tally, used = Report(walk.report.entries, log=False), Tally(), collections.Counter()
    coverage = {name: Coverage() for name in config["sources"]}
    for said in shards:
        report.extend(said["report"])
        tally.merge(Tally(said["tally"]))
        used.update(said["used"])
        for name, covered in said["coverage"].items():
            coverage[name].merge(Coverage.from_json(covered))
    for name in config["sources"]:
        if not used[name]:
            if part.index == 0:
                _read_again(folder, paths, shards)
            raise _nothing(name, report)
        report.coverage(name, coverage[name])
    manifest = manifest_of(tally, [facts_of(s) for s in shards if s["file"]], [given] if given else [], config)
    if part.index:
        wait([MANIFEST], lambda name: holds(folder / name, manifest), str, folder, part)
        return
    sweep(folder)
    with scratch(folder, part) as partial:
        with disk_errors(folder / REPORT):
            report.save(partial / REPORT)
            (partial / REPORT).replace(folder / REPORT)
        if (folder / MANIFEST).is_file() and not holds(folder / MANIFEST, manifest):
            # First what was made of audio that is no more; unit shards whose audio is as it was are kept.
            for stale in (*folder.glob(f"units-*/{MANIFEST}"), *folder.glob("learned-*.json")):
                stale.unlink()
        write_json(folder / MANIFEST, manifest, partial)


def _read_again(folder: Path, paths: list[Path], shards: list[dict]) -> None:
    """Forgets shards in which something was left out, so that corrected files are read; all, if nothing was used."""
    if not any(said["file"] for said in shards):
        shutil.rmtree(folder, ignore_errors=True)
        return
    for path, said in zip(paths, shards, strict=True):
        if any(entry["kind"] == "left out" for entry in said["report"]):
            beside(path).unlink(missing_ok=True)
