"""The discriminators of published codecs: over periods, scales, spectra and bands of spectra.

Each takes samples_BxN in [-1, 1] and gives one `Scores` a sub-discriminator. Given the samples of each row,
`n_samples_B`, every layer sees zeros beyond a row's end, as it does at the end of a row alone: a padded row then
has the scores it has by itself. Without it all rows are full.

Sources: MPD and MSD of HiFi-GAN (Kong et al. 2020, models.py); the waveform and STFT discriminators of SoundStream
(Zeghidour et al. 2021, section III-D); MS-STFT of EnCodec (Defossez et al. 2022, msstftd.py); the multi-band one of DAC
(Kumar et al. 2023, dac/model/discriminator.py).

Legend: B batch, N samples, T time, F frequency or period, C channels.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxslm.codec import spectral_discriminators as spectral
from jaxslm.codec import wave_discriminators as wave
from jaxslm.codec.scores import Scores
from jaxslm.masking import mask_time
from jaxslm.spelling import closest


class Discriminators(nnx.Module):
    """All sub-discriminators of a recipe, one `Scores` each, in the order of `configs`.

    configs: {"period" | "scale" | "stft" | "residual_stft" | "band": fields of its config}.
    level: rows lose their mean and get a peak of 0.8 first, as in DAC.
    """

    def __init__(self, configs: Mapping[str, Mapping[str, Any]], key: jax.Array, *, level: bool = False):
        subs = []
        for i, (kind, fields) in enumerate(configs.items()):
            if kind not in _KINDS:
                raise ValueError(
                    f"discriminators has no kind '{kind}'; there are {', '.join(_KINDS)}.{closest(kind, _KINDS)}"
                )
            subs += _KINDS[kind](fields, jax.random.fold_in(key, i))
        self.subs = nnx.List(subs)
        self.level = level

    def __call__(self, samples_BxN: jax.Array, n_samples_B: jax.Array | None = None) -> list[Scores]:
        """Scores of float samples, of which `n_samples_B` (all when None) of each row count.

        Raises ValueError where there are too few for one score.
        """
        if n_samples_B is not None:
            samples_BxN = jnp.where(mask_time(samples_BxN.shape[1], n_samples_B), samples_BxN, 0)
        if self.level:
            samples_BxN = level_rows(samples_BxN, n_samples_B)
        return [sub(samples_BxN, n_samples_B) for sub in self.subs]


def level_rows(samples_BxN: jax.Array, n_samples_B: jax.Array | None = None) -> jax.Array:
    """Rows without their mean and with a peak of 0.8; 0 beyond a row's end, where the input must be 0 too."""
    n = samples_BxN.shape[1] if n_samples_B is None else jnp.maximum(n_samples_B, 1)[:, None]
    centred = samples_BxN - samples_BxN.sum(axis=1, keepdims=True) / n
    if n_samples_B is not None:
        centred = jnp.where(mask_time(samples_BxN.shape[1], n_samples_B), centred, 0)
    return 0.8 * centred / (jnp.abs(centred).max(axis=1, keepdims=True) + 1e-9)


def _each(sub, config, values, key) -> list:
    return [sub(value, config, jax.random.fold_in(key, i)) for i, value in enumerate(values)]


_KINDS = {
    "period": lambda f, key: _each(wave.PeriodSub, c := wave.PeriodConfig(**f), c.periods, key),
    "scale": lambda f, key: _each(wave.ScaleSub, c := wave.ScaleConfig(**f), range(c.n_scales), key),
    "stft": lambda f, key: _each(spectral.StftSub, c := spectral.StftConfig(**f), c.windows, key),
    "residual_stft": lambda f, key: [spectral.ResidualStftSub(spectral.ResidualStftConfig(**f), key)],
    "band": lambda f, key: _each(spectral.BandSub, c := spectral.BandConfig(**f), c.windows, key),
}
