"""Losses of a codec but those of spectra: adversarial, of features, of the waveform, of a teacher.

Means are over all real positions of the batch; what is padding neither counts nor has a gradient. None for the lengths
says that all rows are full.

Legend: B batch, N samples, T time, D features of the teacher.
"""

import jax
import jax.numpy as jnp

from jaxslm.codec.scores import Scores
from jaxslm.masking import mask_time

_COSINE_EPS = 1e-8


def masked_mean(x_BxTx: jax.Array, n_B: jax.Array | None = None) -> jax.Array:
    """float32 mean over the first `n_B` positions of time of each row; 0 where there are none."""
    x = x_BxTx.astype(jnp.float32)
    if n_B is None:
        return x.mean()
    total = jnp.where(mask_time(x.shape[1], n_B, x.ndim), x, 0.0).sum()
    return total / (jnp.maximum(n_B.sum(), 1) * (x[0, 0].size))


def discriminator_loss(
    fake: list[Scores], real: list[Scores], form: str = "hinge", *, average: bool = True
) -> jax.Array:
    """What the discriminators minimise. form: "hinge" or "least_squares".

    average: over sub-discriminators, as SoundStream and EnCodec do; else summed, as HiFi-GAN and DAC do. Give it
    samples of the generator without gradient.
    """
    sides = {
        "hinge": (lambda x: jax.nn.relu(1 + x), lambda x: jax.nn.relu(1 - x)),
        "least_squares": (jnp.square, lambda x: jnp.square(1 - x)),
    }
    on_fake, on_real = _form(sides, form)
    losses = [_logit_mean(on_fake, f) + _logit_mean(on_real, r) for f, r in zip(fake, real, strict=True)]
    return sum(losses) / (len(losses) if average else 1)


def generator_loss(fake: list[Scores], form: str = "hinge", *, average: bool = True) -> jax.Array:
    """What the generator minimises. form: "hinge" is -D (audiocraft), "clipped_hinge" max(0, 1 - D) (the papers of
    SoundStream and EnCodec), "least_squares" (1 - D) ** 2. average: as in `discriminator_loss`.
    """
    sides = {
        "hinge": jnp.negative,
        "clipped_hinge": lambda x: jax.nn.relu(1 - x),
        "least_squares": lambda x: jnp.square(1 - x),
    }
    side = _form(sides, form)
    losses = [_logit_mean(side, f) for f in fake]
    return sum(losses) / (len(losses) if average else 1)


def feature_matching(fake: list[Scores], real: list[Scores], form: str = "relative") -> jax.Array:
    """L1 distance of the feature maps; those of the real samples have no gradient.

    form: "relative" divides each map's distance by the mean magnitude of its real map and averages over maps, then
    sub-discriminators (EnCodec's paper, section 3.4); "mean" averages without dividing (audiocraft); "sum" adds up the
    maps of all sub-discriminators (HiFi-GAN, DAC).
    """
    _form(dict.fromkeys(("relative", "mean", "sum")), form)
    by_sub = []
    for f, r in zip(fake, real, strict=True):
        counts = f.counts or (None,) * len(f.features)
        distances = []
        for x, y, n_B in zip(f.features, r.features, counts, strict=False):
            y = jax.lax.stop_gradient(y)
            distance = masked_mean(jnp.abs(x - y), n_B)
            if form == "relative":
                distance = distance / jnp.maximum(masked_mean(jnp.abs(y), n_B), 1e-8)
            distances.append(distance)
        by_sub.append(sum(distances) / (1 if form == "sum" else len(distances)))
    return sum(by_sub) / (1 if form == "sum" else len(by_sub))


def waveform_l1(fake_BxN: jax.Array, real_BxN: jax.Array, n_samples_B: jax.Array | None = None) -> jax.Array:
    """Mean absolute difference of the samples."""
    return masked_mean(jnp.abs(fake_BxN - real_BxN), n_samples_B)


def waveform_l2(fake_BxN: jax.Array, real_BxN: jax.Array, n_samples_B: jax.Array | None = None) -> jax.Array:
    """Mean squared difference of the samples."""
    return masked_mean(jnp.square(fake_BxN - real_BxN), n_samples_B)


def distil_by_dimension(student_BxTxD: jax.Array, teacher_BxTxD: jax.Array, frames_B: jax.Array | None = None):
    """SpeechTokenizer's distillation (trainer/loss.py, d_axis_distill_loss): -log sigmoid of the cosine, over time, of
    each feature of student and teacher, averaged over features and rows. The longer of the two is cut.
    """
    student, teacher, frames_B = _aligned(student_BxTxD, teacher_BxTxD, frames_B)
    rows = -jax.nn.log_sigmoid(_cosine(student, teacher, axis=1))
    if frames_B is None:
        return rows.mean()
    return masked_mean(rows[:, None], (frames_B > 0).astype(jnp.int32))


def distil_by_frame(student_BxTxD: jax.Array, teacher_BxTxD: jax.Array, frames_B: jax.Array | None = None):
    """Mimi's distillation (Defossez et al. 2024, section 3.3.2): 1 - the cosine of each frame's features, averaged over
    frames. The longer of the two is cut.
    """
    student, teacher, frames_B = _aligned(student_BxTxD, teacher_BxTxD, frames_B)
    return masked_mean(1 - _cosine(student, teacher, axis=2), frames_B)


def _aligned(student, teacher, frames_B):
    n = min(student.shape[1], teacher.shape[1])
    student = student[:, :n].astype(jnp.float32)
    teacher = jax.lax.stop_gradient(teacher[:, :n].astype(jnp.float32))
    if frames_B is None:
        return student, teacher, None
    frames_B = jnp.minimum(frames_B, n)
    real = mask_time(n, frames_B, 3)
    return jnp.where(real, student, 0.0), jnp.where(real, teacher, 0.0), frames_B


def _cosine(x, y, axis: int):
    """As torch's cosine_similarity, with a gradient of 0 where a norm is below its floor."""
    squares = jnp.square(x).sum(axis), jnp.square(y).sum(axis)
    norms = [jnp.sqrt(jnp.maximum(s, _COSINE_EPS**2)) for s in squares]
    return (x * y).sum(axis) / (norms[0] * norms[1])


def _logit_mean(side, scores: Scores):
    return masked_mean(side(scores.logits.astype(jnp.float32)), scores.counts and scores.counts[-1])


def _form(table: dict, form: str):
    if form not in table:
        raise ValueError(f"form is '{form}': use one of {', '.join(table)}")
    return table[form]
