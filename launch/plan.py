"""What a training step needs on hardware that is not here: python launch/plan.py --config=FILE --topology=v5e:8x8

Compiles the real step for the described chips, on any machine: memory, collectives, estimated time and MFU of a chip,
and what each process has to do. `--suggest` tries meshes, remat choices and parts of the batch. Flags are those of
launch/flags, unless LIBTPU_INIT_ARGS is set. The compiled program is kept with those of training (data.cache/compiled,
or JAX_COMPILATION_CACHE_DIR), for a pod that sees that folder, with the same versions and flags; that a pod takes it
from there has not been tried.
"""

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

from jaxslm.commands import last_words, make_parser, parse


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--topology", required=True, help="such as v5e:8x8, v5p:2x4x4, v6e:16x16; local: what is here")
    parser.add_argument("--num_slices", type=int, default=1, help="slices of that shape, joined by the data center")
    parser.add_argument("--suggest", action="store_true", help="try settings, and print the fastest that fit")
    parser.add_argument("--json", action="store_true", help="print JSON")
    config, flags = parse(parser)
    try:
        if flags.topology != "local":
            os.environ["JAX_PLATFORMS"] = "cpu"  # the chips are described, none is here
            take_flags(flags.topology.partition(":")[0])
        from jaxslm.planning.chips import described_devices
        from jaxslm.planning.plan import make_plan
        from jaxslm.planning.report import as_json, as_table, as_text
        from jaxslm.planning.suggest import suggest
        from jaxslm.training.compiled import keep_programs

        keep_programs(config.data.cache)
        # A kept program cannot be read for chips that are not here.
        warnings.filterwarnings("ignore", message="Error reading persistent compilation cache entry")
        devices = described_devices(flags.topology, flags.num_slices)
        if flags.suggest:
            plans = suggest(config, devices, flags.topology, tried=_say)
            best = plans[0]
            print(json.dumps([as_json(plan) for plan in plans]) if flags.json else as_table(plans) + _best(best))
        else:
            best = make_plan(config, devices, flags.topology)
            print(json.dumps(as_json(best)) if flags.json else as_text(best))
    except (ValueError, OSError, RuntimeError) as error:
        sys.exit(last_words(error))
    sys.exit(0 if best.memory.fits else 2)


def take_flags(chip: str) -> None:
    """Sets those that launch/ scripts start a run with: they are part of the name under which the program is kept."""
    script = Path(__file__).parent / "flags" / f"tpu_{chip}.sh"
    if script.is_file() and "LIBTPU_INIT_ARGS" not in os.environ:
        words = ["bash", "-c", '. "$0"; printf %s "$LIBTPU_INIT_ARGS"', str(script)]
        os.environ["LIBTPU_INIT_ARGS"] = subprocess.run(words, capture_output=True, text=True, check=True).stdout


def _say(number: int, of: int, plan) -> None:
    fits = f"{plan.step_seconds:.3f} s" if plan.memory.fits else "does not fit"
    remat, rows = plan.settings["remat"], plan.settings["rows_at_once"]
    print(f"{number}/{of}  {dict(plan.mesh)} remat {remat}, {rows} rows at once: {fits}", file=sys.stderr)


def _best(plan) -> str:
    if not plan.memory.fits:
        return "\nNone fits: take more chips, or a smaller batch."
    mesh = " ".join(f"--config.mesh.{name}={plan.mesh.get(name, 1)}" for name in ("data", "fsdp", "tensor", "sequence"))
    settings = plan.settings
    return (
        f"\nfastest: {mesh} --config.model.remat={settings['remat']} "
        f"--config.optimizer.accumulate_steps={settings['accumulate_steps']}"
    )


if __name__ == "__main__":
    main()
