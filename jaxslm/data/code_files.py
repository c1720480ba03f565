"""Audio files to codes in records, and codes in records to WAV files. What cannot be used is left out by name."""

import itertools
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxslm.audio.io import AudioError, read_audio, write_wav
from jaxslm.codec.runner import CodecRunner
from jaxslm.data.progress import HoursBar
from jaxslm.data.reading import cause_and_cure
from jaxslm.data.records import MANIFEST, Records, Utterance, write_records
from jaxslm.data.report import Report

log = logging.getLogger(__name__)

SUFFIXES = frozenset(".wav .flac .ogg .oga .opus .mp3 .aif .aiff .aifc .au .caf .w64 .rf64".split())
GROUP_SECONDS = 1200.0  # of audio that is read before it is encoded, the shortest clips first
REPORT = "report.jsonl"
KEPT_LEVELS = "kept_levels"  # of a codec in the manifest: those its codes here have
_READ_AHEAD = 32  # files


@dataclass(frozen=True)
class AudioClip:
    """A clip to be heard: `source` as `read_audio` takes it, None if `utterance` has no audio."""

    where: str
    utterance: Utterance
    source: Path | bytes | None


class Heard(NamedTuple):
    """samples: at the rate asked for; None where there is nothing to hear. entries: for a report."""

    utterance: Utterance
    samples: np.ndarray | None
    entries: list[dict]
    usable: bool


class AudioClips(Sequence):
    """The clips of audio files, folders of them (searched through) and folders of prepared records, in their order.

    A file is called by its path in the folder that was given, without the suffix; a file that was given itself, by its
    name. `inventories`, `codecs`: what the manifests of prepared records say of their units and codes.

    Raises ValueError for a path that does not exist, a folder without audio, and two files of one name.
    """

    def __init__(self, paths: Iterable[Path]):
        self._parts: list[Sequence] = []
        self.inventories: list[Mapping] = []
        self.codecs: list[Mapping] = []
        for path in paths:
            if (path / MANIFEST).is_file():
                records = Records(path)
                self._parts.append(records)
                for known, name in ((self.inventories, "inventories"), (self.codecs, "codecs")):
                    known += [each for each in records.manifest.get(name, ()) if each not in known]
            else:
                self._parts.append(_files(path))
        self._ends = list(itertools.accumulate(map(len, self._parts)))
        seen: dict[str, str] = {}
        for clip in itertools.chain(*(part for part in self._parts if isinstance(part, list))):
            if clip.utterance.id in seen:
                raise ValueError(
                    f"{seen[clip.utterance.id]} and {clip.where} would both be called '{clip.utterance.id}': rename "
                    "one, or encode them into folders of their own"
                )
            seen[clip.utterance.id] = clip.where

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: int) -> AudioClip:
        if not 0 <= index < len(self):
            raise IndexError(f"clip {index} of {len(self)}")
        which = next(i for i, end in enumerate(self._ends) if index < end)
        part, place = self._parts[which], index - (self._ends[which] - len(self._parts[which]))
        if isinstance(part, list):
            return part[place]
        utterance = part[place]
        return AudioClip(f"{part.folder}: {utterance.id}", replace(utterance, audio=None), utterance.audio)


def _files(path: Path) -> list[AudioClip]:
    if path.is_file():
        return [AudioClip(str(path), Utterance(path.stem), path)]
    if not path.is_dir():
        raise ValueError(f"there is no file or folder {path}")
    files = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
    if not files:
        raise ValueError(f"{path} holds no audio: files with one of the suffixes {' '.join(sorted(SUFFIXES))}")
    return [AudioClip(str(file), Utterance(file.relative_to(path).with_suffix("").as_posix()), file) for file in files]


def encode_clips(
    runner: CodecRunner,
    codec: Mapping,
    clips: AudioClips,
    folder: Path,
    *,
    max_seconds: float = 300.0,
    progress: bool = True,
) -> Report:
    """Writes a folder of records with the codes of the clips, and the report of what was left out or repaired.

    Utterances of prepared records keep all but their audio, and are kept if they had none. Silence has codes, too.

    Args:
      codec: what `describe_codec` says of the runner's.
      folder: must hold no records.
      max_seconds: longer clips are left out.
    Raises:
      ValueError: records in the folder, or no clip of use.
      OSError: a full disk.
    """
    report = Report()
    source = dict(kind="encode_audio", codec=codec["sha256"])
    others = [known for known in clips.codecs if known["sha256"] != codec["sha256"]]
    codecs = [*others, {**codec, KEPT_LEVELS: runner.n_levels}]
    with HoursBar("encoding", show=progress, total=len(clips)) as bar:
        coded = _coded(runner, codec, clips, max_seconds, report, bar)
        try:
            write_records(folder, coded, inventories=clips.inventories, codecs=codecs, source=source)
        finally:
            if folder.is_dir():
                report.save(folder / REPORT)
    return report


def _coded(
    runner: CodecRunner, codec: Mapping, clips: AudioClips, max_seconds: float, report: Report, bar: HoursBar
) -> Iterator[Utterance]:
    rate = codec["sample_rate"]

    def hear(clip: AudioClip) -> Heard:
        return hear_clip(clip, rate, max_seconds)

    names: set[str] = set()
    with ThreadPoolExecutor() as readers:
        for group in in_groups(read_ahead(readers, hear, clips), lambda heard: _seconds(heard, rate)):
            for heard in group:
                report.extend(heard.entries)
            group = [heard for heard in group if _is_new(heard.utterance.id, names, report)]
            spoken = [heard.samples for heard in group if heard.samples is not None]
            codes = iter(runner.encode(spoken))
            for heard in group:
                if heard.samples is not None:
                    made = {**heard.utterance.codes, codec["sha256"]: next(codes)}
                    yield replace(
                        heard.utterance, duration=heard.utterance.duration or _seconds(heard, rate), codes=made
                    )
                elif heard.usable:
                    yield heard.utterance
            bar.add(len(group), sum(_seconds(heard, rate) for heard in group))


