"""Codes to audio: python launch/decode_audio.py FOLDER --codec=runs/soundstream --out=WAVS

FOLDER holds records made by launch/encode_audio.py; the codec must be the one that made them. Writes WAVS/ID.wav for
every utterance, as long as what was encoded.
"""

import sys
from pathlib import Path

from jaxslm.commands import last_words, make_parser


def main() -> None:
    parser = make_parser(__doc__, config=False)
    parser.add_argument("records", type=Path, help="folder of records with codes")
    parser.add_argument("--codec", type=Path, required=True, help="workdir of a run, or folder of Hugging Face weights")
    parser.add_argument("--out", type=Path, required=True, help="folder for the WAV files; must be empty or new")
    parser.add_argument("--levels", type=int, help="first levels to decode; default: those of the codes")
    flags = parser.parse_args()
    try:
        from jaxslm.codec.identity import codec_sha256
        from jaxslm.codec.runner import CodecRunner
        from jaxslm.data.code_files import decode_records, kept_levels
        from jaxslm.data.records import Records
        from jaxslm.tasks.codec_files import open_codec

        records = Records(flags.records, inventory="")
        codec, _ = open_codec(flags.codec)
        sha256 = codec_sha256(codec)
        levels = kept_levels(records, sha256) if flags.levels is None else flags.levels
        report = decode_records(CodecRunner(codec, levels), sha256, records, flags.out)
    except (ValueError, OSError, RuntimeError) as error:
        sys.exit(last_words(error))
    print(report.summary())
    print(f"audio: {flags.out}")


if __name__ == "__main__":
    main()
