"""What a codec or a vocoder is trained for, by the fields `losses` of its config. Weights 0 leave a loss out.

    spectral: {name: {weight, form: a key of SPECTRAL, and its settings}}   distances of spectra
    waveform: {weight, form: "l1" | "l2"}                                   distance of samples
    adversarial: {weight, form: "hinge" | "clipped_hinge" | "least_squares", average, start, delay}   see losses.py;
      discriminators learn from step `start` on, and the generator hears from them `delay` steps later
    feature: {weight, form: "relative" | "mean" | "sum"}
    commitment, codebook: of codecs, weights of the quantizer's losses, which are means over levels
    distil: {weight, form: "dimension" | "frame", teacher, layer}           of codecs, see distillation.py
    durations: of vocoders, the weight of the loss of the duration predictor
    balance: whether the weights of all losses of the output (the first four) are shares of the gradient's norm
      (balancer.py) or factors

Legend: B batch, N samples.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax

from jaxslm.audio.spectra import MelSpectrogram
from jaxslm.codec import spectral_losses
from jaxslm.codec.losses import feature_matching, generator_loss, waveform_l1, waveform_l2
from jaxslm.codec.scores import Scores
from jaxslm.spelling import closest


def _log_mel(fake, real, sample_rate, n_samples_B, *, floor: float = 1e-5, **fields):
    spec = MelSpectrogram(sample_rate, **fields)
    return spectral_losses.log_mel_l1(fake, real, spec, n_samples_B, floor=floor)


def _stft(fake, real, sample_rate, n_samples_B, **fields):
    return spectral_losses.multi_resolution_stft(fake, real, n_samples_B, **fields)


SPECTRAL = {
    "soundstream": spectral_losses.soundstream_mel,
    "encodec": spectral_losses.encodec_mel,
    "dac": spectral_losses.dac_mel,
    "log_mel": _log_mel,  # fields of MelSpectrogram, and floor
    "stft": _stft,
}
WAVEFORM = {"l1": waveform_l1, "l2": waveform_l2}


@dataclass(frozen=True)
class Objective:
    """The losses of a config at `sample_rate` (Hz). Raises ValueError for a form that there is not."""

    losses: Mapping[str, Any]
    sample_rate: int

    def __post_init__(self):
        for name, fields in self.losses["spectral"].items():
            _check(fields, SPECTRAL, f"losses.spectral.{name}")
        _check(self.losses["waveform"], WAVEFORM, "losses.waveform")
        late = self.losses["adversarial"]["start"] + self.losses["adversarial"]["delay"]
        if self.adversarial and late and not self.distances:
            raise ValueError(
                f"losses has no distance to train by until discriminators are heard from step {late} on: give one a "
                "weight, or set losses.adversarial.start and delay to 0"
            )
        if not (self.distances or self.adversarial):
            raise ValueError("losses has no distance, adversarial or feature loss with a weight above 0: give one")
        if not self.losses["spectral"]:
            raise ValueError(
                "losses.spectral is empty, and held-out clips are measured by it: give one, if of weight 0"
            )

    @property
    def distances(self) -> dict[str, float]:
        """Weights of the distances between a clip and its reconstruction."""
        weights = {name: fields["weight"] for name, fields in self.losses["spectral"].items()}
        return _used(weights | {"waveform": self.losses["waveform"]["weight"]})

    @property
    def yardstick(self) -> dict[str, float]:
        """Weights of the distances that make up the one figure by which a codec is followed: those it is trained by,
        or where it is trained by none the spectral ones."""
        return self.distances or dict.fromkeys(self.losses["spectral"], 1.0)

    @property
    def adversarial(self) -> dict[str, float]:
        """Weights of the losses that discriminators give; {} trains without them."""
        return _used({name: self.losses[name]["weight"] for name in ("adversarial", "feature")})

    @property
    def inner(self) -> dict[str, float]:
        """Weights of the losses of what is inside the generator; those of other generators are not in its config."""
        weights = {name: self.losses.get(name, 0.0) for name in ("commitment", "codebook", "durations")}
        return _used(weights | {"distil": self.losses.get("distil", {}).get("weight", 0.0)})

    def distance(self, fake_BxN: jax.Array, real_BxN: jax.Array, n_samples_B: jax.Array) -> dict[str, jax.Array]:
        """The losses named by `yardstick`."""
        values, names = {}, self.yardstick
        for name, fields in self.losses["spectral"].items():
            if name in names:
                settings = {k: v for k, v in fields.items() if k not in ("weight", "form")}
                values[name] = SPECTRAL[fields["form"]](fake_BxN, real_BxN, self.sample_rate, n_samples_B, **settings)
        if "waveform" in names:
            values["waveform"] = WAVEFORM[self.losses["waveform"]["form"]](fake_BxN, real_BxN, n_samples_B)
        return values

    def judged(self, fake: list[Scores], real: list[Scores]) -> dict[str, jax.Array]:
        """The losses named by `adversarial`."""
        form = self.losses["adversarial"]
        values = {
            "adversarial": lambda: generator_loss(fake, form["form"], average=form["average"]),
            "feature": lambda: feature_matching(fake, real, self.losses["feature"]["form"]),
        }
        return {name: values[name]() for name in self.adversarial}


def weighted(values: Mapping[str, jax.Array], weights: Mapping[str, float]) -> jax.Array | float:
    """Sum of the values, each times its weight."""
    return sum(weights[name] * value for name, value in values.items())


def _used(weights: Mapping[str, float]) -> dict[str, float]:
    return {name: weight for name, weight in weights.items() if weight}


def _check(fields: Mapping[str, Any], forms: Mapping[str, Any], where: str) -> None:
    if fields["form"] not in forms:
        raise ValueError(
            f"{where}.form is '{fields['form']}'; use one of {', '.join(forms)}.{closest(fields['form'], forms)}"
        )
