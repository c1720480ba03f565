"""A unit vocoder as what a chain speaks with."""

from collections.abc import Sequence

import jax
import numpy as np

from jaxslm.acoustic.durations import predict
from jaxslm.acoustic.speaking import VocoderRunner
from jaxslm.audio.io import Clip
from jaxslm.stopwatch import Stopwatch
from jaxslm.units.inventory import UnitInventory
from jaxslm.units.units import UnitSequence


class VocoderVoice:
    """A `generation.chain.Voice` of speakers of its own. inventory: to hear with; None of published files."""

    clones = False

    def __init__(self, runner: VocoderRunner, inventory: UnitInventory | None):
        self.runner, self.inventory = runner, inventory
        self.sample_rate, facts = runner.model.config.sample_rate, runner.facts
        # Who speaks unasked comes first.
        self.speakers = tuple(sorted(facts.speakers, key=lambda name: name != facts.speaker))
        if inventory:
            self.check_units(inventory.sha256)
        none = "this vocoder has no duration predictor: it speaks units of recordings alone (--to=voice)"
        self.untimed = none if runner.model.durations is None else ""
        if needed := {"pitch", "style_code"} & set(runner.model.config.conditions):
            raise ValueError(
                f"this vocoder needs {' and '.join(sorted(needed))}, which no units have: use one without, or give "
                "them to VocoderRunner.speak"
            )

    def check_units(self, sha256: str) -> None:
        """Raises ValueError for units of another inventory than that of the training, as far as it is known."""
        self.runner.facts.check_units(sha256)

    def prompt(self, given: Clip | str, where: str, *, from_end: bool = False) -> str:
        """The name of one of its speakers. Raises ValueError for another, or a recording."""
        if isinstance(given, Clip):
            raise ValueError(f"{where} is a recording: this vocoder has speakers of its own, {self._named()}")
        if given not in self.speakers:
            raise ValueError(f"{where}: '{given}' is no speaker of this vocoder, which has {self._named()}")
        return given

    def timed(self, units: Sequence[UnitSequence], *, speed: float, temperature: float, key: jax.Array) -> list:
        """The units with durations of its predictor, unless `untimed`."""
        deduplicated = self.inventory is None or self.inventory.deduplicated
        how = dict(speed=speed, temperature=temperature, key=key, deduplicated=deduplicated)
        return predict(self.runner.model, units, **how)

    def speak(
        self,
        units: Sequence[UnitSequence],
        prompts: Sequence[str | None],
        key: jax.Array,
        watch: Stopwatch | None = None,
    ) -> list[np.ndarray]:
        """Samples float32 [N] of each, by the speaker of each; None: the first."""
        found: list = [None] * len(units)
        with (Stopwatch() if watch is None else watch)("waveform"):
            for speaker in dict.fromkeys(prompts):
                members = [i for i, each in enumerate(prompts) if each == speaker]
                sounds = self.runner.speak([units[i] for i in members], speaker=speaker or "")
                for i, samples_N in zip(members, sounds, strict=True):
                    found[i] = samples_N
        return found

    def check_stream(self) -> None:
        """Raises ValueError: it looks ahead."""
        raise ValueError("a unit vocoder looks ahead and does not stream: use the masked stage of a causal codec")

    def _named(self) -> str:
        return ", ".join(self.speakers[:20]) or "one voice without a name"
