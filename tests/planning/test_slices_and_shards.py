"""What plans read of meshes over slices and of a cut length, in lines that libtpu 0.0.50 compiled."""

from collections import Counter

import pytest

from jaxslm.planning.program_text import work_by_loop

BARRIER = 'backend_config={{"barrier_config":{{"barrier_type":"CUSTOM","id":"{id}"}}{more}}}'
RUNNING = ',"async_collective_fusion_config":{"flag_start":"-1","flag_end":"-1"}'


def program(*lines: str) -> str:
    return "\n".join(["ENTRY %main (x: f32[8]) -> f32[8] {", *(f"  {line}" for line in lines), "}"])


def gather(name: str, barrier: int, more: str = "") -> str:
    config = BARRIER.format(id=barrier, more=more)
    groups = "replica_groups=mesh['data'=2,'sequence'=4] {'sequence'}"
    return f"%{name} = bf16[1,1024,8,128]{{3,1,2,0}} all-gather(%x), channel_id=1, {groups}, {config}"


def test_what_goes_between_slices():
    """The shard that is left after a reduce-scatter inside of each slice, in a channel number that others have, too."""
    send = (
        "%send = (f32[256,8,128]{2,1,0:T(8,128)}, u32[]{:S(2)}, token[]) send(%x, %after-all), channel_id=1, "
        'frontend_attributes={_xla_host_transfer_rendezvous="all-reduce.1_0",_xla_megascale_target="{1,2}x{0:3}",'
        '_xla_megascale_transfer_type="ALL_REDUCE"}'
    )
    work = work_by_loop(program(send, gather("g", 0)), dict(data=2, sequence=4))[""]
    assert work.collectives == {("all-reduce", "data"): 2**20, ("all-gather", "sequence"): 2**21}


def test_collectives_of_one_channel_are_told_apart():
    """Keys and values are gathered in the same channel; what runs beside other work is written several times."""
    parts = [gather(f"part{n}", 2, RUNNING) for n in range(3)]
    text = program(gather("k", 0), gather("v", 0), *parts, gather("other", 3, RUNNING))
    assert work_by_loop(text, dict(data=2, sequence=4))[""].calls == Counter({("all-gather", "sequence"): 4})


@pytest.mark.parametrize(
    "line, size",
    [
        ("%a = (bf16[64,8]{1,0:T(8,128)(2,1)}, bf16[32,8]{1,0}) all-gather(%x, %y)", 1024 + 512),  # both are gathered
        ("%a = ((bf16[16,8]{1,0}, bf16[8,8]{1,0}), (bf16[64,8]{1,0}, bf16[32,8]{1,0})) all-gather-start(%x, %y)", 1536),
        ("%a = (f32[64]{0}, f32[16]{0}) reduce-scatter-start(%x)", 256),
        ("%a = (f32[16]{0}, f32[8]{0}) reduce-scatter(%x, %y)", 4 * (64 + 32)),
        ("%a = (f32[64]{0}, f32[8]{0}) all-reduce(%x, %y)", 256 + 32),
        ("%a = (f32[64]{0}, f32[8]{0}) all-reduce-start(%x, %y)", 256 + 32),
        ("%a = (f32[64]{0}, f32[64]{0}, u32[]{:S(2)}, u32[]{:S(2)}) all-to-all-start(%x)", 256),
    ],
)
def test_bytes_of_several_arrays_at_once(line, size):
    text = program(line + ", channel_id=1, replica_groups={{0,1,2,3},{4,5,6,7}}")
    (((_, axes), counted),) = work_by_loop(text, dict(data=2, sequence=4))[""].collectives.items()
    assert (axes, counted) == ("sequence", size)
