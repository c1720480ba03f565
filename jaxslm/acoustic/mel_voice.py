"""A voice that is learnt within a minute: a small network from units to a mel spectrogram, and Griffin-Lim's waveform.

It speaks in the mean voice of its training data, with the buzz that guessed phases have. A run of a language model
learns one so that its samples can be heard without another model; other stages sound far better.

Legend: B crops, T frames of 10 ms, M mel bands, D features, N samples.
"""

import functools
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import librosa
import numpy as np
import optax
from flax import nnx
from tqdm import tqdm

from jaxslm.acoustic.durations import DurationConfig, DurationModel, duration_loss, predict
from jaxslm.acoustic.frames import frames_of, units_at_frames
from jaxslm.audio import SAMPLE_RATE
from jaxslm.audio.io import Clip
from jaxslm.nn.convolution import Conv1d
from jaxslm.nn.layers import Embedding, Linear
from jaxslm.stopwatch import Stopwatch
from jaxslm.units.units import UnitSequence, check_inventory, deduplicate

HOP, FFT, BANDS = 160, 1024, 80
FRAME_RATE = SAMPLE_RATE / HOP
WIDTH, KERNEL, LAYERS = 192, 9, 3
CROP, ROWS = 200, 16  # frames of a crop, crops of a step
PEAK = 0.9  # of what is louder than full scale
_FLOOR = 1e-4  # of mel amplitudes
_ITERATIONS = 32


