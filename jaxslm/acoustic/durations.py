"""How long units last: a predictor over deduplicated units, its loss, and durations in whole frames.

The predictor is that of unit HiFi-GAN vocoders (Lee et al. 2022, section 3.3; FastSpeech 2's variance predictor), of
log(d + 1) for d frames. With `spread` it also gives the standard deviation of that, so that durations can be drawn.

Legend: B sequences, U units of a sequence, D features.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxslm.masking import mask_time
from jaxslm.nn.convolution import Conv1d
from jaxslm.nn.layers import Embedding, LayerNorm, Linear
from jaxslm.row_keys import keys_of
from jaxslm.units.units import UnitSequence, at_speed, check_speed, deduplicate

MIN_LOG_STD, MAX_LOG_STD = -4.0, 2.0  # what is predicted is held between them: durations stay finite
MAX_MEAN_LOG_STD = 0.0  # that lengthens a mean duration: a spread that is not learnt yet makes no unit last for ever
MAX_FRAMES = 3000  # of a unit: a minute at 50 Hz
_BATCH_UNITS = 1 << 15  # padded ones that are predicted at once
_SHORTEST = 16


class LogDurations(NamedTuple):
    """mean_BxU: of log(d + 1). log_std_BxU: log of its standard deviation; None without `spread`."""

    mean_BxU: jax.Array
    log_std_BxU: jax.Array | None = None


class DurationPredictor(nnx.Module):
    """Twice (convolution, ReLU, LayerNorm, dropout), then a projection; `LogDurations` of features of units.

    A padded row has what it has alone: behind its end every convolution sees zeros.
    Raises ValueError for an even kernel and a dropout outside [0, 1).
    """

    def __init__(
        self,
        d_in: int,
        d_hidden: int,
        key: jax.Array,
        *,
        kernel: int = 3,
        dropout: float = 0.5,
        spread: bool = False,
    ):
        if kernel % 2 == 0:
            raise ValueError(f"kernel={kernel} of a duration predictor is even: a unit would not be in its middle")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout={dropout} of a duration predictor: set it to 0 or more, below 1")
        keys, same = jax.random.split(key, 3), dict(padding=(kernel // 2, kernel // 2), bias=True)
        self.conv_1, self.norm_1 = Conv1d(d_in, d_hidden, kernel, keys[0], **same), LayerNorm(d_hidden)
        self.conv_2, self.norm_2 = Conv1d(d_hidden, d_hidden, kernel, keys[1], **same), LayerNorm(d_hidden)
        self.project = Linear(d_hidden, 1 + spread, keys[2], axes=(None, None), bias=True)
        self.dropout, self.spread = dropout, spread

    def __call__(
        self, x_BxUxD: jax.Array, lengths_B: jax.Array | None = None, *, key: jax.Array | None = None
    ) -> LogDurations:
        """key: drops features out, in training; without it none is."""
        real = True if lengths_B is None else mask_time(x_BxUxD.shape[1], lengths_B, 3)
        for i, (conv, norm) in enumerate(((self.conv_1, self.norm_1), (self.conv_2, self.norm_2))):
            x_BxUxD = norm(jax.nn.relu(conv(jnp.where(real, x_BxUxD, 0))))
            if key is not None and self.dropout:
                kept = jax.random.bernoulli(jax.random.fold_in(key, i), 1 - self.dropout, x_BxUxD.shape)
                x_BxUxD = jnp.where(kept, x_BxUxD / (1 - self.dropout), 0)
        y = self.project(x_BxUxD).astype(jnp.float32)
        return LogDurations(y[..., 0], jnp.clip(y[..., 1], MIN_LOG_STD, MAX_LOG_STD) if self.spread else None)


@dataclasses.dataclass(frozen=True)
class DurationConfig:
    """dim: features of a unit's embedding. hidden, kernel, dropout, spread: see `DurationPredictor`."""

    dim: int = 128
    hidden: int = 128
    kernel: int = 3
    dropout: float = 0.5
    spread: bool = True


class DurationModel(nnx.Module):
    """A predictor with an embedding of its own, for `n_units` units."""

    def __init__(self, n_units: int, config: DurationConfig, key: jax.Array):
        keys = jax.random.split(key)
        self.config = config
        self.embedding = Embedding(n_units, config.dim, keys[0], std=1.0)
        options = dict(kernel=config.kernel, dropout=config.dropout, spread=config.spread)
        self.predictor = DurationPredictor(config.dim, config.hidden, keys[1], **options)

    def log_durations(
        self, ids_BxU: jax.Array, lengths_B: jax.Array | None = None, *, key: jax.Array | None = None
    ) -> LogDurations:
        """Of deduplicated units, int32; key as in `DurationPredictor`."""
        return self.predictor(self.embedding(ids_BxU), lengths_B, key=key)

    @property
    def n_units(self) -> int:
        return self.embedding.weight.shape[0]


class KnowsDurations(Protocol):
    """What `predict` asks of a model: `DurationModel`, and a vocoder with a predictor."""

    n_units: int

    def log_durations(self, ids_BxU: jax.Array, lengths_B: jax.Array | None = None) -> LogDurations: ...


