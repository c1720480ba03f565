"""Units to sound by the masked stage and its codec, in the voice of a prompt.

Legend: T frames, Q codes of a frame, N samples.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxslm.acoustic.durations import predict
from jaxslm.acoustic.frames import frames_of, units_at_frames
from jaxslm.acoustic.parallel import ParallelStage, Prompt
from jaxslm.acoustic.unmasking import Unmasking
from jaxslm.audio import SAMPLE_RATE
from jaxslm.audio.io import Clip, resample
from jaxslm.codec.codes import CodeSequence
from jaxslm.codec.identity import codec_sha256, n_levels_of
from jaxslm.codec.model import Codec
from jaxslm.codec.runner import CodecRunner
from jaxslm.stopwatch import Stopwatch
from jaxslm.units.inventory import UnitInventory
from jaxslm.units.units import UnitSequence, check_inventory

PROMPT_SECONDS = 3.0
_LEAST_SECONDS = 0.025  # that an encoder of units takes


class MaskedVoice:
    """What a run of the masked stage speaks with: a `generation.chain.Voice`.

    Args:
      model: {"masked": MaskedModel, "durations": DurationModel}.
      facts: `window` in frames; what manifests say of `inventory` and `codec`.
      inventory, codec: those it was trained with.
      settings: changes of `Unmasking`; by default SoundStorm's 16 passes, and one for each further level.
    Raises:
      ValueError: another inventory or codec, by its hash.
    """

    clones, untimed = True, ""

    def __init__(
        self,
        model: Mapping[str, Any],
        facts: Mapping[str, Any],
        inventory: UnitInventory,
        codec: Codec,
        settings: Mapping[str, Any] = {},
    ):
        self.inventory, self.facts = inventory, facts
        self.check_units(inventory.sha256)
        if (mine := facts["codec"])["sha256"] != (theirs := codec_sha256(codec)):
            raise ValueError(
                f"the acoustic stage decodes codes of {mine['name']} ({mine['sha256'][:12]}), not of this codec "
                f"({theirs[:12]}), to which they would mean other sounds: give the codec it was trained with"
            )
        n_levels = model["masked"].config.n_levels
        passes = Unmasking(**({"passes": (16,) + (1,) * (n_levels - 1)} | dict(settings)))
        self.stage = ParallelStage(model["masked"], facts["window"], passes)
        per_level = codec.n_codebooks // n_levels_of(codec)
        self.durations, self.codec = model["durations"], CodecRunner(codec, n_levels // per_level)
        self.frame_rate, self.sample_rate = codec.frame_rate, codec.config.sample_rate

    def check_units(self, sha256: str) -> None:
        """Raises ValueError for units of another inventory than that of the training."""
        own = self.facts["inventory"]
        check_inventory(sha256, own["sha256"], name=own["name"], who="the acoustic stage")

    def prompt(
        self,
        clip: Clip | str,
        where: str = "the prompt",
        *,
        seconds: float | None = None,
        from_end: bool = False,
    ) -> Prompt:
        """The voice of the first `seconds` of a recording, or of the last; by default 3, or what the window allows.

        Raises ValueError for one shorter than a frame, and for more seconds than half of the stage's window.
        """
        if isinstance(clip, str):
            raise ValueError(f"{where} is the name '{clip}': this acoustic stage takes on the voice of a recording")
        most = self.stage.longest_prompt / self.frame_rate
        seconds = min(PROMPT_SECONDS, most) if seconds is None else seconds
        if not 0 < seconds <= most:
            raise ValueError(f"a prompt of {seconds:g} s: this stage takes more than 0 and at most {most:.2f} s")
        least = max(1 / self.frame_rate, _LEAST_SECONDS)
        if len(clip.samples) < least * clip.rate:
            raise ValueError(
                f"{where} lasts {len(clip.samples) / clip.rate:.3f} s, less than a frame: give at least {least:g} s, "
                f"better {PROMPT_SECONDS:g}"
            )
        n = round(seconds * clip.rate)
        samples_N = clip.samples[-n:] if from_end else clip.samples[:n]
        (codes,) = self.codec.encode([resample(samples_N, clip.rate, self.sample_rate)])
        units = self.inventory.encode(resample(samples_N, clip.rate, SAMPLE_RATE))
        ids = codes.ids[: self.stage.longest_prompt]
        return Prompt(units_at_frames(units, self.frame_rate, len(ids)), ids)

    def timed(
        self, units: Sequence[UnitSequence], *, speed: float = 1.0, temperature: float = 0.0, key: jax.Array
    ) -> list[UnitSequence]:
        """The units with predicted durations, see `durations.predict`."""
        how = dict(speed=speed, temperature=temperature, key=key)
        return predict(self.durations, units, **how, deduplicated=self.inventory.deduplicated)

    def codes(
        self, units: Sequence[UnitSequence], prompts: Sequence[Prompt | None], key: jax.Array
    ) -> list[np.ndarray]:
        """Codes int32 [T, Q] of the units in the voices of the prompts, None for any; as long as the units say."""
        given = [prompt or self.stage.no_prompt() for prompt in prompts]
        return self.stage([self._aligned(each) for each in units], given, key)

    def decode(self, codes: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Samples float32 [N] at `sample_rate` of codes [T, Q]."""
        hop = self.codec.codec.hop
        return self.codec.decode([CodeSequence(ids, self.frame_rate, len(ids) * hop) for ids in codes])

    def speak(
        self,
        units: Sequence[UnitSequence],
        prompts: Sequence[Prompt | None],
        key: jax.Array,
        watch: Stopwatch | None = None,
    ) -> list[np.ndarray]:
        """Samples float32 [N] of what `codes` gives."""
        watch = Stopwatch() if watch is None else watch
        with watch("codes"):
            codes = self.codes(units, prompts, key)
        with watch("waveform"):
            return self.decode(codes)

    def check_stream(self) -> None:
        """Raises ValueError for a codec that is not causal."""
        self.codec.codec.start_decoding(1)

    def stream(
        self, units: UnitSequence, prompt: Prompt | None, key: jax.Array, *, seconds: float = 1.0
    ) -> Iterator[np.ndarray]:
        """Samples as they are made, `seconds` at a time; together about what `speak` gives, whose windows are longer.

        Raises ValueError as `check_stream`.
        """
        codec = self.codec.codec
        state = codec.start_decoding(1)
        chunk = max(1, round(seconds * self.frame_rate))
        for codes_TxQ in self.stage.stream(self._aligned(units), prompt or self.stage.no_prompt(), key, chunk):
            for start in range(0, len(codes_TxQ), chunk):
                samples_BxN, state = _decode_chunk(codec, jnp.asarray(codes_TxQ[None, start : start + chunk]), state)
                yield np.asarray(samples_BxN[0], np.float32)

    def with_settings(self, **changes: Any) -> "MaskedVoice":
        """The same with other `Unmasking`."""
        model = {"masked": self.stage.model, "durations": self.durations}
        settings = dataclasses.asdict(self.stage.settings) | changes
        return MaskedVoice(model, self.facts, self.inventory, self.codec.codec, settings)

    def _aligned(self, units: UnitSequence) -> np.ndarray:
        return units_at_frames(units, self.frame_rate, frames_of(units, self.frame_rate))


@jax.jit
def _decode_chunk(codec: Codec, codes_BxTxQ: jax.Array, state: Any) -> tuple[jax.Array, Any]:
    with jax.default_matmul_precision("highest"):
        return codec.decode_chunk(codes_BxTxQ, state)
