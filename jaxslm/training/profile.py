"""A trace of some steps, for XProf: what host and devices did, operations by the scopes of the model."""

import contextlib
import logging
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

log = logging.getLogger(__name__)


def parse_steps(text: str, steps: int) -> tuple[int, int] | None:
    """(first, last) of "A:B"; None of "". Raises ValueError unless 1 <= A <= B <= `steps`."""
    if not text:
        return None
    found = re.fullmatch(r"(\d+):(\d+)", text)
    if not found:
        raise ValueError(f'profile_steps={text!r}: give the first and the last step as A:B, such as "20:25"; "": none.')
    first, last = map(int, found.groups())
    if not 1 <= first <= last <= steps:
        raise ValueError(f"profile_steps={text}: name steps of this run, 1 to {steps}, the first one first.")
    return first, last


class Profile:
    """Traces the steps `profile_steps` of a run, whole: their work on the devices is inside, that of others is not.

    Evaluations and saves that fall between two of them are inside, too. Each process writes a file of its own,
    `folder`/plugins/profile/steps-A-B/processN.xplane.pb (and .trace.json.gz), which XProf shows as hosts of one
    session. A trace that cannot be written is reported; the run goes on.
    """

    def __init__(self, profile_steps: str, folder: Path, *, made: int, steps: int):
        self._range, self._folder = parse_steps(profile_steps, steps), folder
        self._running = False
        self._own = folder / f".process{jax.process_index()}"
        if self._range and self._range[0] <= made:
            if made < steps:
                log.warning(
                    "profile_steps=%s: this run goes on from step %d, so step %d is not made again and nothing is "
                    "profiled; name later steps",
                    profile_steps,
                    made,
                    self._range[0],
                )
            self._range = None

    @contextlib.contextmanager
    def step(self, step: int, state: Any) -> Iterator[None]:
        """Marks the block as `step`. `state`: what the step before it computes."""
        if self._range and step == self._range[0]:
            jax.block_until_ready(state)
            self._start()
        with jax.profiler.StepTraceAnnotation("train", step_num=step):
            yield

    def stop_after(self, step: int, state: Any) -> None:
        """Writes the trace if `step`, which computes `state`, is its last."""
        if self._running and step == self._range[1]:
            jax.block_until_ready(state)
            self.close()

    def close(self) -> None:
        """Writes the trace if one is under way."""
        if not self._running:
            return
        self._running = False
        session = self._folder / "plugins" / "profile" / "steps-{}-{}".format(*self._range)
        try:
            jax.profiler.stop_trace()
            session.mkdir(parents=True, exist_ok=True)
            for path in self._own.glob("plugins/profile/*/*.*"):  # HOST.xplane.pb: processes of one host would clash
                kind = ".xplane.pb" if path.name.endswith(".xplane.pb") else ".trace.json.gz"
                path.replace(session / f"process{jax.process_index()}{kind}")
        except (OSError, RuntimeError) as error:
            log.error("the profile of steps %d to %d could not be written: %s", *self._range, error)
        else:
            log.info("profile of steps %d to %d: look at it by `xprof %s`", *self._range, self._folder)
        finally:
            shutil.rmtree(self._own, ignore_errors=True)

    def _start(self) -> None:
        options = jax.profiler.ProfileOptions()
        options.python_tracer_level = 0  # each call of a Python function: slow, and most of the file
        shutil.rmtree(self._own, ignore_errors=True)
        jax.profiler.start_trace(self._own, profiler_options=options)
        self._running = True
