"""AudioLM's coarse and fine stages with their codec as what a chain speaks with."""

from collections.abc import Sequence

import jax
import numpy as np

from jaxslm.acoustic.autoregressive import Prompt, Stage, check_pair, coarse_to_fine
from jaxslm.acoustic.durations import DurationModel, predict
from jaxslm.audio import SAMPLE_RATE
from jaxslm.audio.io import Clip, resample
from jaxslm.codec.codes import CodeSequence
from jaxslm.codec.identity import codec_sha256
from jaxslm.codec.model import Codec
from jaxslm.codec.runner import CodecRunner
from jaxslm.stopwatch import Stopwatch
from jaxslm.units.inventory import UnitInventory
from jaxslm.units.units import UnitSequence, check_inventory

LEAST_SECONDS = 0.1  # of a prompt: a few frames of units and codes


class AutoregressiveVoice:
    """A `generation.chain.Voice` that takes on the voice of a prompt.

    durations: of the coarse run's own voice; None where it learnt none.
    Raises ValueError for an inventory or a codec that is not that of the stages, by its hash.
    """

    clones = True

    def __init__(
        self,
        coarse: Stage,
        fine: Stage,
        inventory: UnitInventory,
        codec: Codec,
        durations: DurationModel | None = None,
    ):
        self.coarse, self.fine, self.inventory, self.durations = coarse, fine, inventory, durations
        self.codec, self.sample_rate = CodecRunner(codec), codec.config.sample_rate
        none = (
            "the coarse run has no durations: train it with --config.samples.voice=quick, or let it speak units of "
            "recordings alone (--to=voice)"
        )
        self.untimed = none if durations is None else ""
        check_pair(coarse, fine)
        self.check_units(inventory.sha256)
        theirs, mine = codec_sha256(codec), coarse.vocabulary.codec_sha256
        if theirs != mine:
            raise ValueError(
                f"the coarse stage makes codes of {coarse.facts.codec['name']} ({mine[:12]}), not of this codec "
                f"({theirs[:12]}), to which they would mean other sounds: give the codec it was trained with"
            )

    def check_units(self, sha256: str) -> None:
        """Raises ValueError for units of another inventory than that of the training."""
        own, name = self.coarse.vocabulary.unit_inventory_sha256, self.coarse.facts.inventory
        check_inventory(sha256, own, name=name, who="the coarse stage")

    def prompt(self, given: Clip | str, where: str, *, from_end: bool = False) -> Prompt:
        """The voice of the first seconds of a recording, or the last. Raises ValueError for one that is too short."""
        if isinstance(given, str):
            raise ValueError(f"{where} is the name '{given}': these stages take on the voice of a recording")
        n = round(self.coarse.facts.crops.prompt_seconds * given.rate)
        if len(given.samples) < LEAST_SECONDS * given.rate:
            seconds = len(given.samples) / given.rate
            raise ValueError(f"{where} lasts {seconds:.3f} s: give at least {LEAST_SECONDS} s, better 3")
        samples_N = given.samples[-n:] if from_end else given.samples[:n]
        (codes,) = self.codec.encode([resample(samples_N, given.rate, self.sample_rate)])
        units = self.inventory.encode(resample(samples_N, given.rate, SAMPLE_RATE))
        return Prompt(units.expand(), codes.ids)

    def timed(self, units: Sequence[UnitSequence], *, speed: float, temperature: float, key: jax.Array) -> list:
        """The units with predicted durations, unless `untimed`."""
        how = dict(speed=speed, temperature=temperature, key=key)
        return predict(self.durations, units, **how, deduplicated=self.inventory.deduplicated)

    def speak(
        self,
        units: Sequence[UnitSequence],
        prompts: Sequence[Prompt | None],
        key: jax.Array,
        watch: Stopwatch | None = None,
    ) -> list[np.ndarray]:
        """Samples float32 [N] at `sample_rate` of each."""
        watch, hop = Stopwatch() if watch is None else watch, self.codec.codec.hop
        with watch("codes"):
            made = coarse_to_fine(self.coarse, self.fine, [u.expand() for u in units], prompts, key=key)
        with watch("waveform"):
            rate = self.codec.codec.frame_rate
            return self.codec.decode([CodeSequence(ids, rate, len(ids) * hop) for ids in made])

    def check_stream(self) -> None:
        """Raises ValueError: the fine stage begins when the coarse one has ended."""
        raise ValueError("coarse and fine stages do not stream: use the masked stage (configs/soundstorm.py)")
