"""Audio to codes: python launch/encode_audio.py FILE_OR_FOLDER ... --codec=runs/soundstream --out=FOLDER

Takes audio files (WAV, FLAC, OGG, Opus, MP3, ...) of any rate and number of channels, folders of them, and folders of
prepared records, whose texts, units and word times are kept. Writes records with the codes and the hash of the codec;
launch/decode_audio.py makes sound of them again. What cannot be used is named, also in FOLDER/report.jsonl.
"""

import sys
from pathlib import Path

from jaxslm.commands import last_words, make_parser
from jaxslm.data.code_files import AudioClips, encode_clips


def main() -> None:
    parser = make_parser(__doc__, config=False)
    parser.add_argument("audio", type=Path, nargs="+", help="files and folders")
    parser.add_argument("--codec", type=Path, required=True, help="workdir of a run, or folder of Hugging Face weights")
    parser.add_argument("--out", type=Path, required=True, help="folder for the records; it must hold none")
    parser.add_argument("--levels", type=int, help="levels of codes to keep; default: all")
    parser.add_argument("--max_seconds", type=float, default=300.0, help="longer clips are left out; default: 300")
    flags = parser.parse_args()
    try:
        clips = AudioClips(flags.audio)

        from jaxslm.codec.identity import describe_codec
        from jaxslm.codec.runner import CodecRunner
        from jaxslm.evaluation.codec_metrics import bitrate
        from jaxslm.tasks.codec_files import open_codec

        codec, name = open_codec(flags.codec)
        described = describe_codec(codec, name)
        runner = CodecRunner(codec, flags.levels)
        report = encode_clips(runner, described, clips, flags.out, max_seconds=flags.max_seconds)
    except (ValueError, OSError, RuntimeError) as error:
        sys.exit(last_words(error))
    print(report.summary())
    kbps = bitrate(runner.sizes, codec.frame_rate) / 1000
    print(f"codes: {flags.out} ({name}, {described['sha256'][:12]}, {runner.n_levels} levels, {kbps:.3f} kbps)")


if __name__ == "__main__":
    main()
