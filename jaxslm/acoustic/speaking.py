"""A unit vocoder at work: units of any lengths to sound, in batches of similar lengths by few compiled programs.

Legend: B rows of a batch, T frames, N samples, U units.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxslm.acoustic.durations import predict
from jaxslm.acoustic.vocoder import Conditions, Vocoder, VocoderConfig
from jaxslm.codec.runner import BATCH_SECONDS, similar_lengths
from jaxslm.spelling import closest
from jaxslm.units.units import UnitSequence, check_inventory


@dataclasses.dataclass(frozen=True)
class VocoderFacts:
    """What the ids of a vocoder mean. speakers, styles: names by id; none where it has none. speaker: who speaks where
    none is asked for; "" the first. inventory: name of the units, inventory_sha256 their hash; "" where that is not
    known (published files do not tell).
    """

    config: VocoderConfig
    speakers: tuple[str, ...] = ()
    styles: tuple[str, ...] = ()
    speaker: str = ""
    inventory: str = ""
    inventory_sha256: str = ""

    def check_units(self, sha256: str) -> None:
        """Raises ValueError for units of another inventory than the vocoder was trained with."""
        if self.inventory_sha256:
            check_inventory(sha256, self.inventory_sha256, name=self.inventory, who="the vocoder")

    def to_json(self) -> dict[str, Any]:
        """Plain values as JSON has them."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        lists = {name: list(fields[name]) for name in ("speakers", "styles")}
        return fields | lists | {"config": self.config.to_json()}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> "VocoderFacts":
        """Raises ValueError for what `to_json` did not make."""
        try:
            names = {name: tuple(fields[name]) for name in ("speakers", "styles")}
            return cls(**{**fields, **names, "config": VocoderConfig(**fields["config"])})
        except (TypeError, KeyError) as error:
            raise ValueError(f"the facts of a vocoder are damaged ({error}): copy its JSON file again") from error


class _Piece(NamedTuple):
    """Frames first to last of a row are heard, start to stop are computed."""

    row: int
    first: int
    last: int
    start: int
    stop: int


