"""Plans for people and for programs."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from jaxslm.planning.plan import KERNEL_EFFICIENCY, Plan


def as_text(plan: Plan) -> str:
    """The report of one plan; GB are 1e9 bytes."""
    memory, host, settings = plan.memory, plan.host, plan.settings
    across = f" in {plan.slices} slices" if plan.slices > 1 else ""
    lines = [
        f"{plan.topology}: {plan.chips} chips{across}, {plan.hosts} processes; mesh {_mesh(plan)}",
        f"{plan.model_parameters / 1e9:.2f} B parameters; {_number(settings['rows_per_chip'])} x "
        f"{settings['context_length']:,} tokens a chip{_parts(settings)}; remat {settings['remat']}; compiled in "
        f"{plan.compile_seconds:.0f} s",
        "",
        "memory of a chip",
        _row("parameters", _gb(memory.parameters)),
        _row("optimizer", _gb(memory.optimizer)),
        _row("activations, gradients, workspace", _gb(memory.temporaries)),
        _row("batch and program", _gb(memory.batch + memory.program)),
        _row("peak", f"{_gb(memory.peak)}{_of(memory.peak, memory.capacity)}"),
    ]
    if memory.host:
        lines.append(_row("offloaded to the host", _gb(memory.host)))
    lines += ["", "collectives of a chip in a step, as compiled"]
    for each in plan.collectives:
        where = f"{each.axes}, between slices" if each.across else each.axes
        lines.append(_row(f"{each.kind} ({where})", f"{_gb(each.bytes)}  in {each.calls:,} calls"))
    if not plan.collectives:
        lines.append(_row("none", ""))
    lines += ["", "a step", *_step(plan), "", f"a process, of {host.chips} chips"]
    rate = f", {host.tokens_per_s:,.0f} tokens/s" if math.isfinite(host.tokens_per_s) else ""
    lines += [
        _row("data", f"{host.batch / 1e6:.2f} MB a step{rate}"),
        _row("checkpoint", f"{_gb(host.checkpoint)} to write, and that much host memory meanwhile"),
    ]
    if host.offloaded:
        lines.append(_row("offloaded tensors", f"{_gb(host.offloaded)} of host memory"))
    if not memory.fits:
        lines += ["", *_cure(plan)]
    return "\n".join(lines)


def _step(plan: Plan) -> list[str]:
    if not math.isfinite(plan.step_seconds):
        reason = "the compiler estimates cycles for TPUs alone" if plan.memory.fits else "it does not fit"
        return [_row("time", f"unknown: {reason}")]
    kernels = f"{plan.kernel_seconds:.3f} s, if they reach {KERNEL_EFFICIENCY:.0%} of the peak (assumed)"
    per_chip = plan.tokens_per_s / plan.chips
    return [
        _row("compiler's estimate", f"{plan.cycles / 1e6:,.0f} M cycles, {plan.compute_seconds:.3f} s"),
        _row("attention kernels", kernels),
        _row(
            "communication",
            f"{plan.communication_seconds:.3f} s; {plan.blocking_seconds:.3f} s of it block, the rest is "
            "hidden where there is as much to compute (assumed)",
        ),
        _row("time", f"{plan.step_seconds:.3f} s, {plan.tokens_per_s:,.0f} tokens/s, {per_chip:,.0f} a chip"),
        _row("MFU", f"{plan.mfu:.1%} of {plan.chip.peak_flops / 1e12:.0f} TFLOP/s a chip"),
    ]


def _cure(plan: Plan) -> list[str]:
    """What to change when a plan does not fit."""
    memory = plan.memory
    over = memory.peak - memory.capacity
    cures = []
    if plan.settings["rows_at_once"] > 1:
        cures.append(f"--config.data.batch_size={int(plan.settings['batch_size'] // 2)}, or as many rows and twice the "
                     f"optimizer.accumulate_steps ({plan.settings['accumulate_steps']} now)")  # fmt: skip
    if plan.settings["remat"] != "full":
        cures.append("--config.model.remat=full, which keeps only the input of each layer")
    if plan.settings["moment_dtype"] == "float32":
        cures.append(f"--config.optimizer.moment_dtype=bfloat16, for {_gb(memory.optimizer // 4)} less")
    if plan.mesh.get("data", 1) > 1 and memory.parameters + memory.optimizer > memory.capacity / 4:
        cures.append("--config.mesh.fsdp=-1 --config.mesh.data=1, which shards parameters over all chips of a slice")
    cures.append("more chips; or --suggest, which tries settings and prints those that fit")
    return [f"DOES NOT FIT: {_gb(over)} too much for a chip. Change one of:", *(f"  {cure}" for cure in cures)]


def as_json(plan: Plan) -> dict[str, Any]:
    """Everything the report says, numbers whole; bytes and seconds. NaN is None."""

    def plain(value: Any) -> Any:
        if isinstance(value, float):
            return value if math.isfinite(value) else None
        if isinstance(value, dict):
            return {name: plain(each) for name, each in value.items()}
        return [plain(each) for each in value] if isinstance(value, list | tuple) else value

    fields = plain(dataclasses.asdict(plan))
    fields["chip"] = plan.chip.name
    fields["memory"] |= dict(peak=plan.memory.peak, fits=plan.memory.fits)
    return fields


def as_table(plans: Sequence[Plan]) -> str:
    """One line a plan, for comparison."""
    head = ("mesh", "rows at once", "remat", "HBM", "M cycles", "step", "tokens/s a chip", "MFU")
    rows = [head]
    for plan in plans:
        settings, memory = plan.settings, plan.memory
        speed = f"{plan.cycles / 1e6:,.0f}", f"{plan.step_seconds:.3f} s", f"{plan.tokens_per_s / plan.chips:,.0f}"
        speed = speed if math.isfinite(plan.step_seconds) else ("", "", "")
        rows.append((
            _mesh(plan), _number(settings["rows_at_once"]), settings["remat"], f"{memory.peak / 1e9:.1f} GB",
            *speed, f"{plan.mfu:.1%}" if memory.fits else "does not fit",
        ))  # fmt: skip
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)


def _parts(settings: Mapping[str, Any]) -> str:
    parts = settings["accumulate_steps"]
    return f" in {parts} parts" if parts > 1 else ""


def _mesh(plan: Plan) -> str:
    return " ".join(f"{name}={size}" for name, size in plan.mesh.items())


def _row(name: str, value: str) -> str:
    return f"  {name:<36}{value}".rstrip()


def _gb(size: float) -> str:
    return f"{size / 1e9:.2f} GB"


def _of(size: int, capacity: int) -> str:
    return f" of {_gb(capacity)} ({size / capacity:.0%})" if capacity else ""


def _number(value: float) -> str:
    return f"{value:g}"
