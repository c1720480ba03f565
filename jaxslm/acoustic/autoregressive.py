"""Units to codes, one code after the other, by the coarse and the fine stage of AudioLM (Borsos et al. 2022, section
III): decoders that data/acoustic_layouts.py trains.

Clips longer than a stage's crop are made in windows of that length. Each is told the units, or the coarse codes, of all
its frames and begins with the codes that the window before gave its first frames, so that voice and sound go on. A
prompt, units and codes of some other sound, stands before the clip as if it were its beginning.

The units are one a frame of the encoder (`UnitSequence.expand`): how many frames of codes to make follows from them.

U frames of units, T frames of codes, Q codes of a frame, L of them that a stage makes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import jax
import numpy as np

from jaxslm.acoustic.frames import AcousticCrops, FrameRates
from jaxslm.acoustic.sequences import coarse_prefix, fine_prefix
from jaxslm.generation.sampler import Sampling, generate
from jaxslm.models.decoder import Decoder
from jaxslm.row_keys import keys_of
from jaxslm.vocabulary import Vocabulary

OVERLAP = 0.3  # of a window that the one before made: 3 s of the coarse stage's 10 s
_LENGTHS = 8  # numbers of new frames that are ever compiled
_APART = 0.2  # seconds by which the units and the codes of a prompt may differ


@dataclass(frozen=True)
class StageFacts:
    """What a decoder's ids and lengths mean.

    Attributes:
      stage: "coarse" or "fine".
      crops: what was seen at once in training, and how many levels are coarse.
      sampling: how codes are drawn; `max_new_tokens` is set anew for each window.
      codec, inventory: what `describe_codec` says of the one, the name of the other.
    """

    stage: str
    rates: FrameRates
    crops: AcousticCrops
    sampling: Sampling
    codec: Mapping
    inventory: str

    @property
    def levels(self) -> tuple[int, int]:
        """(first level, number of levels) that the stage makes."""
        n_coarse = self.crops.coarse_levels
        return (0, n_coarse) if self.stage == "coarse" else (n_coarse, len(self.codec["codebook_sizes"]) - n_coarse)


class Stage(NamedTuple):
    model: Decoder
    vocabulary: Vocabulary
    facts: StageFacts


class Prompt(NamedTuple):
    """The sound whose voice is taken on: units [U], one a frame of the encoder, and all Q codes [T, Q] of a frame."""

    units: np.ndarray
    codes: np.ndarray


def coarse_to_fine(
    coarse: Stage,
    fine: Stage,
    units: Sequence[np.ndarray],
    prompts: Sequence[Prompt | None] | None = None,
    *,
    key: jax.Array | None = None,
    rows: int = 16,
) -> list[np.ndarray]:
    """Codes int32 [T, Q] of each clip, T being all frames that its units cover; prompts are not part of them.

    Args:
      coarse, fine: trained on the same units and codes.
      units: unit indices [U] of each clip, one a frame of the encoder.
      prompts: one for each clip or None, of AudioLM's 3 s at most best; without any, the voice is left to chance.
      key: one, or one for each clip (`keys_of`), by which it draws whatever clips stand beside it.
      rows: clips that are decoded together.

    Raises:
      ValueError: stages that do not fit each other, units or codes out of range, a clip or prompt shorter than a frame
        of the codec, a prompt as long as the coarse stage's crop or longer, logits that are not finite.
    """
    check_pair(coarse, fine)
    prompts = [None] * len(units) if prompts is None else list(prompts)
    if len(prompts) != len(units):
        raise ValueError(f"{len(prompts)} prompts for {len(units)} clips: give each clip one, or None")
    joined = [
        _joined(coarse, clip, prompt, f"clip {i}") for i, (clip, prompt) in enumerate(zip(units, prompts, strict=True))
    ]
    n_coarse, how = coarse.facts.crops.coarse_levels, dict(key=jax.random.key(0) if key is None else key, rows=rows)
    given = [codes_TxQ for _, codes_TxQ in joined]
    n_frames = [len(g) + int(coarse.facts.rates.n_codes(len(u))) for g, u in zip(given, units, strict=True)]
    first = make_codes(coarse, [t for t, _ in joined], [g[:, :n_coarse] for g in given], n_frames=n_frames, **how)
    rest = make_codes(fine, first, [g[:, n_coarse:] for g in given], n_frames=n_frames, **how)
    return [np.concatenate(pair, axis=1)[len(g) :] for *pair, g in zip(first, rest, given, strict=True)]


def make_codes(
    stage: Stage,
    told: Sequence[np.ndarray],
    given: Sequence[np.ndarray],
    *,
    n_frames: Sequence[int],
    key: jax.Array | None = None,
    rows: int = 16,
) -> list[np.ndarray]:
    """The codes int32 [T, L] of one stage for whole clips.

    Args:
      told: of each clip the units [U], one a frame of the encoder, or for a fine stage the coarse codes [T, Q'].
      given: the codes [P, L] of its first frames that are known; P may be 0.
      n_frames: T of each clip.

    Raises ValueError for logits that are not finite.
    """
    facts, made = stage.facts, [np.asarray(codes, np.int32) for codes in given]
    keys_N = keys_of(jax.random.key(0) if key is None else key, len(told))
    keys_N = jax.vmap(jax.random.fold_in, (0, None))(keys_N, facts.levels[0])
    window, number = facts.crops.frames(facts.rates), 0
    while waiting := [i for i in range(len(told)) if len(made[i]) < n_frames[i]]:
        keys = jax.vmap(jax.random.fold_in, (0, None))(keys_N[np.array(waiting)], number)
        for first in range(0, len(waiting), rows):
            batch = waiting[first : first + rows]
            bounds = [next_window(len(made[i]), n_frames[i], window) for i in batch]
            prompts = [_window_ids(stage, told[i], made[i], *at) for i, at in zip(batch, bounds, strict=True)]
            missing = [stop - len(made[i]) for i, (_, stop) in zip(batch, bounds, strict=True)]
            new = _continue(stage, prompts, max(missing), keys[first : first + rows])
            for i, codes_TxL, n in zip(batch, new, missing, strict=True):
                made[i] = np.concatenate([made[i], codes_TxL[:n]])
        number += 1
    return made


def next_window(known: int, n_frames: int, window: int) -> tuple[int, int]:
    """(first, stop) frame of the window that goes on behind `known` frames of a clip."""
    overlap = min(window - 1, max(1, round(OVERLAP * window)))
    first = 0 if known <= window // 2 else known - overlap  # a prompt of at most half a window is heard whole
    return first, min(first + window, n_frames)


def check_pair(coarse: Stage, fine: Stage) -> None:
    """Raises ValueError, naming what differs, unless the fine stage can go on with what the coarse one makes."""
    for stage, name in ((coarse, "coarse"), (fine, "fine")):
        if stage.facts.stage != name:
            raise ValueError(
                f"the {name} stage that was given is a '{stage.facts.stage}' stage: give both in their order"
            )
    mine, theirs = (stage.vocabulary.codec_sha256 for stage in (coarse, fine))
    if mine != theirs:
        names = [stage.facts.codec["name"] for stage in (coarse, fine)]
        raise ValueError(
            f"the coarse stage makes codes of the codec {names[0]} ({mine[:12]}..), the fine one of {names[1]} "
            f"({theirs[:12]}..), to which they mean other sounds: train both with the same data.codec"
        )
    n_coarse = [stage.facts.crops.coarse_levels for stage in (coarse, fine)]
    if n_coarse[0] != n_coarse[1]:
        raise ValueError(
            f"data.acoustic.coarse_levels is {n_coarse[0]} in the coarse stage and {n_coarse[1]} in the fine one: "
            "train both with the same"
        )


def _joined(stage: Stage, units: np.ndarray, prompt: Prompt | None, where: str) -> tuple[np.ndarray, np.ndarray]:
    """(units of prompt and clip, codes of the prompt)."""
    rates, n_levels = stage.facts.rates, stage.vocabulary.code_levels
    units = _checked_units(stage, units, where)
    if rates.n_codes(len(units)) < 1:
        raise ValueError(f"{where}: {len(units)} units are shorter than a frame of the codec: leave it out")
    if prompt is None or (not len(prompt.units) and not len(prompt.codes)):
        return units, np.zeros((0, n_levels), np.int32)
    told, codes_TxQ = _checked_units(stage, prompt.units, f"{where}, prompt"), np.asarray(prompt.codes)
    size = stage.vocabulary.codebook_size
    if codes_TxQ.ndim != 2 or codes_TxQ.shape[1] != n_levels:
        raise ValueError(f"{where}: the prompt's codes are {codes_TxQ.shape}: give [T, {n_levels}], all of the codec's")
    if codes_TxQ.size and not 0 <= codes_TxQ.min() <= codes_TxQ.max() < size:
        raise ValueError(f"{where}: the prompt has codes up to {codes_TxQ.max()}: the codec's run from 0 to {size - 1}")
    covered = min(int(rates.n_codes(len(told))), len(codes_TxQ))
    n_units, n_codes = _whole_frames(rates, covered)
    if not n_codes:
        raise ValueError(f"{where}: the prompt is shorter than a frame: give a longer one, or None")
    seconds = len(told) / rates.units, len(codes_TxQ) / rates.codes
    if abs(seconds[0] - seconds[1]) > _APART:
        raise ValueError(
            f"{where}: the prompt's units last {seconds[0]:.2f} s and its codes {seconds[1]:.2f} s: give those of one "
            "sound, the units one a frame (UnitSequence.expand())"
        )
    if covered >= stage.facts.crops.frames(rates):
        raise ValueError(
            f"{where}: the prompt of {seconds[1]:.2f} s leaves nothing of the {stage.facts.crops.seconds:g} s that the "
            "coarse stage sees: give 3 s"
        )
    return np.concatenate([told[:n_units], units]), codes_TxQ[:n_codes].astype(np.int32)


def _whole_frames(rates: FrameRates, n_codes: int) -> tuple[int, int]:
    """(units, codes) of `n_codes` frames of codes or a little fewer that end together, as what follows begins in both:
    if nowhere near, to half a frame of the faster rate. (0, 0) for less than a frame of the slower.
    """
    ratio = rates.units / rates.codes
    if ratio > 1:
        ends = [(n * ratio, n) for n in range(n_codes, max(0, n_codes - 16), -1)]
        found = [(round(exact), n, abs(exact - round(exact))) for exact, n in ends]
    else:
        most = int(n_codes * ratio + 1e-6)
        ends = [(n, n / ratio) for n in range(most, max(0, most - 16), -1)]
        found = [(n, round(exact), abs(exact - round(exact))) for n, exact in ends if round(exact) <= n_codes]
    return next((pair for *pair, off in found if off < 0.25), found[0][:2] if found else (0, 0))


def _checked_units(stage: Stage, units: np.ndarray, where: str) -> np.ndarray:
    units, size = np.asarray(units), stage.vocabulary.block("units").size
    if units.ndim != 1 or (units.size and not 0 <= units.min() <= units.max() < size):
        raise ValueError(
            f"{where}: units of shape {units.shape} up to {units.max(initial=0)}: give [U] indices from 0 to "
            f"{size - 1} of the inventory {stage.facts.inventory}"
        )
    return units.astype(np.int32)


def _window_ids(stage: Stage, told: np.ndarray, made_TxL: np.ndarray, first: int, stop: int) -> list[int]:
    """What the stage goes on with: the prefix of the window's frames and the codes known of them."""
    vocabulary, (level, _) = stage.vocabulary, stage.facts.levels
    if stage.facts.stage == "coarse":
        begin, end = stage.facts.rates.units_of(first, stop)
        prefix = coarse_prefix(told[begin:end], vocabulary)
    else:
        prefix = fine_prefix(told[first:stop], vocabulary)
    return [*prefix, *vocabulary.code_ids(made_TxL[first:], level).tolist()]


def _continue(stage: Stage, prompts: Sequence[Sequence[int]], n_frames: int, keys: jax.Array) -> list[np.ndarray]:
    """At least `n_frames` frames of codes [T, L] behind each prompt."""
    facts, (first, n_levels) = stage.facts, stage.facts.levels
    step = -(-facts.crops.frames(facts.rates) // _LENGTHS)
    n_frames = -(-n_frames // step) * step
    n_clips = len(prompts)
    filled = [i % n_clips for i in range(1 << (n_clips - 1).bit_length())]  # few numbers of rows, too
    prompts, keys = [prompts[i] for i in filled], keys[np.array(filled)]
    ids_BxP = np.zeros((len(prompts), max(map(len, prompts))), np.int32)
    mask_BxP = np.arange(ids_BxP.shape[1]) < np.array([len(prompt) for prompt in prompts])[:, None]
    ids_BxP[mask_BxP] = np.concatenate(prompts)
    tokens_BxN, _ = generate(
        stage.model,
        ids_BxP,
        mask_BxP,
        keys,
        replace(facts.sampling, max_new_tokens=n_frames * n_levels),
        allowed_V=stage.vocabulary.code_masks(first, n_levels),
        stop_ids=(),
    )
    return [stage.vocabulary.codes_of(tokens_N, n_levels, first) for tokens_N in tokens_BxN[:n_clips]]
