"""Which codes of a clip are hidden while the masked stage learns (SoundStorm, Borsos et al. 2023, section 3.2).

A level q is drawn, and a prompt, the first t frames, that stays as it is. Behind it all levels below q are known, none
above, and of q itself each frame is hidden with a probability that is the cosine of an even draw. Only the hidden codes
of level q are learnt.

Legend: B clips, T frames, Q levels.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxslm.masking import mask_time


class Masks(NamedTuple):
    """level_B: int32, the level that is learnt. prompt_B: int32, frames of the prompt. known_BxTxQ: what is seen.
    learnt_BxT: whose code of that level counts for the loss; at least one frame of each clip that has any.
    """

    level_B: jax.Array
    prompt_B: jax.Array
    known_BxTxQ: jax.Array
    learnt_BxT: jax.Array


def draw_masks(
    keys_B: jax.Array, frames_B: jax.Array, n_frames: int, n_levels: int, *, prompt_dropout: float = 0.0
) -> Masks:
    """Masks of clips of `frames_B` of at most `n_frames` frames, each drawn by a key of its own.

    prompt_dropout: share of the clips without a prompt, besides those whose prompt happens to have no frame.
    """

    def draw(key: jax.Array, frames: jax.Array):
        keys = jax.random.split(key, 5)
        prompt = jax.random.randint(keys[1], (), 0, jnp.maximum(frames, 1))
        prompt = jnp.where(jax.random.bernoulli(keys[2], prompt_dropout), 0, prompt)
        share = jnp.cos(jax.random.uniform(keys[3], maxval=jnp.pi / 2))
        return jax.random.randint(keys[0], (), 0, n_levels), prompt, share, jax.random.uniform(keys[4], (n_frames,))

    level_B, prompt_B, share_B, drawn_BxT = jax.vmap(draw)(keys_B, frames_B)
    behind_BxT = mask_time(n_frames, frames_B) & ~mask_time(n_frames, prompt_B)
    drawn_BxT = jnp.where(behind_BxT, drawn_BxT, 2.0)
    # The smallest draw is hidden in any case: a clip of which nothing is hidden would teach nothing.
    smallest_BxT = drawn_BxT == drawn_BxT.min(axis=1, keepdims=True)
    hidden_BxT = behind_BxT & ((drawn_BxT < share_B[:, None]) | smallest_BxT)
    levels_Q, level_Bx1x1 = jnp.arange(n_levels), level_B[:, None, None]
    below, at = levels_Q < level_Bx1x1, levels_Q == level_Bx1x1
    known_BxTxQ = ~behind_BxT[..., None] | below | (at & ~hidden_BxT[..., None])
    return Masks(level_B, prompt_B, known_BxTxQ, hidden_BxT)
