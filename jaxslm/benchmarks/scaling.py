"""How a step grows with the machine, by plans: python launch/bench.py scaling --config=FILE --folder=DIR [--chip=v5e]

Weak scaling: the rows of a chip stay as many, from 8 to 256 chips of one slice, parameters sharded over all of them;
then over 1 to 8 slices, parameters sharded within each and gradients summed between them. Draws `scaling.png` into the
folder: the compiler's cycles, the planned time, and the bytes of each kind of communication, all of one chip.
`ours` is the planned speed of a chip on the largest slice, `peer` on the smallest that it fits on: their ratio is the
efficiency.
"""

import copy
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from ml_collections import ConfigDict

from jaxslm import configure
from jaxslm.benchmarks.measure import report
from jaxslm.commands import make_parser
from jaxslm.planning.chips import described_devices
from jaxslm.planning.plan import Plan, make_plan

SLICES = {  # 8 to 256 chips
    "v5e": ("2x4", "4x4", "4x8", "8x8", "8x16", "16x16"),
    "v6e": ("2x4", "4x4", "4x8", "8x8", "8x16", "16x16"),
    "v5p": ("2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8"),
}
NUMBERS = (1, 2, 4, 8)  # of slices, each of the fourth shape


def run(argv: Sequence[str]) -> dict[str, Any]:
    """Plans of which the folder has a record are read, not made again."""
    parser = make_parser(__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="where plans and the picture go")
    parser.add_argument("--chip", choices=tuple(SLICES), default="v5e")
    parser.add_argument("--rows", type=int, default=2, help="of the context length, on each chip")
    config, others = configure.from_arguments(argv)
    flags = parser.parse_args(others)
    if config is None:
        parser.error("--config=FILE.py is needed")
    flags.folder.mkdir(parents=True, exist_ok=True)
    shapes = SLICES[flags.chip]
    within = [_record(flags, config, shape, 1) for shape in shapes]
    between = [_record(flags, config, shapes[3], number) for number in NUMBERS]
    draw(within, between, f"{flags.chip}, {flags.rows} rows a chip", flags.folder / "scaling.png")
    speeds = [record["tokens_per_s_per_chip"] for record in within if record["fits"]]
    return report(
        "scaling",
        ours=speeds[-1],
        peer=speeds[0],
        unit="planned tokens/s of a chip, largest and smallest slice that it fits on",
        shapes=dict(chip=flags.chip, rows=flags.rows, context_length=config.data.context_length),
        packages=("jax",),
        within=within,
        between=between,
    )


def _record(flags: Any, config: ConfigDict, shape: str, slices: int) -> dict[str, Any]:
    path = flags.folder / f"{flags.chip}-{shape}x{slices}.json"
    if not path.exists():
        topology = f"{flags.chip}:{shape}"
        devices = described_devices(topology, slices)
        changed = copy.deepcopy(config)
        with changed.unlocked():
            changed.data.batch_size = flags.rows * len(devices)
            changed.mesh.update(data=slices, fsdp=-1, tensor=1, sequence=1)
        plan = make_plan(changed, devices, topology)
        path.write_text(json.dumps(record_of(plan)))
        print(f"{path.stem}: {plan.step_seconds:.3f} s a step", file=sys.stderr)
    return json.loads(path.read_text())


def record_of(plan: Plan) -> dict[str, Any]:
    """What is drawn of a plan: bytes by kind of communication. None where the plan does not know."""
    bytes_of: dict[str, int] = {}
    for each in plan.collectives:
        name = f"{each.kind}, between slices" if each.across else each.kind
        bytes_of[name] = bytes_of.get(name, 0) + each.bytes
    figures = dict(
        chips=plan.chips,
        slices=plan.slices,
        cycles=plan.cycles,
        step_seconds=plan.step_seconds,
        communication_seconds=plan.communication_seconds,
        tokens_per_s_per_chip=plan.tokens_per_s / plan.chips,
        mfu=plan.mfu,
        peak_bytes=plan.memory.peak,
        fits=plan.memory.fits,
        bytes=bytes_of,
    )
    unknown = {name for name, value in figures.items() if isinstance(value, float) and not math.isfinite(value)}
    return figures | dict.fromkeys(unknown)


def draw(within: Sequence[dict], between: Sequence[dict], title: str, picture: Path) -> None:
    figure = Figure(figsize=(9, 6.5), layout="constrained")
    figure.suptitle(title)
    panels = figure.subplots(3, 2, sharex="col", sharey="row")
    for column, (records, size, label) in enumerate(
        ((within, "chips", "chips of one slice"), (between, "slices", f"slices of {between[0]['chips']} chips"))
    ):
        x = [record[size] for record in records]
        cycles, seconds, travel = panels[:, column]
        cycles.plot(x, [(record["cycles"] or math.nan) / 1e6 for record in records], "o-", color="black")
        for name, values in (("step", "step_seconds"), ("communication alone", "communication_seconds")):
            seconds.plot(x, [record[values] or math.nan for record in records], "o-", label=name)
        for name in sorted({name for record in records for name in record["bytes"]}):
            travel.plot(
                x,
                [record["bytes"].get(name, 0) / 1e9 if record["bytes"] else math.nan for record in records],
                "o-",
                label=name,
            )
        for axes in (cycles, seconds, travel):
            _finish(axes, x)
        for axes in (seconds, travel):
            axes.legend(frameon=False, fontsize=8)
        travel.set_xlabel(label)
    for axes, label in zip(panels[:, 0], ("M cycles (compiler)", "seconds (planned)", "GB of a chip"), strict=True):
        axes.set_ylabel(label)
        axes.set_ylim(0, 1.05 * axes.get_ylim()[1])  # of both columns
    FigureCanvasAgg(figure)
    figure.savefig(picture, dpi=100)


def _finish(axes: Axes, x: Sequence[int]) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xticks(x, [str(n) for n in x])
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
