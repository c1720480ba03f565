"""The bar of a preparation: hours done, how many times real time, time left."""

import contextlib
import sys
import threading
from collections.abc import Mapping

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from jaxslm.data.sources import count_utterances

_TERMINAL = sys.stderr.isatty()
_SECONDS = 0.2 if _TERMINAL else 10  # a log file wants few lines


class HoursBar(tqdm):
    """Counts utterances, and beside them the audio in them; what is logged meanwhile stands in lines above the bar.

    done: (utterances, seconds of audio) that an earlier run made.
    """

    def __init__(self, title: str, *, show: bool, total: int | None = None, done: tuple[int, float] = (0, 0.0)):
        self._before, self._seconds = done[1], 0.0
        super().__init__(
            desc=title, unit=" utterances", total=total, initial=done[0], disable=not show, mininterval=_SECONDS
        )

    def __enter__(self):
        self._above = contextlib.ExitStack()
        if not self.disable and _TERMINAL:
            self._above.enter_context(logging_redirect_tqdm())
        return super().__enter__()

    def __exit__(self, *error) -> None:
        super().__exit__(*error)
        self._above.close()

    def display(self, msg: str | None = None, pos: int | None = None) -> bool:
        if _TERMINAL:
            return super().display(msg, pos)
        print(str(self) if msg is None else msg, file=sys.stderr, flush=True)  # a line of its own
        return True

    def add(self, utterances: int, seconds: float) -> None:
        self._seconds += seconds
        if not self.disable:
            elapsed = max(self.format_dict["elapsed"], 1e-3)
            hours = (self._before + self._seconds) / 3600
            self.set_postfix_str(f"{hours:.2f} h, {self._seconds / elapsed:.0f} x real time", refresh=False)
            self.update(utterances)

    def count(self, sources: Mapping[str, Mapping], processes: int) -> None:
        """Lets the bar know how many utterances there are for each of the processes, when that has been found out."""

        def count() -> None:
            counts = [count_utterances(spec) for spec in sources.values()]
            if None not in counts:
                self.total = sum(counts) // processes

        threading.Thread(target=count, daemon=True).start()
