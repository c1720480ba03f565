"""Prepares the data of a config: python launch/prepare.py --config=configs/spiritlm_7b.py:tiny --cache=data/prepared

Audio is decoded, checked and aligned, units are learnt or taken, and all is written in shards that launch/train.py
finds under the same config and `--config.data.cache`. The same command goes on after a crash or a full disk, and looks
for damage in what is finished. Several processes with the cache in common share the work, see launch/train.py.
"""

import sys
from pathlib import Path

from jaxslm.commands import last_words, make_parser, parse
from jaxslm.training import distributed


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--cache", help="folder for prepared data; default: data.cache of the config")
    parser.add_argument("--workers", type=int, help="processes that decode and align; default: one a core")
    config, flags = parse(parser)
    if flags.workers is not None and flags.workers < 1:
        parser.error(f"--workers={flags.workers}: at least 1")

    try:
        distributed.start()
        from jaxslm.data.prepare import prepare
        from jaxslm.data.records import Records, codes_name
        from jaxslm.tasks.codec_files import open_codec

        cache, place = Path(flags.cache or config.data.cache).expanduser(), config.data.get("codec")
        how = dict(codec=open_codec(Path(place).expanduser()) if place else None, workers=flags.workers, check=True)
        prepared = prepare(config.data, cache, **how, **distributed.share_of(cache))
        manifest = Records(prepared.folder, "").manifest
    except (ValueError, OSError, RuntimeError) as error:
        sys.exit(last_words(error))
    for split, hours in sorted(manifest["hours"].items()):
        print(f"{split}: {manifest['utterances'][split]} utterances, {hours:.2f} h of audio")
    print(f"audio and report: {prepared.folder} (left out: {prepared.report.count()}, see report.jsonl)")
    if prepared.units:
        print(f"units: {prepared.units} ({prepared.inventory.name}, {prepared.inventory.sha256[:12]})")
    if prepared.codec:
        about = prepared.codec
        print(f"codes: {prepared.folder / codes_name(about['sha256'])} ({about['name']}, {about['sha256'][:12]})")


if __name__ == "__main__":
    main()
