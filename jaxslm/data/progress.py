"""The bar of a preparation: hours done, how many times real time, time left."""

import sys

from tqdm import tqdm

_SECONDS = 0.2 if sys.stderr.isatty() else 10  # a log file wants few lines


class HoursBar(tqdm):
    """Counts utterances, and beside them the audio in them.

    done: (utterances, seconds of audio) that an earlier run made.
    """

    def __init__(self, title: str, *, show: bool, total: int | None = None, done: tuple[int, float] = (0, 0.0)):
        self._before, self._seconds = done[1], 0.0
        super().__init__(
            desc=title, unit=" utterances", total=total, initial=done[0], disable=not show, mininterval=_SECONDS
        )

    def add(self, utterances: int, seconds: float) -> None:
        self._seconds += seconds
        if not self.disable:
            elapsed = max(self.format_dict["elapsed"], 1e-3)
            hours = (self._before + self._seconds) / 3600
            self.set_postfix_str(f"{hours:.2f} h, {self._seconds / elapsed:.0f} x real time", refresh=False)
            self.update(utterances)
