"""Codes of whole clips by a few passes of the masked stage, all frames of a level at once (SoundStorm, section 3.3,
after MaskGIT, Chang et al. 2022).

Level by level: each pass draws a code for every frame that has none, keeps those the model is surest of, and hides the
others again; how many stay hidden falls as a cosine to none. All passes are one compiled loop.

Legend: B clips, T frames, Q levels, K codes, P passes.
"""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from jaxslm.acoustic.masked import MaskedModel
from jaxslm.masking import mask_time


@dataclass(frozen=True)
class Unmasking:
    """How codes are drawn.

    passes: of each level, the last of which is for all that remain. SoundStorm has 16 and then 1 each.
    temperature: of the codes where a level has several passes; a single pass takes the likeliest.
    choice_temperature: of the noise on what counts as sure, falling to 0 with the passes of a level.
    guidance: w of `logits + w (logits - logits without the prompt)`, whose codes of the level and those above it are
      hidden for these, as the model knows it from training without prompts; 0 computes no such second pass.
    """

    passes: tuple[int, ...] = (16, 1, 1, 1, 1, 1, 1, 1)
    temperature: float = 1.0
    choice_temperature: float = 4.5
    guidance: float = 0.0

    def __post_init__(self):
        object.__setattr__(self, "passes", tuple(self.passes))
        if not self.passes or min(self.passes) < 1:
            raise ValueError(f"passes={self.passes}: give each level 1 or more")
        for name in ("temperature", "choice_temperature", "guidance"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name}={getattr(self, name)}; set it to a number of 0 or more")

    def check_levels(self, n_levels: int) -> None:
        """Raises ValueError for as many numbers of passes as there are not levels."""
        if len(self.passes) != n_levels:
            raise ValueError(f"passes={self.passes} for {n_levels} levels: give one number for each")

    def schedule(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """([P] levels, [P] shares of the frames that stay hidden after the pass, [P] noise of the choice)."""
        rows = [
            (level, math.cos(math.pi / 2 * done / count) if done < count else 0.0, 1 - done / count)
            for level, count in enumerate(self.passes)
            for done in range(1, count + 1)
        ]
        levels, shares, noise = zip(*rows, strict=True)
        return np.array(levels, np.int32), np.array(shares, np.float32), np.array(noise, np.float32)


def unmask(
    model: MaskedModel,
    units_BxT: jax.Array,
    frames_B: jax.Array,
    prompt_BxTxQ: jax.Array,
    prompt_B: jax.Array,
    keys_B: jax.Array,
    settings: Unmasking = Unmasking(),
) -> jax.Array:
    """Codes int32 [B, T, Q] for units, one a frame; the first `prompt_B` frames are those of `prompt_BxTxQ`, whose
    voice the others take on. Codes beyond `frames_B` mean nothing. A row has the codes that its key gives it alone, up
    to the rounding of float32; one whose logits were not all finite has -1 everywhere.

    Raises ValueError for as many numbers of passes as there are not levels.
    """
    config = model.config
    settings.check_levels(config.n_levels)
    n_frames = units_BxT.shape[1]
    given_BxT = mask_time(n_frames, prompt_B)
    open_BxT = mask_time(n_frames, frames_B) & ~given_BxT
    n_open_B = open_BxT.sum(axis=1)
    levels_P, shares_P, noise_P = map(jnp.asarray, settings.schedule())
    several_P = jnp.asarray(np.array(settings.passes) > 1)[levels_P]

    def logits_of(codes, known, level):
        return model.logits(model(units_BxT, codes, known, frames_B), level)

    def one_pass(p, carry):
        codes, known, finite_B = carry
        level = levels_P[p]
        logits = logits_of(codes, known, level)
        if settings.guidance:
            hidden_BxTxQ = given_BxT[..., None] & (jnp.arange(config.n_levels) >= level)
            alone = logits_of(codes, known & ~hidden_BxTxQ, level)
            logits = logits + settings.guidance * (logits - alone)
        finite_B &= jnp.where(open_BxT[..., None], jnp.isfinite(logits), True).all(axis=(1, 2))
        draw_B, choose_B = jax.vmap(lambda key: jax.random.split(jax.random.fold_in(key, p)))(keys_B).T
        temperature = jnp.where(several_P[p], settings.temperature, 0.0)
        noise = jax.vmap(lambda key: jax.random.gumbel(key, logits.shape[1:]))(draw_B)
        drawn_BxT = jnp.argmax(logits + temperature * noise, axis=-1).astype(jnp.int32)
        sureness = jnp.take_along_axis(jax.nn.log_softmax(logits), drawn_BxT[..., None], axis=-1)[..., 0]
        choice = jax.vmap(lambda key: jax.random.gumbel(key, (n_frames,)))(choose_B)
        sureness += settings.choice_temperature * noise_P[p] * choice

        at_Q = jnp.arange(config.n_levels) == level
        unknown_BxT = open_BxT & ~(known & at_Q).any(axis=-1)
        codes = jnp.where(unknown_BxT[..., None] & at_Q, drawn_BxT[..., None], codes)
        # The least sure of the frames drawn in this pass are hidden again.
        order_BxT = jnp.argsort(jnp.argsort(jnp.where(unknown_BxT, sureness, jnp.inf), axis=1), axis=1)
        stay_B = jnp.floor(n_open_B * shares_P[p]).astype(jnp.int32)
        kept_BxT = unknown_BxT & (order_BxT >= stay_B[:, None])
        return codes, known | (kept_BxT[..., None] & at_Q), finite_B

    known_BxTxQ = jnp.broadcast_to(given_BxT[..., None], prompt_BxTxQ.shape)
    codes = jnp.where(known_BxTxQ, prompt_BxTxQ, 0).astype(jnp.int32)
    start = codes, known_BxTxQ, jnp.ones(len(codes), bool)
    codes, _, finite_B = jax.lax.fori_loop(0, len(levels_P), one_pass, start)
    return jnp.where(finite_B[:, None, None], codes, -1)
