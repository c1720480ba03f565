"""A unit vocoder: units, one a frame, to the waveform, by HiFi-GAN's generator (Kong et al. 2020, models.py, V1) over
embeddings of units, and beside them of the speaker, of pitch codes and of styles where there are any (Polyak et al.
2021; Nguyen et al. 2023, Expresso; SpiRit-LM's HifiGAN); with a duration predictor over units alone.

A batch equals its rows alone: every layer sees zeros behind a row's end. T frames become T * hop samples.

Legend: B rows, T frames, N samples, C channels, D features, U deduplicated units.
"""

import dataclasses
import functools
import json
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from jaxslm.acoustic.durations import DurationPredictor, LogDurations
from jaxslm.acoustic.hifigan import Generator, GeneratorConfig
from jaxslm.codec.conv import fold_weight_norm
from jaxslm.masking import mask_time
from jaxslm.nn.layers import Embedding
from jaxslm.spelling import closest


@dataclasses.dataclass(frozen=True)
class VocoderConfig:
    """The defaults are those of speech-resynthesis at 16 kHz with units of 50 Hz.

    sample_rate, frame_rate: Hz, of samples and units. n_units: units there are. dim: D, of every embedding.
    n_speakers, n_styles: of a clip as a whole, embedded if there are any.
    n_pitches, n_style_codes: codes that change in time, one each `pitch_frames` or `style_frames` frames of units.
    generator: fields of `hifigan.GeneratorConfig`.
    durations: fields of `DurationPredictor` (hidden, kernel, dropout, spread); None: no predictor.
    Raises ValueError where the generator's hop is not that of the units, and naming a field that is not known.
    """

    sample_rate: int = 16_000
    frame_rate: float = 50.0
    n_units: int = 100
    dim: int = 128
    n_speakers: int = 0
    n_styles: int = 0
    n_pitches: int = 0
    pitch_frames: int = 4
    n_style_codes: int = 0
    style_frames: int = 25
    generator: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    durations: Mapping[str, Any] | None = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        wanted = self.sample_rate / self.frame_rate
        if self.hop != wanted:
            raise ValueError(
                f"generator.ratios={self.parts.ratios} make {self.hop} samples of a frame, but units of "
                f"{self.frame_rate:g} Hz at {self.sample_rate} Hz have {wanted:g}: give ratios whose product is that "
                "(and kernels for them), or units of another frame rate"
            )
        if min(self.n_units, self.dim, self.pitch_frames, self.style_frames) < 1:
            raise ValueError("n_units, dim, pitch_frames and style_frames: set each to 1 or more")
        if self.durations is not None and (unknown := set(self.durations) - set(_DURATIONS)):
            name = sorted(unknown)[0]
            raise ValueError(f"durations has no field '{name}'.{closest(name, _DURATIONS)}")

    @functools.cached_property
    def parts(self) -> GeneratorConfig:
        fields = {name: _frozen(value) for name, value in self.generator.items()}
        known = {field.name for field in dataclasses.fields(GeneratorConfig)}
        if unknown := set(fields) - known:
            name = sorted(unknown)[0]
            raise ValueError(f"generator has no field '{name}'.{closest(name, known)}")
        return GeneratorConfig(**fields)

    @property
    def hop(self) -> int:
        """Samples of a frame."""
        return math.prod(self.parts.ratios)

    @property
    def conditions(self) -> dict[str, int]:
        """Names of what a frame is made of beside its unit, in the order in which they stand, with their numbers."""
        counts = dict(pitch=self.n_pitches, style_code=self.n_style_codes, speaker=self.n_speakers, style=self.n_styles)
        return {name: count for name, count in counts.items() if count}

    def to_json(self) -> dict[str, Any]:
        """Plain values as JSON has them, all that `VocoderConfig(**values)` needs."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return json.loads(json.dumps(fields, default=dict))


_DURATIONS = dict(hidden=128, kernel=3, dropout=0.5, spread=False)


class Conditions(NamedTuple):
    """What a vocoder needs beside units, int32, None for what it has not: see `VocoderConfig`. pitch_BxT,
    style_code_BxT: one a frame of units. speaker_B, style_B.
    """

    pitch_BxT: jax.Array | None = None
    style_code_BxT: jax.Array | None = None
    speaker_B: jax.Array | None = None
    style_B: jax.Array | None = None


class Vocoder(nnx.Module):
    """Waveforms of units. `folded()` is the same function without weight norm."""

    def __init__(self, config: VocoderConfig, key: jax.Array):
        keys = jax.random.split(key, 4)
        self.config = config
        self.units = Embedding(config.n_units, config.dim, keys[0], std=1.0)
        self.conditions = nnx.data(
            {
                name: Embedding(count, config.dim, jax.random.fold_in(keys[1], i), std=1.0)
                for i, (name, count) in enumerate(config.conditions.items())
            }
        )
        self.generator = Generator(config.parts, config.dim * (1 + len(config.conditions)), keys[2])
        fields = _DURATIONS | dict(config.durations or {})
        predictor = functools.partial(DurationPredictor, config.dim, fields.pop("hidden"), keys[3], **fields)
        self.durations = None if config.durations is None else predictor()

    @property
    def n_units(self) -> int:
        return self.config.n_units

    @property
    def hop(self) -> int:
        """Samples of a frame."""
        return self.config.hop

    def __call__(
        self,
        units_BxT: jax.Array,
        frames_B: jax.Array | None = None,
        conditions: Conditions | None = None,
        *,
        dtype=jnp.float32,
    ) -> jax.Array:
        """float32 samples [B, T * hop] in (-1, 1), computed in `dtype`; 0 beyond a row's frames.

        Raises ValueError where a condition is missing, or given to a vocoder that has none of it.
        """
        features = [self.units(units_BxT, dtype)]
        for name, ids in zip(_CURES, conditions or Conditions(), strict=True):
            if (ids is None) != (name not in self.config.conditions):
                raise ValueError(f"the vocoder {'has no' if ids is not None else 'needs a'} {name}: " + _CURES[name])
            if ids is not None:
                table = self.conditions[name](ids if ids.ndim == 2 else ids[:, None], dtype)
                features.append(jnp.broadcast_to(table, (*units_BxT.shape, table.shape[-1])))
        samples_BxN = self.generator(jnp.concatenate(features, axis=-1), frames_B)[..., 0].astype(jnp.float32)
        if frames_B is None:
            return samples_BxN
        return jnp.where(mask_time(samples_BxN.shape[1], frames_B * self.hop), samples_BxN, 0)

    def log_durations(
        self, ids_BxU: jax.Array, lengths_B: jax.Array | None = None, *, key: jax.Array | None = None
    ) -> LogDurations:
        """Of deduplicated units; key as in `DurationPredictor`. Raises ValueError for a vocoder without predictor."""
        if self.durations is None:
            raise ValueError("this vocoder predicts no durations: give units with their own, or a duration model's")
        return self.durations(self.units(ids_BxU), lengths_B, key=key)

    def folded(self) -> "Vocoder":
        """The same function without weight norm: for inference."""
        return fold_weight_norm(self)


_CURES = {
    "pitch": "give pitch codes to one with n_pitches above 0 only",
    "style_code": "give style codes to one with n_style_codes above 0 only",
    "speaker": "name a speaker to one with n_speakers above 0 only",
    "style": "name a style to one with n_styles above 0 only",
}


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, (list, tuple)) else value
