"""The masked stage at work: units of clips of any length to codes, in overlapping windows, many clips at once.

A window begins with the prompt, the voice that all take on; then come the last frames that were made, then frames to
fill in. Of these the last are made again by the next window, which sees what follows them. What is joined are codes,
and a codec decodes the whole row of them, so that there is no seam to hear.

Legend: B clips, T frames, Q codes of a frame.
"""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from jaxslm.acoustic.masked import MaskedModel
from jaxslm.acoustic.unmasking import Unmasking, unmask
from jaxslm.codec.runner import bucket, similar_lengths
from jaxslm.row_keys import keys_of

BATCH_FRAMES = dict(cpu=2000, accelerator=24_000)  # of windows that are filled in at once


@dataclass(frozen=True)
class Prompt:
    """A voice to take on: `units` [T] and `codes` [T, Q] of the same frames. T may be 0: any voice."""

    units: np.ndarray
    codes: np.ndarray

    def __post_init__(self):
        assert len(self.units) == len(self.codes), (self.units.shape, self.codes.shape)


class ParallelStage:
    """Fills in codes.

    Args:
      window: frames that the model sees at once: those it was trained on.
      settings: of the passes.
      overlap: frames in front of each window but the first that were made before; ahead: frames at its end that the
        next one makes again. By default an eighth and a sixteenth of the window.
    """

    def __init__(
        self,
        model: MaskedModel,
        window: int,
        settings: Unmasking,
        *,
        overlap: int | None = None,
        ahead: int | None = None,
    ):
        settings.check_levels(model.config.n_levels)
        self.model, self.window, self.settings = jax.device_put(model), window, settings
        self.overlap = window // 8 if overlap is None else overlap
        self.ahead = window // 16 if ahead is None else ahead
        on_cpu = jax.default_backend() == "cpu"
        self.batch_frames = BATCH_FRAMES["cpu" if on_cpu else "accelerator"]

    @property
    def longest_prompt(self) -> int:
        """Frames; half of the window is left for what is to be made."""
        return self.window // 2 - self.overlap

    def no_prompt(self) -> Prompt:
        return Prompt(np.zeros(0, np.int32), np.zeros((0, self.model.config.n_levels), np.int32))

    def __call__(self, units: Sequence[np.ndarray], prompts: Sequence[Prompt], key: jax.Array) -> list[np.ndarray]:
        """Codes int32 [T, Q] of each clip, for its units [T], one a frame. key: one, or one for each clip (`keys_of`).

        Raises ValueError for units or a prompt that the model does not have, or too long a prompt; FloatingPointError
        where the model's logits are not finite.
        """
        for units_T, prompt in zip(units, prompts, strict=True):
            self._check(units_T, prompt)
        made = [np.zeros((0, self.model.config.n_levels), np.int32) for _ in units]
        keys_N, step = keys_of(key, len(units)), 0
        while waiting := [i for i, units_T in enumerate(units) if len(made[i]) < len(units_T)]:
            plans = {i: self._plan(len(units[i]), len(made[i]), len(prompts[i].units)) for i in waiting}
            for batch, n_frames in self._batches({i: len(prompts[i].units) + b - a for i, (a, b) in plans.items()}):
                rows = [self._row(units[i], made[i], prompts[i], *plans[i]) for i in batch]
                keys = [jax.random.fold_in(keys_N[i], step) for i in batch]
                for i, codes_TxQ in zip(batch, self._fill(rows, keys, n_frames), strict=True):
                    first, stop = plans[i]
                    new = codes_TxQ[len(prompts[i].units) + len(made[i]) - first :]
                    last = stop == len(units[i])
                    made[i] = np.concatenate([made[i], new if last else new[: -self.ahead or None]])
            step += 1
        return made

    def stream(self, units_T: np.ndarray, prompt: Prompt, key: jax.Array, chunk: int) -> Iterator[np.ndarray]:
        """The codes of one clip as they are made, `chunk` frames at a time and at its end all that is left.

        key: the clip's own. Raises as `__call__`.
        """
        self._check(units_T, prompt)
        made, step = np.zeros((0, self.model.config.n_levels), np.int32), 0
        while len(made) < len(units_T):
            first, most = self._plan(len(units_T), len(made), len(prompt.units))
            stop = min(most, len(made) + chunk + self.ahead)
            row = self._row(units_T, made, prompt, first, stop)
            n_frames = min(bucket(len(row[0])), self.window)
            (codes_TxQ,) = self._fill([row], [jax.random.fold_in(key, step)], n_frames)
            new = codes_TxQ[len(prompt.units) + len(made) - first :]
            new = new if stop == len(units_T) else new[: -self.ahead or None]
            yield new
            made, step = np.concatenate([made, new]), step + 1

    def _plan(self, total: int, done: int, prompt: int) -> tuple[int, int]:
        """The frames [first, stop) of the clip that its next window shows behind the prompt."""
        first = max(0, done - self.overlap)
        return first, min(total, first + self.window - prompt)

    def _row(self, units_T: np.ndarray, made_TxQ: np.ndarray, prompt: Prompt, first: int, stop: int):
        """(units, codes that are known in front) of a window."""
        units = np.concatenate([prompt.units, units_T[first:stop]])
        return units, np.concatenate([prompt.codes, made_TxQ[first:]])

    def _fill(self, rows, keys: list[jax.Array], n_frames: int) -> list[np.ndarray]:
        size = 1 << (len(rows) - 1).bit_length()  # few kinds of batches, each compiled once
        units_BxT = np.zeros((size, n_frames), np.int32)
        codes_BxTxQ = np.zeros((size, n_frames, self.model.config.n_levels), np.int32)
        frames_B, known_B = np.ones(size, np.int32), np.zeros(size, np.int32)
        for row, (units, codes) in enumerate(rows):
            units_BxT[row, : len(units)], codes_BxTxQ[row, : len(codes)] = units, codes
            frames_B[row], known_B[row] = len(units), len(codes)
        keys_B = jnp.stack(keys + keys[:1] * (size - len(keys)))
        made = _unmask(self.model, units_BxT, frames_B, codes_BxTxQ, known_B, keys_B, self.settings)
        made_BxTxQ = np.asarray(made)[: len(rows)]
        if (made_BxTxQ < 0).any():
            raise FloatingPointError(
                "the acoustic stage gives logits that are not finite: its training diverged; use an earlier checkpoint"
            )
        return [codes[:n] for codes, n in zip(made_BxTxQ, frames_B, strict=False)]

    def _batches(self, lengths: dict[int, int]) -> Iterator[tuple[list[int], int]]:
        """(clips, frames) of batches of similar lengths."""
        clips = list(lengths)
        for members, (_, n_frames) in similar_lengths(list(lengths.values()), self.batch_frames):
            yield [clips[member] for member in members], min(n_frames, self.window)

    def _check(self, units_T: np.ndarray, prompt: Prompt) -> None:
        config = self.model.config
        for name, ids, size in (
            ("units", units_T, config.n_units),
            ("units of the prompt", prompt.units, config.n_units),
            ("codes of the prompt", prompt.codes, config.codebook_size),
        ):
            if np.size(ids) and not 0 <= np.min(ids) <= np.max(ids) < size:
                raise ValueError(f"{name} from {np.min(ids)} to {np.max(ids)}, but the stage knows 0 to {size - 1}")
        if not len(units_T):
            raise ValueError("there are no units to speak: give at least one")
        if len(prompt.units) > self.longest_prompt:
            raise ValueError(
                f"a prompt of {len(prompt.units)} frames for a window of {self.window}: give at most "
                f"{self.longest_prompt}"
            )


@functools.partial(jax.jit, static_argnums=6)
def _unmask(model, units_BxT, frames_B, codes_BxTxQ, known_B, keys_B, settings: Unmasking) -> jax.Array:
    return unmask(model, units_BxT, frames_B, codes_BxTxQ, known_B, keys_B, settings)
