"""Learning a unit inventory from clips: features of a sample of their frames, then k-means.

Shape letters: N frames, D features.
"""

import itertools
import logging
from collections.abc import Iterable

import numpy as np

from jaxslm.units.encoders import Encoder
from jaxslm.units.inventory import UnitInventory
from jaxslm.units.kmeans import fit_kmeans, fit_kmeans_minibatch

logger = logging.getLogger(__name__)

_CLIPS = 64  # that are encoded together


def learn_inventory(
    encoder: Encoder,
    clips: Iterable[np.ndarray],
    k: int,
    seed: int,
    max_frames: int = 200_000,
    *,
    kmeans_batch: int = 0,
    deduplicated: bool = True,
) -> UnitInventory:
    """Learns k units from clips (float32 [N], 16 kHz): features, normalised to mean 0 and deviation 1, then k-means.

    Of more than `max_frames` frames a random sample of that many is used, each frame of all clips being equally likely;
    the clips are read once and never held together.

    Args:
      kmeans_batch: frames of a batch of mini-batch k-means; 0 for Lloyd's iterations over all frames.
      deduplicated: whether the inventory joins runs of equal labels.
    Raises:
      ValueError: fewer frames than k.
    """
    rng, clips = np.random.default_rng(seed), iter(clips)
    kept_NxD, rank_N = np.zeros((0, encoder.dim), np.float32), np.zeros(0)  # the frames of lowest random rank
    pending, n_pending = [], 0

    def sample():
        frames_NxD = np.concatenate([kept_NxD, *pending])
        ranks_N = np.concatenate([rank_N, rng.random(n_pending)])
        lowest = np.sort(np.argsort(ranks_N, kind="stable")[:max_frames])
        return frames_NxD[lowest], ranks_N[lowest]

    while batch := list(itertools.islice(clips, _CLIPS)):
        features = encoder.encode(batch)
        pending += features
        n_pending += sum(map(len, features))
        if n_pending >= max_frames:
            kept_NxD, rank_N = sample()
            pending, n_pending = [], 0
    frames_NxD, _ = sample()
    if len(frames_NxD) < k:
        raise ValueError(
            f"{len(frames_NxD)} frames of speech are too few for {k} units; give more audio or lower units.clusters"
        )
    mean_D = frames_NxD.mean(axis=0, dtype=np.float64)
    std_D = np.maximum(frames_NxD.std(axis=0, dtype=np.float64), 1e-5)
    mean_D, std_D = mean_D.astype(np.float32), std_D.astype(np.float32)
    frames_NxD = (frames_NxD - mean_D) / std_D
    if kmeans_batch:
        found = fit_kmeans_minibatch(frames_NxD, k, seed=seed, batch_size=kmeans_batch)
    else:
        found = fit_kmeans(frames_NxD, k, seed=seed)
    logger.info("%s", found.summary())
    return UnitInventory(
        **encoder.identity, centroids=found.centroids, size=k, deduplicated=deduplicated, mean=mean_D, std=std_D
    )
