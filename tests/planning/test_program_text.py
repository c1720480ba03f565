"""Loops, kernels and collectives read from the text of a program."""

from pathlib import Path

import pytest

from jaxslm.planning.program_text import axes_of_groups, read, sizes, work_by_loop

# As XLA writes for TPUs: a scan of 4 layers (each with a loop that goes from 1 to 17 by twos), a step outside.
SCAN = Path(__file__).with_name("scan.hlo").read_text()
MESH = dict(data=2, fsdp=2, tensor=1)


def test_work_counts_loops_as_often_as_they_run():
    loops = work_by_loop(SCAN, MESH)
    assert {name: work.cycles for name, work in loops.items()} == {
        "inner_body": 4 * 8 * 10,  # from 1 to 17 by twos
        "layer_body": 4 * 1000,
        "": 100_000,
    }
    (kernel,) = loops["layer_body"].kernels
    assert kernel.times == 4 and kernel.shapes[0] == (2, 4, 8, 16)


def test_collectives_are_counted_once_by_kind_and_axis():
    loops = work_by_loop(SCAN, MESH)
    assert loops["layer_body"].collectives == {("all-gather", "fsdp"): 4 * 16 * 4}  # of the result, not the operand
    assert loops["inner_body"].collectives == {("collective-permute", "fsdp"): 32 * 8 * 4}
    assert loops[""].collectives == {
        ("all-reduce", "data+fsdp"): 8 * 4,
        ("reduce-scatter", "data+fsdp"): 64 * 4,  # of which a fusion keeps a shard
        ("reduce-scatter", "data"): 2 * 2 * 4,  # its type is that of a shard
    }
    assert loops["inner_body"].calls == {("collective-permute", "fsdp"): 32}


def test_what_nothing_runs_beside_blocks():
    loops = work_by_loop(SCAN, MESH)
    assert loops[""].blocking == loops[""].collectives
    assert not loops["layer_body"].blocking and not loops["inner_body"].blocking  # started, and waited for later


def test_scopes_name_the_block():
    assert {x.scope for _, x in read(SCAN) if x.cycles == 10} == {"jit(step)/feed_forward/add"}


@pytest.mark.parametrize(
    ("groups", "axes"),
    [
        ("replica_groups={{0,1},{2,3},{4,5},{6,7}}", "tensor"),
        ("replica_groups=[4,2]<=[8]", "tensor"),
        ("replica_groups=[4,2]<=[2,2,2]T(0,2,1)", "fsdp"),
        ("replica_groups=[2,4]<=[2,2,2]T(2,1,0)", "data+fsdp"),
        ("replica_groups={{0,2,4,6},{1,3,5,7}}", "data+fsdp"),
        ("replica_groups=mesh['a'=2,'b'=4] {'b'}", "fsdp+tensor"),
        ("replica_groups=mesh['a'=4,'b'=2], device_ids=([2,4]T(1,0)) {'b'}", "data"),
        ("source_target_pairs={{0,4},{4,0},{1,5},{5,1}}", "data"),
        ("replica_groups={{0,3},{1,2}}", "?"),
        ("no groups", "?"),
    ],
)
def test_axes_of_groups(groups, axes):
    assert axes_of_groups(groups, dict(data=2, fsdp=2, tensor=2, sequence=1)) == axes


def test_a_loop_that_cannot_be_counted_counts_once():
    """Its limit is computed, not a constant."""
    unknown = SCAN.replace(
        "%layers = s32[]{:T(128)} constant(4)", "%layers = s32[]{:T(128)} get-tuple-element(%d.1), index=0"
    )
    assert work_by_loop(unknown, MESH)["layer_body"].cycles == 1000


def test_known_trip_counts_win():
    known = SCAN.replace("body=%layer_body", 'body=%layer_body, backend_config={"known_trip_count":{"n":"6"}}')
    assert work_by_loop(known, MESH)["layer_body"].cycles == 6000


def test_sizes_of_types():
    assert sizes("(bf16[4,8]{1,0:T(8,128)(2,1)}, f32[], s8[3]{0}, token[])") == [64, 4, 3]