class VocoderRunner:
    """Speaks units. Each sequence sounds as it does alone, up to the rounding of float32: long ones are made in pieces
    that overlap by all that bears on a sample.

    batch_seconds: padded audio of a batch, and most of a piece (None: as for codecs, by the device).
    """

    def __init__(self, model: Vocoder, facts: VocoderFacts, *, batch_seconds: float | None = None):
        self.model, self.facts = jax.device_put(model.folded()), facts
        on_cpu = jax.default_backend() == "cpu"
        seconds = batch_seconds or BATCH_SECONDS["cpu" if on_cpu else "accelerator"]
        self.reach = model.config.parts.reach
        self.most = max(int(seconds * model.config.frame_rate), 4 * self.reach)

    def speak(
        self,
        units: Sequence[UnitSequence],
        *,
        speaker: str | Sequence[str] = "",
        style: str | Sequence[str] = "",
        pitch: Sequence[np.ndarray] | None = None,
        style_codes: Sequence[np.ndarray] | None = None,
        predicted: bool = False,
        speed: float = 1.0,
        temperature: float = 0.0,
        key: jax.Array | None = None,
    ) -> list[np.ndarray]:
        """Samples float32 [N] at the vocoder's rate, N = hop times the frames of the units.

        speaker, style: names of the facts, one for all or one a sequence; "" is the facts' speaker, the first style.
        pitch, style_codes: int, of each sequence, at their own rate; with predicted durations one a deduplicated unit.
        predicted: durations are those of the vocoder's predictor, by speed, temperature and key (see
          `durations.predict`); else the units' own.
        Raises ValueError for ids, names and codes that the vocoder does not have, another frame rate, a missing
        condition, and as `durations.predict`.
        """
        for each in units:
            self._check(each)
        if not predicted and (speed != 1.0 or temperature):
            raise ValueError("speed and temperature are of predicted durations: set predicted=True with them")
        if predicted:
            units = predict(self.model, units, speed=speed, temperature=temperature, key=key)
        rows = [dict(units=each.expand()) for each in units]
        for kind, names in dict(speaker=speaker, style=style).items():
            for row, name in zip(rows, [names] * len(rows) if isinstance(names, str) else names, strict=True):
                if (number := self._number(kind, name)) is not None:
                    row[kind] = np.full(len(row["units"]), number, np.int32)
        config = self.model.config
        steps = dict(pitch=config.pitch_frames, style_code=config.style_frames)
        for (name, step), codes in zip(steps.items(), (pitch, style_codes), strict=True):
            self._check_codes(name, codes, len(units))
            for row, each, own in zip(rows, units, codes or (), strict=False):
                row[name] = _of_units(own, each) if predicted else at_frames(own, step, len(row["units"]))
        return self._in_pieces(rows)

    def _in_pieces(self, rows: list[dict[str, np.ndarray]]) -> list[np.ndarray]:
        """Samples of rows of ids, one a frame, by what they are of."""
        hop, found = self.model.hop, [np.zeros(len(row["units"]) * self.model.hop, np.float32) for row in rows]
        pieces = [piece for i, row in enumerate(rows) for piece in self._pieces(i, len(row["units"]))]
        for members, (size, width) in similar_lengths([each.stop - each.start for each in pieces], self.most):
            frames_B = np.ones(size, np.int32)
            arrays = {name: np.zeros((size, width), np.int32) for name in rows[0]}
            for b, piece in enumerate(pieces[member] for member in members):
                frames_B[b] = piece.stop - piece.start
                for name, values in rows[piece.row].items():
                    arrays[name][b, : frames_B[b]] = values[piece.start : piece.stop]
            samples_BxN = np.asarray(_speak(self.model, arrays, frames_B))
            for samples_N, piece in zip(samples_BxN, (pieces[member] for member in members), strict=False):
                heard = samples_N[(piece.first - piece.start) * hop : (piece.last - piece.start) * hop]
                found[piece.row][piece.first * hop : piece.last * hop] = heard
        return found

    def _pieces(self, row: int, n: int) -> list["_Piece"]:
        step = self.most - 2 * self.reach if n > self.most else max(n, 1)
        ends = [(first, min(first + step, n)) for first in range(0, n, step)]
        return [_Piece(row, a, b, max(a - self.reach, 0), min(b + self.reach, n)) for a, b in ends]

    def _check(self, units: UnitSequence) -> None:
        config = self.model.config
        if units.frame_rate != config.frame_rate:
            raise ValueError(
                f"units of {units.frame_rate:g} Hz, but the vocoder speaks those of {config.frame_rate:g} Hz: use a "
                "vocoder of their inventory"
            )
        if units.ids.max(initial=0) >= config.n_units:
            raise ValueError(
                f"unit {int(units.ids.max())}, but the vocoder has {config.n_units}: use one of their inventory"
            )

    def _check_codes(self, name: str, codes: Sequence[np.ndarray] | None, n: int) -> None:
        count = self.model.config.conditions.get(name, 0)
        if codes is None:
            return
        if not count:
            raise ValueError(f"{name} is given, but the vocoder has none: leave it out")
        if len(codes) != n:
            raise ValueError(f"{len(codes)} sequences of {name} for {n} of units: give one for each")
        least, most = (f([f(own, initial=0) for own in codes] or [0]) for f in (np.min, np.max))
        if least < 0 or most >= count:
            raise ValueError(f"{name} runs from {least} to {most}, but the vocoder has {count}: use its own codes")

    def _number(self, kind: str, name: str) -> int | None:
        count, names = self.model.config.conditions.get(kind, 0), getattr(self.facts, f"{kind}s")
        if not count:
            if name:
                raise ValueError(f"{kind}='{name}', but the vocoder has one voice: leave {kind} empty")
            return None
        if name and name not in names:
            raise ValueError(f"{kind}='{name}' is not one of the vocoder's: {', '.join(names)}.{closest(name, names)}")
        name = name or (self.facts.speaker if kind == "speaker" else "")
        return names.index(name) if name else 0


def at_frames(codes: np.ndarray, frames_per_code: int, n_frames: int) -> np.ndarray:
    """int32 [n_frames]: codes at a lower rate, repeated to that of the units; the last goes on to the end.

    Raises ValueError where they are more or fewer by a code or more (spiritlm, hifigan_vocoder.py, `upsample`).
    """
    codes = np.asarray(codes, np.int32)
    if codes.ndim != 1 or not len(codes) or abs(len(codes) * frames_per_code - n_frames) > frames_per_code:
        raise ValueError(
            f"codes of shape {codes.shape}, one each {frames_per_code} frames, for {n_frames} frames: give "
            f"{-(-n_frames // frames_per_code)}"
        )
    return codes[np.minimum(np.arange(n_frames) // frames_per_code, len(codes) - 1)]


def _of_units(codes: np.ndarray, units: UnitSequence) -> np.ndarray:
    """One code a frame, of one a unit."""
    if np.shape(codes) != (len(units),):
        raise ValueError(
            f"codes of shape {np.shape(codes)} for {len(units)} deduplicated units: with predicted durations give one "
            "a unit"
        )
    return np.repeat(np.asarray(codes, np.int32), units.durations)


@jax.jit
def _speak(model: Vocoder, arrays: Mapping[str, jax.Array], frames_B: jax.Array) -> jax.Array:
    """`Vocoder`, compiled, with whole float32 products."""
    whole = (arrays[name][:, 0] if name in arrays else None for name in ("speaker", "style"))
    conditions = Conditions(arrays.get("pitch"), arrays.get("style_code"), *whole)
    with jax.default_matmul_precision("highest"):
        return model(jnp.asarray(arrays["units"]), frames_B, conditions)