def duration_loss(predicted: LogDurations, frames_BxU: jax.Array, measured_BxU: jax.Array) -> jax.Array:
    """float32 mean over the units that are measured, 0 if none is: the squared error of log(d + 1), or with a spread
    the negative log-likelihood of a Gaussian, but for its constant.
    """
    error = predicted.mean_BxU - jnp.log1p(jnp.maximum(frames_BxU, 0).astype(jnp.float32))
    if predicted.log_std_BxU is None:
        losses = jnp.square(error)
    else:
        losses = predicted.log_std_BxU + 0.5 * jnp.square(error * jnp.exp(-predicted.log_std_BxU))
    return jnp.where(measured_BxU, losses, 0).sum() / jnp.maximum(measured_BxU.sum(), 1)


def whole_frames(log_durations_U: np.ndarray, speed: float = 1.0, log_std_U: np.ndarray | None = None) -> np.ndarray:
    """int32 [U], each at least 1, of log(d + 1).

    At speed 1 each duration is rounded by itself, as published: max(1, round(exp(y) - 1)). At another speed, and where
    the spread of log(d + 1) is known, d / speed is rounded by its running sum: the sum of all is right to a frame, but
    for units that must last at least one. With a spread d is the mean of that log-normal distribution; exp(y) is its
    median, and speech of medians is too fast.
    Raises ValueError for a speed that is not positive and finite, and durations that are not finite.
    """
    check_speed(speed)
    y_U = np.asarray(log_durations_U, np.float64)
    if log_std_U is not None:
        y_U = y_U + 0.5 * np.exp(2 * np.minimum(log_std_U, MAX_MEAN_LOG_STD))
    if not np.isfinite(y_U).all():
        raise ValueError("a predicted duration is not finite: the model is broken; use another checkpoint")
    d_U = np.clip(np.expm1(np.minimum(y_U, 30.0)), 0, MAX_FRAMES)
    if speed == 1.0 and log_std_U is None:
        return np.maximum(1, np.round(d_U)).astype(np.int32)
    ends_U = np.cumsum(np.maximum(d_U, 1e-3) / speed)
    frames_U, end = np.ones(len(y_U), np.int32), 0
    for u, wanted in enumerate(ends_U):
        frames_U[u] = max(1, round(float(wanted)) - end)
        end += int(frames_U[u])
    return frames_U


def predict(
    model: KnowsDurations,
    units: Sequence[UnitSequence],
    *,
    speed: float = 1.0,
    temperature: float = 0.0,
    key: jax.Array | None = None,
    deduplicated: bool = True,
) -> list[UnitSequence]:
    """The units with predicted durations; equal neighbours are joined first, their own durations are not looked at.

    speed: above 1 is faster. temperature: of the spread; 0 takes mean durations (without a spread exp of the mean of
      log(d + 1)), else `key` draws, one or one for each sequence.
    deduplicated: as of the inventory; where it is not, each unit is a frame, and nothing is predicted.
    Raises ValueError for ids the model does not have, a speed as in `whole_frames`, a temperature below 0, or above 0
    of a model without spread or without a key.
    """
    check_speed(speed)
    if not (np.isfinite(temperature) and temperature >= 0):
        raise ValueError(f"temperature={temperature}: set it to 0 or more")
    if temperature and key is None:
        raise ValueError("durations are drawn at a temperature above 0: give a key, or temperature=0")
    if not deduplicated:
        return [at_speed(UnitSequence(each.ids, np.ones_like(each.ids), each.frame_rate), speed) for each in units]
    keys_N = None if key is None else keys_of(key, len(units))
    joined = [deduplicate(each.ids, each.frame_rate) for each in units]
    if wrong := [int(each.ids.max()) for each in joined if len(each) and each.ids.max() >= model.n_units]:
        raise ValueError(
            f"unit {wrong[0]}, but the duration model knows {model.n_units}: use the units it was trained with"
        )
    found: list[UnitSequence] = list(joined)
    order = sorted((i for i, each in enumerate(joined) if len(each)), key=lambda i: len(joined[i]))
    while order:
        width = max(_SHORTEST, 1 << (len(joined[order[-1]]) - 1).bit_length())
        rows = max(1, _BATCH_UNITS // width)
        members, order = order[-rows:], order[:-rows]
        ids_BxU = np.zeros((1 << (len(members) - 1).bit_length(), width), np.int32)
        for row, i in enumerate(members):
            ids_BxU[row, : len(joined[i])] = joined[i].ids
        lengths_B = np.array([len(joined[i]) for i in members] + [1] * (len(ids_BxU) - len(members)), np.int32)
        made = _log_durations(model, ids_BxU, lengths_B)
        if temperature and made.log_std_BxU is None:
            raise ValueError("this duration model has no spread to draw from: set temperature=0, or train with spread")
        for row, i in enumerate(members):
            y_U = np.asarray(made.mean_BxU[row, : len(joined[i])], np.float64)
            log_std_U = None if made.log_std_BxU is None else np.asarray(made.log_std_BxU[row, : len(y_U)], np.float64)
            if temperature:
                # By numpy: the draw of a sequence shall not depend on what it is padded to.
                rng = np.random.default_rng(np.asarray(jax.random.key_data(keys_N[i])))
                y_U, log_std_U = y_U + temperature * np.exp(log_std_U) * rng.standard_normal(len(y_U)), None
            found[i] = dataclasses.replace(joined[i], durations=whole_frames(y_U, speed, log_std_U))
    return found


@jax.jit
def _log_durations(model: KnowsDurations, ids_BxU: jax.Array, lengths_B: jax.Array) -> LogDurations:
    with jax.default_matmul_precision("highest"):
        return model.log_durations(ids_BxU, lengths_B)
