"""Prepares the data of a config: python launch/prepare.py --config=configs/spiritlm_7b.py:tiny --cache=data/prepared

Audio is decoded, checked and aligned, units are learnt or taken, and all is written in shards that launch/train.py
finds under the same config and `--config.data.cache`. The same command goes on after a crash or a full disk, and looks
for damage in what is finished. Several processes with the cache in common share the work, see launch/train.py.
"""

import argparse
import logging
import sys
from pathlib import Path

from jaxslm import configure
from jaxslm.commands import last_words
from jaxslm.training import distributed


def main() -> None:
    logging.basicConfig(format="%(message)s", force=True)
    logging.getLogger("jaxslm").setLevel(logging.INFO)
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--config", metavar="FILE.py[:ARG]", help="such as configs/spiritlm_7b.py:tiny")
    parser.add_argument("--cache", help="folder for prepared data; default: data.cache of the config")
    parser.add_argument("--workers", type=int, help="processes that decode and align; default: one a core")
    try:
        config, others = configure.from_arguments(sys.argv[1:])
    except configure.ConfigError as error:
        sys.exit(f"error: {error}")
    flags = parser.parse_args(others)
    if config is None:
        parser.error("--config=FILE.py[:ARG] is required")
    if flags.workers is not None and flags.workers < 1:
        parser.error(f"--workers={flags.workers}: at least 1")

    try:
        distributed.start()
        from jaxslm.data.prepare import prepare
        from jaxslm.data.records import Records

        cache = Path(flags.cache or config.data.cache).expanduser()
        prepared = prepare(config.data, cache, workers=flags.workers, check=True, **distributed.share_of(cache))
        manifest = Records(prepared.folder, "").manifest
    except (ValueError, OSError, RuntimeError) as error:
        sys.exit(last_words(error))
    for split, hours in sorted(manifest["hours"].items()):
        print(f"{split}: {manifest['utterances'][split]} utterances, {hours:.2f} h of audio")
    print(f"audio and report: {prepared.folder} (left out: {prepared.report.count()}, see report.jsonl)")
    if prepared.units:
        print(f"units: {prepared.units} ({prepared.inventory.name}, {prepared.inventory.sha256[:12]})")


if __name__ == "__main__":
    main()
