"""Each second of a run is counted once, under what it was spent on."""

import threading
import time

import jax
import jax.numpy as jnp
import pytest

from jaxslm.training import goodput
from jaxslm.training.goodput import COMPILE_EVENTS, KINDS, Goodput

TRACE, BACKEND = (next(e for e in COMPILE_EVENTS if name in e) for name in ("jaxpr_trace", "backend_compile"))


class Clock:
    now = 100.0

    def perf_counter(self) -> float:
        return self.now

    def passes(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(goodput, "time", clock)
    return clock


@pytest.fixture
def counting(clock):
    with Goodput() as counting:
        yield counting


def seconds(counting: Goodput) -> dict[str, float]:
    """Those that are not 0."""
    return {name.removeprefix("seconds/"): x for name, x in counting.figures().items() if x and name != "goodput"}


def test_a_block_takes_its_time_from_the_one_around_it(clock, counting):
    clock.passes(1)
    with counting("step"):
        clock.passes(10)
        with counting("checkpoint"):
            clock.passes(3)
            with counting("other"):
                clock.passes(2)
        with pytest.raises(OSError), counting("evaluation"):
            clock.passes(4)
            raise OSError
        clock.passes(20)
    assert seconds(counting) == {"other": 3, "step": 30, "checkpoint": 3, "evaluation": 4}
    assert counting.figures()["goodput"] == 30 / 40
    assert str(counting) == (
        "75 % of 40.0 s in steps; compile 0.0 s, data 0.0 s, checkpoint 3.0 s, evaluation 4.0 s, other 3.0 s"
    )


def test_compilation_is_taken_from_its_block_and_counted_once(clock, counting):
    with counting("evaluation"):
        clock.passes(5)
        jax.monitoring.record_event_duration_secs(TRACE, 1.0)  # inside the next
        clock.passes(1)
        jax.monitoring.record_event_duration_secs(TRACE, 4.0)
        clock.passes(2)
        jax.monitoring.record_event_duration_secs(BACKEND, 2.0)
        jax.monitoring.record_event_duration_secs("/jax/checkpoint/write/duration", 3.0)
        elsewhere = threading.Thread(target=jax.monitoring.record_event_duration_secs, args=(BACKEND, 4.0))
        elsewhere.start()
        elsewhere.join()
    assert seconds(counting) == {"compile": 6, "evaluation": 2}


class Result:
    """What a step computes: there when the test says so."""

    def __init__(self):
        self.there = threading.Event()

    def block_until_ready(self) -> None:
        self.there.wait(10)


def computed(counting: Goodput, result: Result) -> None:
    result.there.set()
    while counting._computed[0] is not result:
        time.sleep(0.001)


def test_waiting_for_data_counts_only_when_nothing_is_computed(clock, counting):
    with counting("step"):
        with counting("data"):  # before the first step
            clock.passes(1)
        first = Result()
        counting.computing(first)
        with counting("data"):  # the step takes longer
            clock.passes(10)
        assert seconds(counting) == {"data": 1, "step": 10}
        clock.passes(1)
        computed(counting, first)
        with counting("data"):  # it had ended before
            clock.passes(2)
        assert seconds(counting) == {"data": 3, "step": 11}
        second = Result()
        counting.computing(second)
        with counting("data"):
            clock.passes(5)
            computed(counting, second)
            clock.passes(7)
    assert seconds(counting) == {"data": 10, "step": 16}


def test_a_step_that_failed_does_not_end_the_counting(counting):
    class Failed:
        def block_until_ready(self) -> None:
            raise RuntimeError("out of memory")

    later = Result()
    for result in (Failed(), later):
        counting.computing(result)
    computed(counting, later)


def test_a_real_compilation_is_heard_and_nothing_after_the_end():
    with Goodput() as counting, counting("step"):
        jax.jit(lambda x: jnp.sin(x) @ x)(jnp.ones((3, 3)))
        found = counting.figures()
        assert found["seconds/compile"] > 0 and set(found) == {"goodput", *(f"seconds/{kind}" for kind in KINDS)}
    before = counting.figures()["seconds/compile"]
    jax.jit(lambda x: jnp.cos(x) @ x)(jnp.ones((3, 3)))
    assert counting.figures()["seconds/compile"] == before
