"""Plans as people and programs read them."""

import json
import math

from jaxslm.planning.chips import GIB, Chip
from jaxslm.planning.plan import Collective, Host, Memory, Plan
from jaxslm.planning.report import as_json, as_table, as_text

CHIP = Chip("v5e", 197e12, hbm=16 * GIB, hbm_bandwidth=819e9, flops_per_cycle=2**17)


def plan(**changes) -> Plan:
    memory = dict(parameters=2e9, optimizer=4e9, batch=1e6, temporaries=8e9, program=1e8, capacity=16e9, host=0)
    memory = Memory(**{name: int(size) for name, size in (memory | changes.pop("memory", {})).items()})
    settings = dict(
        rows_per_chip=2.0, rows_at_once=2, context_length=4096, batch_size=8, vocabulary=32_512, remat="context",
        attention="auto", accumulate_steps=1, moment_dtype="float32", loss_chunks=8, scan_unroll=1,
    )  # fmt: skip
    fields = dict(
        topology="v5e:2x2", chip=CHIP, chips=4, slices=1, hosts=1, mesh=dict(fsdp=4), settings=settings,
        model_parameters=2_000_000_000, memory=memory, cycles=3e9,
        collectives=[Collective("all-gather", "fsdp", int(4e9), 64, False)], compute_seconds=2.0, kernel_seconds=0.5,
        communication_seconds=0.1, blocking_seconds=0.02, step_seconds=2.5, tokens_per_s=13_107.2, mfu=0.5,
        host=Host(4, 786_432, 13_107.2, int(24e9), 0), compile_seconds=30.0,
    )  # fmt: skip
    return Plan(**fields | changes)


def test_a_plan_that_fits():
    text = as_text(plan())
    for line in (
        "v5e:2x2: 4 chips, 1 processes; mesh fsdp=4",
        "2.00 B parameters; 2 x 4,096 tokens a chip; remat context; compiled in 30 s",
        "peak                                14.10 GB of 16.00 GB (88%)",
        "all-gather (fsdp)                   4.00 GB  in 64 calls",
        "communication                       0.100 s; 0.020 s of it block, the rest is hidden where there",
        "time                                2.500 s, 13,107 tokens/s, 3,277 a chip",
        "MFU                                 50.0% of 197 TFLOP/s a chip",
        "checkpoint                          24.00 GB to write, and that much host memory meanwhile",
    ):
        assert line in text, text
    assert "DOES NOT FIT" not in text


def test_a_plan_that_does_not_fit_says_what_to_change():
    text = as_text(plan(memory=dict(temporaries=12e9), mesh=dict(data=2, fsdp=2)))
    assert "DOES NOT FIT: 2.10 GB too much for a chip. Change one of:" in text
    for cure in (
        "--config.data.batch_size=4, or as many rows and twice the optimizer.accumulate_steps (1 now)",
        "--config.model.remat=full",
        "--config.optimizer.moment_dtype=bfloat16, for 1.00 GB less",
        "--config.mesh.fsdp=-1 --config.mesh.data=1",
        "more chips; or --suggest",
    ):
        assert cure in text, text


def test_cures_that_are_taken_are_not_offered():
    settings = plan().settings | dict(rows_at_once=1, remat="full", moment_dtype="bfloat16")
    text = as_text(plan(memory=dict(temporaries=12e9), settings=settings))
    assert not any(word in text for word in ("batch_size", "model.remat", "moment_dtype", "mesh.fsdp"))
    assert "more chips" in text


def test_what_is_not_known_is_said_to_be():
    unknown = plan(
        compute_seconds=math.nan, step_seconds=math.nan, tokens_per_s=math.nan, mfu=math.nan, memory=dict(capacity=0)
    )
    assert "unknown: the compiler estimates cycles for TPUs alone" in as_text(unknown)
    assert "nan" not in as_text(unknown)
    fields = json.loads(json.dumps(as_json(unknown), allow_nan=False))
    assert fields["mfu"] is None and fields["memory"]["fits"] and fields["memory"]["peak"] == 14_101_000_000


def test_a_batch_in_parts_is_said_to_be():
    settings = plan().settings | dict(accumulate_steps=2, rows_at_once=1)
    assert "2 x 4,096 tokens a chip in 2 parts; remat" in as_text(plan(settings=settings))


def test_a_program_that_the_compiler_refused_has_no_time():
    refused = plan(memory=dict(temporaries=80e9), step_seconds=math.nan, cycles=math.nan, mfu=math.nan)
    assert "unknown: it does not fit" in as_text(refused) and "DOES NOT FIT: 70.10 GB too much" in as_text(refused)
    assert "nan" not in as_table([plan(), refused])


def test_table():
    lines = as_table([plan(), plan(memory=dict(temporaries=12e9))]).splitlines()
    assert len(lines) == 3
    assert "fsdp=4" in lines[1] and "50.0%" in lines[1]
    assert lines[2].rstrip().endswith("does not fit")
