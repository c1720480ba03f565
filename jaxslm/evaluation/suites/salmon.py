"""SALMon: does a model find a recording likelier whose speaker, sentiment, room or background fits itself or its words?

Layout (github.com/slp-rl/salmon, salmon.py): `<part>/sample_<number>_*.wav`, two of a number, the first by name the
right one. The recordings are CC-BY-NC.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from jaxslm.data.report import Report
from jaxslm.evaluation.choices import Choice, Part
from jaxslm.evaluation.suites.files import CHOICE
from jaxslm.spelling import closest

PARTS = (
    "bg_alignment",
    "bg_all_consistency",
    "bg_domain_consistency",
    "gender_consistency",
    "rir_consistency",
    "sentiment_alignment",
    "sentiment_consistency",
    "speaker_consistency",
)


def read(folder: str | Path, report: Report, *, parts: str | Sequence[str] = PARTS) -> Iterator[Choice]:
    """One choice a sample, part by part, with the tag `part`. A part that is not there is left out, unless all are."""
    folder, parts = Path(folder), (parts,) if isinstance(parts, str) else parts
    for part in parts:
        if part not in PARTS:
            raise ValueError(f"SALMon has no part {part!r}: it has {', '.join(PARTS)}.{closest(str(part), PARTS)}")
    if not any((folder / part).is_dir() for part in parts):
        raise ValueError(f"{folder}: expected {', '.join(parts)} there, with wavs sample_<number>_*.wav in each")
    for part in parts:
        if not any((folder / part).glob("*.wav")):
            cure = f"restore the part, or leave it out of parts ({', '.join(parts)})"
            report.left_out(str(folder / part), "no wavs there", cure, what="part")
        yield from _read_part(folder / part, report)


def _read_part(folder: Path, report: Report) -> Iterator[Choice]:
    samples: dict[int, list[Path]] = defaultdict(list)
    for path in sorted(folder.glob("*.wav")):
        kind, _, rest = path.stem.partition("_")
        number, _, option = rest.partition("_")
        if kind == "sample" and option and number.isascii() and number.isdigit():
            samples[int(number)].append(path)
        else:
            cure = "call it so, or move it elsewhere"
            report.left_out(str(path), "not called sample_<number>_*.wav", cure, what="recording")
    for number, paths in sorted(samples.items()):
        if len(paths) != 2:
            cause = f"{len(paths)} recording(s) of the sample, not 2"
            report.left_out(f"{folder}/sample_{number}", cause, "restore the pair", what=CHOICE)
        else:
            options = tuple((Part(audio=(path,)),) for path in paths)
            yield Choice(f"{folder.name}/{number}", options, tags={"part": folder.name})
