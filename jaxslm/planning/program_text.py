"""What a compiled program does, read from its text: cycles, kernels and collectives, loops times their trip counts.

XLA's own cost analysis counts the body of a loop once; the text says how often it runs.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
BYTES = dict(pred=1, s8=1, u8=1, f8e4m3fn=1, f8e5m2=1, bf16=2, f16=2, s16=2, u16=2, f32=4, s32=4, u32=4, f64=8, s64=8)

COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%([\w.\-]+) = (.*)$")
CALLED = re.compile(r"(?:calls|to_apply|body|called_computations?)=\{?%([\w.\-]+)")
CHANNEL = re.compile(r"channel_id=(\d+)")
BARRIER = re.compile(r'"barrier_config":\{"barrier_type":"\w+","id":"(\d+)"')
BETWEEN_SLICES = re.compile(r'_xla_megascale_transfer_type="(\w+)"')  # the hosts of a slice send and sum there
BRANCHES = re.compile(r"(?:branch_computations=\{|true_computation=)%?([\w.\-]+)")


@dataclass(frozen=True)
class Instruction:
    """times: how often it runs in a step. scattered: an all-reduce of which a fusion keeps the own shard alone."""

    name: str
    type: str
    opcode: str
    text: str
    times: int
    scattered: bool = False

    @property
    def cycles(self) -> int:
        """The compiler's estimate for one run; 0 where it has none, as of kernels."""
        found = re.search(r'estimated_cycles":"(\d+)"', self.text)
        return int(found[1]) if found else 0

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Of the arrays it returns."""
        return [
            tuple(int(n) for n in dims.split(",") if n) for dims in re.findall(r"\b[a-z]\w*\[([\d,]*)\]", self.type)
        ]

    @property
    def scope(self) -> str:
        found = re.search(r'op_name="([^"]*)"', self.text)
        return found[1] if found else ""


@dataclass
class Work:
    """Of one chip in one step. `loops` are the same figures of each loop and of what is outside of all."""

    cycles: float = 0.0
    kernels: list[Instruction] = field(default_factory=list)
    collectives: Counter = field(default_factory=Counter)  # (kind, mesh axes) -> bytes
    blocking: Counter = field(default_factory=Counter)  # those of `collectives` beside which nothing runs
    calls: Counter = field(default_factory=Counter)  # (kind, mesh axes) -> number


def read(text: str) -> list[tuple[str, Instruction]]:
    """(loop it is in, instruction) of all that the program runs, in order; "" is the loop of what is in none."""
    computations, entry = _computations(text)
    return list(_walk(computations, entry, "", 1))


def work_by_loop(text: str, mesh_shape: Mapping[str, int]) -> dict[str, Work]:
    """Work of each loop. `mesh_shape`: size of each mesh axis, in the order of the mesh."""
    loops: dict[str, Work] = {}
    # A collective that runs beside other work is in the text where it starts, goes on and ends. In shard_map all have
    # the same channel, but not the same barrier while they run.
    seen = set()
    for loop, instruction in read(text):
        work = loops.setdefault(loop, Work())
        work.cycles += instruction.cycles * instruction.times
        if instruction.opcode == "custom-call" and "tpu_custom_call" in instruction.text:
            work.kernels.append(instruction)
        if instruction.opcode == "send" and (found := BETWEEN_SLICES.search(instruction.text)):
            key = found[1].lower().replace("_", "-"), "data"  # sharding.py lets nothing else go between slices
            work.collectives[key] += instruction.times * sizes(instruction.type)[0]
            work.calls[key] += instruction.times
        kind = instruction.opcode.removesuffix("-start")
        mark = loop, *(found[1] if (found := each.search(instruction.text)) else "" for each in (CHANNEL, BARRIER))
        again = "async_collective_fusion_config" in instruction.text and mark in seen
        if kind in COLLECTIVES and not again:
            seen.add(mark)
            size = instruction.times * _travelling(instruction)
            key = "reduce-scatter" if instruction.scattered else kind, axes_of_groups(instruction.text, mesh_shape)
            work.collectives[key] += size
            work.calls[key] += instruction.times
            if kind == instruction.opcode and "async_collective_fusion_config" not in instruction.text:
                work.blocking[key] += size
    return loops


def sizes(type_text: str) -> list[int]:
    """Bytes of each array of a type."""
    found = re.findall(r"\b([a-z]\w*)\[([\d,]*)\]", type_text)
    return [BYTES[kind] * math.prod(int(n) for n in shape.split(",") if n) for kind, shape in found if kind in BYTES]


def _travelling(collective: Instruction) -> int:
    """Bytes of all arrays that are gathered, summed or passed on, whole."""
    named, n = sum(sizes(collective.type)), len(_first_group(collective.text) or [0])
    if collective.opcode.endswith("-start"):
        named = sum(sizes(re.sub(r"\b[a-z]\w*\[\]", "", collective.type)))  # not what the devices tell each other by
    if collective.opcode == "reduce-scatter":  # its type is that of a shard
        return named * n
    if collective.opcode in ("all-gather-start", "reduce-scatter-start"):  # shards and what they make together
        return named * n // (n + 1)
    if collective.opcode in ("collective-permute-start", "all-to-all-start"):  # what goes and what comes
        return named // 2
    return named


def axes_of_groups(text: str, mesh_shape: Mapping[str, int]) -> str:
    """Mesh axes that a collective goes along, as "data+fsdp"; "?" if its groups are none of the mesh's."""
    group = _first_group(text)
    if group is None:
        return "?"
    names = [name for name, size in mesh_shape.items() if size > 1]
    ids = np.arange(math.prod(mesh_shape.values())).reshape(tuple(mesh_shape.values()) or (1,))
    for chosen in range(2 ** len(names)):
        along = {name for i, name in enumerate(names) if chosen >> i & 1}
        index = tuple(slice(None) if name in along else 0 for name in mesh_shape)
        if set(np.ravel(ids[index]).tolist()) == group:
            return "+".join(name for name in names if name in along) or "none"
    return "?"


