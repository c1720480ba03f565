"""Writes a run as a Hugging Face folder: python launch/export_hf.py --workdir=runs/spiritlm --out=FOLDER --verify

`transformers` loads the folder with nothing of jaxslm installed. `--verify` loads it so and compares: logits on hard
inputs, 64 greedy tokens, and every added token through the tokenizer (needs torch and transformers: extra `hf`). With a
run's own exports (`--config.export.every=N`) `--verify --out=FOLDER` checks a folder that is there.
A run of a codec becomes EnCodec, Mimi or DAC, in float32, where that architecture has all that it does (encodec_24k,
mimi_24k and dac_16k have); `--verify` compares its hash, codes and samples.
"""

import argparse
import logging
import sys
from pathlib import Path

from jaxslm.configure import read_config
from jaxslm.hf.tensors import DTYPES
from jaxslm.tasks.codec import export_codec
from jaxslm.tasks.export import MAX_FILE_GB, export_run, exported_step
from jaxslm.training.checkpoint import CheckpointError

log = logging.getLogger(__name__)


def main() -> None:
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--workdir", type=Path, required=True, help="of a training run")
    parser.add_argument("--out", type=Path, required=True, help="folder to make")
    parser.add_argument("--step", type=int, help="checkpoint to export; default: the newest")
    parser.add_argument("--dtype", choices=tuple(DTYPES), default="bfloat16")
    parser.add_argument("--max_file_gb", type=float, default=MAX_FILE_GB, help="size of a weights file; default: 5")
    parser.add_argument("--verify", action="store_true", help="compare the folder in transformers with the run")
    flags = parser.parse_args()
    try:
        config = read_config(flags.workdir)
        if config.task == "codec":
            return export_or_verify_codec(flags)
        if flags.verify and flags.out.exists():
            step = exported_step(flags.out)
            if flags.step not in (None, step):
                raise ValueError(
                    f"{flags.out} has step {step}, not {flags.step}: remove it, or write to another folder"
                )
            print(f"{flags.out} is there, with step {step}: it is compared, not written")
        else:
            options = dict(step=flags.step, dtype=flags.dtype, max_file_gb=flags.max_file_gb)
            step = export_run(flags.workdir, config, flags.out, **options)
            print(f"step {step} of {flags.workdir} is in {flags.out}")
        if flags.verify:
            from jaxslm.tasks.verify import verify_export

            report = verify_export(flags.workdir, config, flags.out, step)
            print(report)
            sys.exit(0 if report.equal else 1)
    except (ValueError, CheckpointError, OSError) as error:
        parser.exit(2, f"{error}\n")


def export_or_verify_codec(flags: argparse.Namespace) -> None:
    if flags.dtype != "bfloat16" or flags.max_file_gb != MAX_FILE_GB:
        raise ValueError("a codec is written in float32 and one file: leave out --dtype and --max_file_gb")
    step = flags.step
    if flags.verify and flags.out.exists():
        print(f"{flags.out} is there: it is compared, not written")
    else:
        step = export_codec(flags.workdir, flags.out, step)
        print(f"step {step} of {flags.workdir} is in {flags.out}")
    if flags.verify:
        from jaxslm.tasks.codec_verify import verify_codec

        print(verify_codec(flags.workdir, flags.out, step))


if __name__ == "__main__":
    main()
