"""The prompts of the telephone exchange Asterisk, as Debian packs them: studio speech at 16 kHz, one voice a language,
20 to 30 minutes each.

Two packages a language (en, es, fr, it, ru) are needed, asterisk-core-sounds-LANGUAGE with the transcripts and
asterisk-core-sounds-LANGUAGE-g722 with the sound:

    apt-get download asterisk-core-sounds-en asterisk-core-sounds-en-g722
    for file in *.deb; do dpkg -x $file FOLDER; done

The recordings are under CC-BY-SA-3.0 (Allison Smith: en, es; June Wallack: fr) and CC-BY-3.0 (Carlo Flora: it;
ivrvoice.ru: ru), see usr/share/doc/*/copyright: name them where you give on what was made of them.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from jaxslm.audio.g722 import load_av
from jaxslm.data.report import Report
from jaxslm.data.sources import RawUtterance, split_of

# By the end of a folder's name: en_US_f_Allison.
SPEAKERS = {"Allison": "Allison Smith", "June": "June Wallack", "Carlo": "Carlo Flora", "IvrvoiceRU": "ivrvoice.ru"}
_STAGE = re.compile(r"[\[\]()<>]")  # "[ascending tones]", "(1 second of silence)", "<beep>", "at [@]"


def read(spec: Mapping, report: Report) -> Iterator[RawUtterance]:
    """Reads the prompts of one language; ids are names of files, such as "digits/1".

    Keys of the spec: path ("/" where both packages are installed, or the folder that `dpkg -x` unpacked both into),
    language ("en"), heldout (0.05).
    """
    load_av()
    language = spec.get("language") or "en"
    transcript, folders = _places(Path(spec["path"]), language)
    lines = _lines(transcript)
    for folder in folders:
        audio = {str(f.relative_to(folder).with_suffix("")): f for f in sorted(folder.rglob("*.g722"))}
        for number, line in lines:
            where = f"{transcript}:{number}"
            id, colon, text = (part.strip() for part in line.partition(":"))
            if not colon or not text:
                audio.pop(id, None)
                report.left_out(where, "no transcript after the name", 'write "NAME: TRANSCRIPT"')
            elif id not in audio:
                report.left_out(where, f"no file '{id}.g722' in {folder.name}", "restore the file, or remove the line")
            elif _STAGE.search(text):
                del audio[id]
                report.left_out(where, "brackets in the transcript: it says what is heard, not what is said")
            else:
                yield RawUtterance(
                    id=id,
                    where=where,
                    text=text,
                    audio=audio.pop(id),
                    speaker=SPEAKERS.get(folder.name.split("_")[-1], folder.name),
                    language=language,
                    split=split_of(id, spec.get("heldout", 0.05)),
                )
        for file in audio.values():
            report.left_out(str(file), f"no line for it in '{transcript.name}'", "add its transcript")


def _places(path: Path, language: str) -> tuple[Path, list[Path]]:
    """The file of transcripts and the folders of sound. Raises ValueError if either is not there."""
    transcript = path / f"usr/share/doc/asterisk-core-sounds-{language}/core-sounds-{language}.txt.gz"
    folders = [
        folder for folder in sorted((path / "usr/share/asterisk/sounds").glob(f"{language}_*")) if folder.is_dir()
    ]
    folders = [folder for folder in folders if not folder.is_symlink() and any(folder.rglob("*.g722"))]
    if transcript.is_file() and folders:
        return transcript, folders
    package = f"asterisk-core-sounds-{language}" + ("-g722" if transcript.is_file() else "")
    lacking = f"sounds/{language}_*/*.g722" if transcript.is_file() else f"{transcript.relative_to(path)}"
    raise ValueError(
        f"{path}: no {lacking} there; apt-get download {package}, unpack it by dpkg -x into a folder and name that (an "
        "installation may leave usr/share/doc out, and containers do)"
    )


def _lines(transcript: Path) -> list[tuple[int, str]]:
    """(number, line) of the lines that are no comments; in UTF-8, or else in Latin-1."""
    try:
        raw = gzip.decompress(transcript.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{transcript}: cannot be unpacked ({error}); download its package again") from error
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    lines = enumerate(text.replace("\r\n", "\n").split("\n"), 1)
    return [(number, line.strip()) for number, line in lines if line.strip() and not line.startswith(";")]
