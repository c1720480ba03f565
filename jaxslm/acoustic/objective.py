"""What the masked stage learns by: the codes it cannot see of one level of each clip, and how long units last.

Legend: B clips, T frames, Q levels, K codes of a level, R runs of equal units.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from jaxslm.acoustic.durations import DurationModel, duration_loss
from jaxslm.acoustic.masked import MaskedModel
from jaxslm.acoustic.masking import draw_masks
from jaxslm.sharding import Constrain, no_constraint


def masked_sums(
    model: MaskedModel,
    batch: Mapping[str, jax.Array],
    *,
    prompt_dropout: float,
    constrain: Constrain = no_constraint,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """(sum of the losses in nats, sums by level: `nll_O`, `weight_O`, how many codes, and `right_O`, how many of these
    are the likeliest; all [Q]).

    Args:
      batch: rows of `CodeCrops`: units [B, T], codes [B, T, Q], frames [B, 1], draw [B, 2].
      prompt_dropout: see `draw_masks`.
    """
    config, codes_BxTxQ, frames_B = model.config, batch["codes"], batch["frames"][:, 0]
    keys_B = jax.random.wrap_key_data(batch["draw"], impl="threefry2x32")
    n_frames = codes_BxTxQ.shape[1]
    masks = draw_masks(keys_B, frames_B, n_frames, config.n_levels, prompt_dropout=prompt_dropout)
    hidden_BxTxD = model(batch["units"], codes_BxTxQ, masks.known_BxTxQ, frames_B, constrain)
    logits_BxTxK = model.logits(hidden_BxTxD, masks.level_B)
    wanted_BxT = jnp.take_along_axis(codes_BxTxQ, masks.level_B[:, None, None], axis=2)[..., 0]
    wanted_logits_BxT = jnp.take_along_axis(logits_BxTxK, wanted_BxT[..., None], axis=2)[..., 0]
    nll_BxT = jax.nn.logsumexp(logits_BxTxK, axis=-1) - wanted_logits_BxT
    right_BxT = logits_BxTxK.argmax(axis=-1) == wanted_BxT
    of_level_BxQ = jax.nn.one_hot(masks.level_B, config.n_levels)

    def by_level(values_BxT: jax.Array) -> jax.Array:
        return jnp.where(masks.learnt_BxT, values_BxT, 0.0).sum(axis=1) @ of_level_BxQ

    sums = dict(nll_O=by_level(nll_BxT), weight_O=by_level(jnp.ones_like(nll_BxT)), right_O=by_level(right_BxT))
    return sums["nll_O"].sum(), sums


def duration_mean(model: DurationModel, batch: Mapping[str, jax.Array], *, train: bool) -> jax.Array:
    """The loss of durations, a mean over the units that are measured, of rows of `CodeCrops`: `runs` and `durations`
    [B, R], `n_runs` [B, 1]. train: with dropout.
    """
    key = jax.random.wrap_key_data(batch["draw"][0], impl="threefry2x32")
    dropped = jax.random.fold_in(key, 1) if train else None
    made = model.log_durations(batch["runs"], batch["n_runs"][:, 0], key=dropped)
    return duration_loss(made, batch["durations"], batch["durations"] > 0)
