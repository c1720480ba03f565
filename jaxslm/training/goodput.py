"""Where the wall time of a run goes, and which share of it trains."""

import contextlib
import queue
import threading
import time
from collections.abc import Iterator
from typing import Any

import jax

KINDS = ("step", "compile", "data", "checkpoint", "evaluation", "other")
COMPILE_EVENTS = frozenset(  # tracing, lowering, and XLA or the look-up in its cache; one can lie inside another
    f"/jax/core/compile/{name}_duration" for name in ("jaxpr_trace", "jaxpr_to_mlir_module", "backend_compile")
)


class Goodput:
    """Deals all wall time since it was made to KINDS, each second to one of them: `with goodput("data"): ...`.

    A block inside another takes its time from it. Steps are computed while the host goes on, so the time of a kind is
    not that of its lines of code:

    compile: tracing, lowering and compiling, of whatever program, as JAX reports them; taken from the block in which
        it happens. Of the thread that made this object: what others compile keeps nobody waiting.
    data: from when the devices had finished the last step, if the batch was not there by then, until it came.
    checkpoint, evaluation: the block. The loop waits for the step before it begins one, and devices stand still in it;
        what writes in the background costs nothing here.
    other: what is in no block: start-up, preparing data, restoring, samples; and writing a profile.
    step: what remains of the training loop: devices compute, or the host is late to tell them what.

    Times are of this process since this start of it: steps that a killed run has to make again count as steps. A
    context manager, to be used in one thread.
    """

    def __init__(self) -> None:
        self._seconds = dict.fromkeys(KINDS, 0.0)
        self._kind, self._since = "other", time.perf_counter()
        self._thread = threading.get_ident()
        self._compiled: list[tuple[float, float]] = []  # (start, end), disjoint and in order
        self._computed: tuple[Any, float] = (None, 0.0)  # the newest result that is there, since when
        self._newest: Any = None
        self._results: queue.SimpleQueue = queue.SimpleQueue()
        self._watcher = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Goodput":
        jax.monitoring.register_event_duration_secs_listener(self._compiles)
        self._watcher.start()
        return self

    def __exit__(self, *exception: object) -> None:
        jax.monitoring.unregister_event_duration_listener(self._compiles)
        self._results.put(None)
        self._watcher.join(timeout=5)  # not for ever: on an error the newest result may never come

    @contextlib.contextmanager
    def __call__(self, kind: str) -> Iterator[None]:
        outer, began = self._kind, self._turn_to(kind)
        try:
            yield
        finally:
            ended = self._turn_to(outer)
            if kind == "data" and self._newest is not None:
                result, at = self._computed
                computing = min(at, ended) - began if result is self._newest else ended - began
                self._move(max(computing, 0.0), "data", outer)

    def computing(self, result: jax.Array) -> None:
        """`result` comes from the devices' newest step. Until it is there, waiting for data takes no time."""
        self._newest = result
        self._results.put(result)

    def figures(self) -> dict[str, float]:
        """`goodput`, the share of steps, and `seconds/<kind>` up to now, which add up to the wall time."""
        self._turn_to(self._kind)
        seconds = {kind: max(value, 0.0) for kind, value in self._seconds.items()}
        share = seconds["step"] / max(sum(seconds.values()), 1e-9)
        return {"goodput": round(share, 4)} | {f"seconds/{kind}": round(value, 3) for kind, value in seconds.items()}

    def __str__(self) -> str:
        """'81 % of 52.1 s in steps; compile 7.2 s, data 0.1 s, ...'."""
        figures = self.figures()
        share, seconds = figures.pop("goodput"), {name.split("/")[1]: value for name, value in figures.items()}
        others = ", ".join(f"{kind} {value:.1f} s" for kind, value in seconds.items() if kind != "step")
        return f"{100 * share:.0f} % of {sum(seconds.values()):.1f} s in steps; {others}"

    def _turn_to(self, kind: str) -> float:
        now = time.perf_counter()
        self._seconds[self._kind] += now - self._since
        self._kind, self._since = kind, now
        return now

    def _move(self, seconds: float, old: str, new: str) -> None:
        self._seconds[old] -= seconds
        self._seconds[new] += seconds

    def _compiles(self, event: str, seconds: float, **about: Any) -> None:
        """Hears of a piece of compilation when it has ended, of an outer one after those inside it."""
        if event not in COMPILE_EVENTS or threading.get_ident() != self._thread:
            return
        now = time.perf_counter()
        start, new = now - seconds, seconds
        while self._compiled and self._compiled[-1][0] >= start:
            inner = self._compiled.pop()
            new -= inner[1] - inner[0]
        self._compiled.append((start, now))
        self._move(new, self._kind, "compile")

    def _watch(self) -> None:
        while (result := self._results.get()) is not None:
            with contextlib.suppress(Exception):  # which is raised, too, where the result is read
                jax.block_until_ready(result)
            self._computed = result, time.perf_counter()