def _is_new(id: str, names: set[str], report: Report) -> bool:
    if id in names:
        report.left_out(id, "another clip has this name", "rename one, or encode them into folders of their own")
        return False
    names.add(id)
    return True


def hear_clip(clip: AudioClip, rate: int, max_seconds: float) -> Heard:
    """The samples of a clip at `rate` Hz, unless they cannot be used."""
    report = Report(log=False)
    if clip.source is None:
        return Heard(clip.utterance, None, [], True)
    try:
        heard = read_audio(
            clip.source, where=clip.where, min_seconds=0.0, max_seconds=max_seconds, sample_rate=rate, silence=True
        )
        if not len(heard.samples):
            raise AudioError(f"{clip.where}: shorter than one sample at {rate} Hz; remove it")
    except AudioError as error:
        report.left_out(clip.where, *cause_and_cure(error, clip.where))
        return Heard(clip.utterance, None, report.entries, False)
    for note in heard.notes:
        report.note(clip.where, note)
    return Heard(clip.utterance, heard.samples, report.entries, True)


def _seconds(heard: Heard, rate: int) -> float:
    return 0.0 if heard.samples is None else len(heard.samples) / rate


def decode_records(
    runner: CodecRunner, sha256: str, records: Records, folder: Path, *, progress: bool = True
) -> Report:
    """Writes FOLDER/ID.wav of every utterance that has codes, 16-bit at the codec's rate, and the report beside them.

    sha256: of the runner's codec.
    Raises:
      ValueError: a folder that is not empty, records without codes of this codec, or no utterance of use.
      OSError: a full disk.
    """
    check_codec(records, sha256)
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder} is not empty: name another folder, so that no file is written over")
    folder.mkdir(parents=True, exist_ok=True)
    report, written = Report(), 0
    frame_rate, rate = runner.codec.frame_rate, runner.codec.config.sample_rate
    with HoursBar("decoding", show=progress, total=len(records)) as bar:
        utterances = (replace(utterance, audio=None) for utterance in records)
        for group in in_groups(utterances, lambda u: len(u.codes.get(sha256, ())) / frame_rate):
            fine = [u for u in group if _may_be_written(u, sha256, runner, folder, report)]
            for utterance, samples_N in zip(fine, runner.decode([u.codes[sha256] for u in fine]), strict=True):
                written += _write_wav(folder / f"{utterance.id}.wav", samples_N, rate, utterance.id, report)
            bar.add(len(group), sum(u.codes[sha256].n_samples for u in fine) / rate)
    report.save(folder / REPORT)
    if not written:
        raise ValueError(f"no utterance of {records.folder} could be decoded: see {folder / REPORT}")
    return report


def kept_levels(records: Records, sha256: str) -> int | None:
    """Levels of the codes of this codec, as far as the manifest says. Raises ValueError as `check_codec`."""
    check_codec(records, sha256)
    return next(c.get(KEPT_LEVELS) for c in records.manifest["codecs"] if c["sha256"] == sha256)


def check_codec(records: Records, sha256: str) -> None:
    """Raises ValueError, naming codecs, if the records hold no codes of this one."""
    known = {codec["sha256"]: codec["name"] for codec in records.manifest.get("codecs", ())}
    if not known:
        raise ValueError(f"{records.folder} holds no codes: make some by launch/encode_audio.py")
    if sha256 not in known:
        theirs = ", ".join(f"{name} ({hash[:12]})" for hash, name in known.items())
        raise ValueError(
            f"{records.folder} holds codes of {theirs}, not of this codec ({sha256[:12]}), to which they would mean "
            "other sounds: give the codec that made them"
        )


def _may_be_written(u: Utterance, sha256: str, runner: CodecRunner, folder: Path, report: Report) -> bool:
    if sha256 not in u.codes:
        report.left_out(u.id, "it has no codes of this codec", "encode it")
        return False
    try:
        check_inside(folder, u.id)
        runner.check(u.codes[sha256])
    except ValueError as error:
        report.left_out(u.id, *cause_and_cure(error, u.id))
        return False
    return True


def check_inside(folder: Path, id: str) -> None:
    """Raises ValueError for an id, of records from elsewhere perhaps, whose file would not lie in the folder."""
    if not (folder / f"{id}.wav").resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"the name '{id}' would lead out of the folder; rename it")


def _write_wav(path: Path, samples_N: np.ndarray, rate: int, id: str, report: Report) -> bool:
    if not np.isfinite(samples_N).all():
        report.left_out(id, "the codec gives samples that are not finite", "train the codec further, or use another")
        return False
    if over := write_wav(path, samples_N, rate):
        report.note(id, f"{over} samples cut at full scale")
    return True


def in_groups(items: Iterable, seconds_of) -> Iterator[list]:
    """The items in their order, in groups of about GROUP_SECONDS."""
    group, seconds = [], 0.0
    for item in items:
        group.append(item)
        seconds += seconds_of(item)
        if seconds >= GROUP_SECONDS:
            yield group
            group, seconds = [], 0.0
    if group:
        yield group


def read_ahead(readers: ThreadPoolExecutor, function, items: Sequence) -> Iterator:
    """`map` by threads, a few items ahead of who takes them."""
    for first in range(0, len(items), _READ_AHEAD):
        yield from readers.map(function, (items[i] for i in range(first, min(first + _READ_AHEAD, len(items)))))
