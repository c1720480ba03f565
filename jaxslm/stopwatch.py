"""How long each stage of something took."""

import contextlib
import time
from collections.abc import Callable, Iterator


class Stopwatch(dict[str, float]):
    """Seconds by stage, in the order in which stages first ran; what runs again is added up. begins: told of a stage
    before it runs, to show someone who waits what is going on.
    """

    def __init__(self, *seconds, begins: Callable[[str], None] | None = None):
        super().__init__(*seconds)
        self._begins = begins

    @contextlib.contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        if self._begins:
            self._begins(stage)
        start = time.perf_counter()
        try:
            yield
        finally:
            self[stage] = self.get(stage, 0.0) + time.perf_counter() - start

    def __str__(self) -> str:
        return ", ".join(f"{stage} {seconds:.2f} s" for stage, seconds in self.items())