def _first_group(text: str) -> set[int] | None:
    """The partitions that partition 0 works with, in any of XLA's notations."""
    if found := re.search(r"replica_groups=\{\{([\d,]+)\}", text):
        return {int(n) for n in found[1].split(",")}
    if found := re.search(r"replica_groups=\[(\d+),(\d+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", text):
        dims = [int(n) for n in found[3].split(",")]
        ids = np.arange(math.prod(dims)).reshape(dims)
        ids = ids.transpose([int(n) for n in found[4].split(",")]) if found[4] else ids
        groups = ids.reshape(int(found[1]), int(found[2]))
        return next(set(row.tolist()) for row in groups if 0 in row)
    if found := re.search(r"replica_groups=mesh\[([^\]]*)\](?:, device_ids=\((.*?)\))? \{([^}]*)\}", text):
        shape = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", found[1])}
        along = set(re.findall(r"'([^']+)'", found[3]))
        ids = np.arange(math.prod(shape.values()))
        if found[2]:
            ids = _listed(found[2], ids.size)
        ids = ids.reshape(tuple(shape.values()))
        position = np.argwhere(ids == 0)[0]
        index = tuple(slice(None) if name in along else position[i] for i, name in enumerate(shape))
        return set(np.ravel(ids[index]).tolist())
    if found := re.search(r"source_target_pairs=\{(.*?)\}\}", text):
        pairs = [tuple(map(int, pair)) for pair in re.findall(r"(\d+),(\d+)", found[1])]
        targets, group, at = dict(pairs), {0}, 0
        while (at := targets.get(at, 0)) not in group:
            group.add(at)
        return group
    return None


def _listed(text: str, size: int) -> np.ndarray:
    """Device ids of a mesh: "0,2,1,3" or "[2,2]T(1,0)"."""
    if found := re.match(r"\[([\d,]+)\]T\(([\d,]+)\)", text):
        dims = [int(n) for n in found[1].split(",")]
        return np.arange(size).reshape(dims).transpose([int(n) for n in found[2].split(",")]).ravel()
    return np.array([int(n) for n in re.findall(r"\d+", text)])


