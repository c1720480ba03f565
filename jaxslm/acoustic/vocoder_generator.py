"""A unit vocoder as what the adversarial step of codec/adversarial.py trains: the model of its state is {"vocoder":
Vocoder} and what that adds.

Legend: B batch, T frames, N samples, U runs of equal units.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax

from jaxslm.acoustic.durations import LogDurations, duration_loss
from jaxslm.acoustic.vocoder import Conditions, Vocoder
from jaxslm.codec.adversarial import Made


class VocoderGenerator:
    """See `adversarial.Generator`. Batches are those of data/unit_crops.py; it has no state."""

    name = "vocoder"

    def moving(self, model: Mapping[str, Any]) -> dict[str, Any]:
        return {"vocoder": model["vocoder"]}

    def prepare(
        self, model: Mapping[str, Any], batch: Mapping[str, jax.Array], key: jax.Array, teacher: Any, dtype: str
    ) -> Callable[[Any], Made]:
        """Of "units" [B, T], "length" [B, 1] (samples), "speaker" [B, 1] and the runs of the crops."""

        def forward(moving: Mapping[str, Any]) -> Made:
            vocoder = moving["vocoder"]
            inner = {}
            if vocoder.durations is not None:
                inner["durations"] = of_durations(run_durations(vocoder, batch, key=key), batch)
            return Made(resynthesis(vocoder, batch, dtype), inner, None, {})

        return forward

    def after(self, moving: Mapping[str, Any], state: Any) -> dict[str, Any]:
        return {"vocoder": moving["vocoder"]}


def resynthesis(vocoder: Vocoder, batch: Mapping[str, jax.Array], dtype: str) -> jax.Array:
    """float32 samples [B, N] of the units of a batch."""
    speaker_B = batch["speaker"][:, 0] if "speaker" in vocoder.config.conditions else None
    frames_B = batch["length"][:, 0] // vocoder.hop
    return vocoder(batch["units"], frames_B, Conditions(speaker_B=speaker_B), dtype=dtype)


def run_durations(vocoder: Vocoder, batch: Mapping[str, jax.Array], *, key: jax.Array | None = None) -> LogDurations:
    """Of the runs of a batch [B, U], as the vocoder predicts them."""
    return vocoder.log_durations(batch["run_ids"], batch["n_runs"][:, 0], key=key)


def of_durations(predicted: LogDurations, batch: Mapping[str, jax.Array]) -> jax.Array:
    """`duration_loss` of the runs that are measured."""
    return duration_loss(predicted, batch["run_frames"], batch["measured"] > 0)