class MelNetwork(nnx.Module):
    """Units, one a frame, to log mel amplitudes [B, T, M]; behind its end a row has unit `n_units`, silence."""

    def __init__(self, n_units: int, key: jax.Array):
        keys = jax.random.split(key, LAYERS + 2)
        self.units = Embedding(n_units + 1, WIDTH, keys[0], std=0.5)
        same = (KERNEL // 2, KERNEL // 2)
        self.layers = nnx.List(Conv1d(WIDTH, WIDTH, KERNEL, key, padding=same, bias=True) for key in keys[1:-1])
        self.project = Linear(WIDTH, BANDS, keys[-1], axes=(None, None), bias=True)
        self.mean = nnx.Param(jnp.zeros(BANDS), logical_axes=(None,))  # of the training data, as is the spread
        self.std = nnx.Param(jnp.ones(BANDS), logical_axes=(None,))

    def __call__(self, units_BxT: jax.Array) -> jax.Array:
        x_BxTxD = self.units(units_BxT)
        for layer in self.layers:
            x_BxTxD = x_BxTxD + jax.nn.gelu(layer(x_BxTxD))
        return self.project(x_BxTxD) * jax.lax.stop_gradient(self.std[...]) + jax.lax.stop_gradient(self.mean[...])

    @property
    def silence(self) -> int:
        return len(self.units.weight) - 1


def build(n_units: int, key: jax.Array) -> dict[str, Any]:
    """The parts of a voice: "mel" and "durations"."""
    keys = jax.random.split(key)
    return {
        "mel": MelNetwork(n_units, keys[0]),
        "durations": DurationModel(n_units, DurationConfig(dim=64, hidden=64), keys[1]),
    }


def log_mel(samples_N: np.ndarray) -> np.ndarray:
    """float32 [T, M] of samples at 16 kHz."""
    amplitudes = np.abs(librosa.stft(samples_N, n_fft=FFT, hop_length=HOP))
    return np.log(_filters() @ amplitudes + _FLOOR).T.astype(np.float32)


def learn(
    pairs: Sequence[tuple[UnitSequence, np.ndarray]], n_units: int, *, steps: int, seed: int, progress: bool = True
) -> dict[str, Any]:
    """A voice of utterances, units and samples [N] at 16 kHz each: distances of log mels, and of durations, by Adam."""
    gap = CROP // 8
    parts, targets = [], []
    for units, samples_N in pairs:
        mel_TxM = log_mel(samples_N)
        parts += [units_at_frames(units, FRAME_RATE, len(mel_TxM)), np.full(gap, n_units, np.int32)]
        targets += [mel_TxM, np.full((gap, BANDS), np.log(_FLOOR), np.float32)]
    units_T, mel_TxM = np.concatenate(parts), np.concatenate(targets)
    spare = max(1, len(units_T) - CROP)
    units_T = np.pad(units_T, (0, max(0, CROP - len(units_T))), constant_values=n_units)
    mel_TxM = np.pad(mel_TxM, ((0, len(units_T) - len(mel_TxM)), (0, 0)), constant_values=np.log(_FLOOR))
    model = jax.jit(functools.partial(build, n_units))(jax.random.key(seed))
    real = units_T < n_units
    model["mel"].mean[...] = jnp.asarray(mel_TxM[real].mean(axis=0))
    model["mel"].std[...] = jnp.asarray(mel_TxM[real].std(axis=0) + 1e-3)
    runs = [deduplicate(units.expand(), units.frame_rate) for units, _ in pairs]
    optimizer = optax.adam(optax.cosine_decay_schedule(3e-3, steps))

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(model, state, batch):
        gradient = jax.grad(_loss)(model, batch)
        updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(model, updates), state

    state, rng = optimizer.init(model), np.random.default_rng(seed)
    seconds = 0.2 if sys.stderr.isatty() else 10.0
    for _ in tqdm(range(steps), desc="voice", unit=" steps", disable=not progress, mininterval=seconds, miniters=1):
        at_BxT = rng.integers(0, spare, ROWS)[:, None] + np.arange(CROP)
        batch = dict(units=units_T[at_BxT], mel=mel_TxM[at_BxT], **_runs(runs, rng))
        model, state = step(model, state, batch)
    return jax.tree.map(np.asarray, model)


def _runs(runs: Sequence[UnitSequence], rng: np.random.Generator, size: int = 64) -> dict[str, np.ndarray]:
    """Beginnings of drawn utterances, deduplicated, with durations; 0 behind their end."""
    ids_BxR, durations_BxR = np.zeros((2, ROWS, size), np.int32)
    lengths_B = np.zeros(ROWS, np.int32)
    for row, i in enumerate(rng.integers(0, len(runs), ROWS)):
        n = lengths_B[row] = min(size, len(runs[i]))
        ids_BxR[row, :n], durations_BxR[row, :n] = runs[i].ids[:n], runs[i].durations[:n]
    return dict(runs=ids_BxR, durations=durations_BxR, n_runs=lengths_B)


def _loss(model: Mapping[str, Any], batch: Mapping[str, jax.Array]) -> jax.Array:
    mel = model["mel"]
    distance_BxT = jnp.abs((mel(batch["units"]) - batch["mel"]) / mel.std[...]).mean(axis=-1)
    durations = model["durations"].log_durations(batch["runs"], batch["n_runs"])
    return distance_BxT.mean() + duration_loss(durations, batch["durations"], batch["durations"] > 0)


class MelVoice:
    """A `generation.chain.Voice` of what `learn` gives. facts: `inventory`, what manifests say of it.

    Raises ValueError for units of another inventory.
    """

    clones, untimed, inventory = False, "", None
    sample_rate = SAMPLE_RATE

    def __init__(self, model: Mapping[str, Any], facts: Mapping[str, Any]):
        self.model, self.facts = jax.device_put(model), facts

    def check_units(self, sha256: str) -> None:
        own = self.facts["inventory"]
        check_inventory(sha256, own["sha256"], name=own["name"], who="this voice")

    def prompt(self, given: Clip | str, where: str, *, from_end: bool = False) -> None:
        """Raises ValueError."""
        raise ValueError(
            f"{where}: this run has one voice, which takes on no other: train configs/soundstorm.py and name its run "
            "by --acoustic"
        )

    def timed(self, units: Sequence[UnitSequence], *, speed: float, temperature: float, key: jax.Array) -> list:
        how = dict(speed=speed, temperature=temperature, key=key)
        return predict(
            self.model["durations"], units, **how, deduplicated=self.facts["inventory"].get("deduplicated", True)
        )

    def speak(
        self, units: Sequence[UnitSequence], prompts: Sequence[None], key: jax.Array, watch: Stopwatch | None = None
    ) -> list[np.ndarray]:
        watch = Stopwatch() if watch is None else watch
        return [self._one(each, watch) for each in units]

    def check_stream(self) -> None:
        """Raises ValueError."""
        raise ValueError("this run's own voice guesses the phases of all at once: stream with --acoustic=WORKDIR")

    def _one(self, units: UnitSequence, watch: Stopwatch) -> np.ndarray:
        mel = self.model["mel"]
        with watch("spectrogram"):
            n_frames = frames_of(units, FRAME_RATE)
            ids_T = units_at_frames(units, FRAME_RATE, n_frames)
            size = -(-(n_frames + KERNEL) // 256) * 256
            padded = np.pad(ids_T, (LAYERS * KERNEL, size - n_frames), constant_values=mel.silence)
            log_TxM = np.asarray(_mel(mel, padded[None])[0, LAYERS * KERNEL :][:n_frames])
        with watch("waveform"):
            amplitudes = np.maximum(np.linalg.pinv(_filters()) @ np.exp(log_TxM.T), 0)
            made = librosa.griffinlim(amplitudes, n_iter=_ITERATIONS, hop_length=HOP, n_fft=FFT, init=None)
            made = np.pad(made, (0, n_frames * HOP - len(made)))  # its last frame is centred on its end
        return (made * min(1.0, PEAK / max(np.abs(made).max(), 1e-9))).astype(np.float32)


@functools.cache
def _filters() -> np.ndarray:
    return librosa.filters.mel(sr=SAMPLE_RATE, n_fft=FFT, n_mels=BANDS)


@jax.jit
def _mel(network: MelNetwork, units_BxT: jax.Array) -> jax.Array:
    return network(units_BxT)