Computations = Mapping[str, Sequence[tuple[str, str, str, str]]]


def _computations(text: str) -> tuple[Computations, str]:
    computations: dict[str, list] = {}
    entry, lines = "", None
    for line in text.splitlines():
        if head := COMPUTATION.match(line):
            lines = computations.setdefault(head[2], [])
            entry = head[2] if head[1] else entry
        elif lines is not None and (found := INSTRUCTION.match(line)):
            type_text, opcode = _apart(found[2])
            lines.append((found[1], type_text, opcode, found[2]))
    return computations, entry


def _apart(text: str) -> tuple[str, str]:
    """(type, opcode) of what is right of the equals sign."""
    if text[0] != "(":
        type_text, rest = text.split(" ", 1)
        return type_text, rest.split("(")[0]
    depth = np.cumsum([(character == "(") - (character == ")") for character in text])
    end = int(np.argmin(depth > 0)) + 1
    return text[:end], text[end:].strip().split("(")[0]


def _walk(computations: Computations, name: str, loop: str, times: int) -> Iterator[tuple[str, Instruction]]:
    for label, type_text, opcode, text in computations[name]:
        if opcode == "while":
            body = _part(text, "body")
            yield from _walk(computations, body, body, times * _trips(computations, name, text))
            continue
        instruction = Instruction(label, type_text, opcode, text, times, name.startswith("all-reduce-scatter"))
        yield loop, instruction
        inside = CALLED.findall(text) if opcode in ("call", "async-start", "conditional") else []
        if opcode == "fusion" and ("kCustom" in text or not instruction.cycles):
            inside = CALLED.findall(text)  # collectives are started in custom fusions
        for called in inside:
            yield from ((where, x) for where, x in _walk(computations, called, loop, times))
        if opcode == "conditional" and (branches := BRANCHES.search(text)):
            yield from _walk(computations, branches[1], loop, times)


def _trips(computations: Computations, name: str, loop: str) -> int:
    """How often the loop, an instruction of the computation `name`, runs its body: from where it starts to a limit, in
    steps of whatever is added in the body. A start that is not a constant is 0."""
    if known := re.search(r'known_trip_count[^\d]*"?(\d+)', loop):
        return int(known[1])
    outside, inside, test = (
        {label: (opcode, text) for label, _, opcode, text in computations[part]}
        for part in (name, _part(loop, "body"), _part(loop, "condition"))
    )
    compared = next((text for opcode, text in test.values() if opcode == "compare"), "")
    counters = [test[operand][1] for operand in _operands(compared) if test[operand][0] == "get-tuple-element"]
    limits = [_constant(test, operand) for operand in _operands(compared)]
    limit = next((limit for limit in limits if limit is not None), None)
    if limit is None or not counters:
        return 1
    index = int(re.search(r"index=(\d+)", counters[0])[1])
    changed = inside[_operands(next(text for opcode, text in reversed(inside.values()) if opcode == "tuple"))[index]]
    added = [_constant(inside, operand) for operand in _operands(changed[1])] if changed[0] == "add" else []
    step = next((n for n in added if n), 1)
    started = outside.get(_operands(loop)[0], ("", ""))
    start = _constant(outside, _operands(started[1])[index]) if started[0] == "tuple" else None
    return -(-(limit - (start or 0)) // step)


def _part(loop: str, part: str) -> str:
    return re.search(rf"{part}=%([\w.\-]+)", loop)[1]


def _operands(text: str) -> list[str]:
    """Names between the parentheses behind the opcode."""
    found = re.search(r"[a-z][\w\-]*\(((?:/\*index=\d+\*/|[^()/])*)\)", text)  # types have none but capitals before "("
    return re.findall(r"%([\w.\-]+)", found[1]) if found else []


def _constant(lines: Mapping[str, tuple[str, str]], name: str) -> int | None:
    """Value of an integer constant, or of a copy of one."""
    opcode, text = lines.get(name, ("", ""))
    if opcode == "constant":
        found = re.search(r"constant\((-?\d+)\)", text)
        return int(found[1]) if found else None
    return _constant(lines, _operands(text)[0]) if opcode == "copy" else None
